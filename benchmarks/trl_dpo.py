"""DPO here and in TRL 1.16 on the same model, pairs, lengths and batch.

    python benchmarks/trl_dpo.py FOLDER_OF_HH_RLHF [--updates 9] [--rounds 1] [--trl-option NAME=VALUE ...] [OVERRIDE ...]

SmolLM2-135M-Instruct in bfloat16 with LoRA of rank 16 on all linear layers, pairs of helpful-base of at most 120 tokens a side, 8 pairs a
step. Each library in processes of its own, in turn; TRL is a dependency of the tests. The reference's log-probabilities count on both
sides: here they are made once before the first step, and each step bears its share. The first step is not counted. Every OVERRIDE is a
setting of this project's side; `--trl-option` is one of TRL's DPOConfig.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import (
    LORA,
    Measured,
    after_the_first,
    as_messages,
    chat_model,
    clock,
    dialogues,
    peak_gib,
    report,
    run,
)

TOKENS, PAIRS, MICRO = 120, 8, 4
LEARNING_RATE, BETA = 1e-5, 0.1


def ours(work: dict[str, Any], overrides: list[str]) -> Measured:
    """Reference log-probabilities and updates, as a run makes them."""
    import torch

    from alignbench import Message, PreferencePair, Prompt, Seeds
    from alignbench.app.compose import load_config
    from alignbench.pipeline.experience import pair_data, preference_batches
    from alignbench.pipeline.preparation import pick_device

    config = load_config(
        [
            "model=smollm2", "data=hh", "annotator=recorded", "algo=dpo", f"model.path={work['model']}", "model.dtype=bfloat16",
            f"model.max_prompt_tokens={TOKENS}", f"model.max_response_tokens={TOKENS}", f"algo.batch_size={PAIRS}",
            f"algo.micro_batch_size={MICRO}", f"algo.learning_rate={LEARNING_RATE}", f"algo.beta={BETA}", *overrides,
        ]
    )  # fmt: skip
    device = pick_device(config.device)
    policy = config.model.build(tokenizer=None, device=device, seeds=Seeds(0))
    policy.freeze_reference()
    pairs = [
        PreferencePair(Prompt(str(i), tuple(Message(**m) for m in row["prompt"])), row["chosen"], row["rejected"])
        for i, row in enumerate(work["pairs"])
    ]

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    start = now()
    data = pair_data(policy, pairs, config.algo.config)
    share = (now() - start) / work["updates"]
    optimizer = config.algo.build(policy=policy, updates=work["updates"], seeds=Seeds(0))
    stamps = [now()]
    for batch in preference_batches(data, config.algo.config, updates=work["updates"], seeds=Seeds(0)):
        optimizer.update(batch)
        stamps.append(now())
    steps = after_the_first(stamps)
    parts = {"reference": share, "update": sum(steps) / len(steps)}
    return Measured("alignbench", overrides, [share + step for step in steps], parts, PAIRS, peak_gib())


def theirs(work: dict[str, Any], options: list[str]) -> Measured:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    tokenizer.pad_token = work["pad"]
    answer = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    rows = [
        {"prompt": row["prompt"], "chosen": answer(row["chosen"]), "rejected": answer(row["rejected"])}
        for row in work["pairs"]
    ]
    ticking, stamps = clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=PAIRS,
            max_steps=work["updates"],
            max_length=TOKENS + 8,
            beta=BETA,
            learning_rate=LEARNING_RATE,
            report_to="none",
            save_strategy="no",
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            **{name: json.loads(value) for name, value in (option.split("=") for option in options)},
        )
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.bfloat16),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=LoraConfig(**LORA),
            callbacks=[ticking],
        )
        trainer.train()
    return Measured("TRL 1.16", options, after_the_first(stamps), {}, PAIRS, peak_gib())


def prepare(folder: Path, count: int, name: str) -> dict[str, Any]:
    """A checkpoint folder and the first `count` pairs of which both sides are short enough."""
    model, tokenizer = chat_model(name)
    pairs = []
    for pair in dialogues(folder):
        asked = as_messages(pair.prompt)
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        prompt = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        longest = max(len(tokenizer(side)["input_ids"]) for side in (pair.chosen, pair.rejected))
        if prompt + longest < TOKENS:  # with an EOS
            pairs.append({"prompt": asked, "chosen": pair.chosen, "rejected": pair.rejected})
        if len(pairs) == count:
            return {"model": str(model), "pad": tokenizer.pad_token, "pairs": pairs}
    raise SystemExit(f"{folder} has {len(pairs)} pairs of at most {TOKENS} tokens a side, not {count}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the files of HH-RLHF")
    parser.add_argument("overrides", nargs="*", help="settings of this project's side")
    parser.add_argument("--updates", type=int, default=9, help="steps, of which the first is not counted")
    parser.add_argument("--model", default="", help="hub id or folder of another chat model")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each library, in turn")
    parser.add_argument("--trl-option", action="append", default=[], help="NAME=VALUE (JSON) of TRL's DPOConfig")
    parser.add_argument("--measure", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    if arguments.measure:
        side, extra = (ours, arguments.overrides) if arguments.measure == "ours" else (theirs, arguments.trl_option)
        side(json.loads(arguments.data.read_text()), extra).say()
        return
    work = {**prepare(arguments.data, PAIRS * arguments.updates, arguments.model), "updates": arguments.updates}
    report(
        run(
            __file__,
            work,
            {"ours": sys.executable, "theirs": sys.executable},
            [*arguments.overrides, *(f"--trl-option={option}" for option in arguments.trl_option)],
            arguments.rounds,
        ),
        "pairs",
    )


if __name__ == "__main__":
    main()
