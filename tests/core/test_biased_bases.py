"""Whole runs on quantised bases whose linear layers have biases, by a preset that a user types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.harness import Command
from tests.hf import architectures

TINY = (
    *("model.dtype=float32", "model.lora_rank=4", "model.max_prompt_tokens=8", "model.max_response_tokens=6"),
    *("data=hh", "data.path=hh.jsonl", "data.held_out_rows=2", "cache=false"),
    *("sft.updates=1", "sft.batch_size=4", "sft.micro_batch_size=4", "algo.updates=2", "algo.batch_size=4"),
    *("algo.micro_batch_size=4", "eval.families=[optimization]", "eval.samples=1"),
)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("algo", ["ppo", "dpo"])
def test_qwen2_trains(command: Command, tmp_path: Path, algo: str, quantization: str) -> None:
    folder = architectures.build("qwen2", tmp_path)
    rows = [
        {"chosen": f"\n\nHuman: {q}?\n\nAssistant: a b", "rejected": f"\n\nHuman: {q}?\n\nAssistant: c"}
        for q in ("a b", "c d", "e", "f", "g", "h")
    ]
    Path("hh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fit = ("reward.updates=1", "reward.batch_size=4", "reward.micro_batch_size=4") if algo == "ppo" else ()
    done = command(
        *(
            "model=qwen2.5-0.5b",
            f"model.path={folder}",
            f"model.quantization={quantization}",
            f"algo={algo}",
            *TINY,
            *fit,
        )
    )
    assert done.code == 0, done.err
    results = [json.loads(file.read_text()) for file in sorted((tmp_path / "runs").rglob("result.json"))]
    assert [result["status"] for result in results] == ["finished"] * len(results) and results
