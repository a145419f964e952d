"""What a GPU alone can show: four-bit weights in bfloat16, paged 8-bit AdamW and gradient checkpointing in one PPO update."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from alignbench_ppo.config import PPOConfig
from alignbench_ppo.ppo import PPO

from alignbench import Sampling, ScoredRollout, Seeds
from tests import tiny

DEVICES = [
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
    "cpu",
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def policy(folder: Path, device: torch.device, **options: object) -> HFPolicy:
    tiny.base_model(hidden=64).save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    config = PretrainedConfig(
        path=str(folder), quantization="nf4", gradient_checkpointing=True, max_prompt_tokens=8, max_response_tokens=6, **options
    )  # fmt: skip
    return build_pretrained(config, tokenizer=None, device=device, seeds=Seeds(0))


@pytest.mark.parametrize("merge", [True, False])
def test_one_ppo_update(device: torch.device, merge: bool, tmp_path: Path) -> None:
    subject = policy(tmp_path, device, merge_adapters=merge)
    subject.freeze_reference()
    optimizer = "paged_adamw_8bit" if device.type == "cuda" else "adamw"
    config = PPOConfig(batch_size=12, micro_batch_size=4, learning_rate=1e-2, optimizer=optimizer)
    ppo = PPO(config, policy=subject, updates=1, seeds=Seeds(1))
    rng = torch.Generator().manual_seed(0)
    rollout = subject.generate(tiny.PROMPTS, Sampling(), n=2, rng=rng)
    scores = torch.randn(12, generator=torch.Generator().manual_seed(0)).to(device)
    model = subject._roles.use("policy")
    packed = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    before = [p.detach().clone() for p in subject.trainable()]
    report = ppo.update(ScoredRollout(rollout, scores))
    assert report.optimizer_steps == config.epochs * config.minibatches
    assert any(not torch.equal(a, b) for a, b in zip(before, subject.trainable(), strict=True))
    assert all(bool(torch.isfinite(p).all()) for p in subject.trainable())
    after = dict(model.named_parameters())
    assert all(torch.equal(packed[n], after[n]) for n in packed), "the base, bit for bit"
    assert any(isinstance(m, bnb.nn.Linear4bit) for m in model.modules())
    path = subject.save(tmp_path)
    sequences = rollout.samples.sequences
    with torch.no_grad():
        expected = subject.logprobs(sequences).logprobs
        tiny.move(subject)
        subject.load(path)
        assert torch.equal(subject.logprobs(sequences).logprobs, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_eight_bit_base_computes_on_a_gpu(tmp_path: Path) -> None:
    tiny.base_model(hidden=64).save_pretrained(tmp_path)
    tiny.letters().save_pretrained(tmp_path)
    config = PretrainedConfig(
        path=str(tmp_path), quantization="int8", merge_adapters=False, max_prompt_tokens=8, max_response_tokens=6
    )
    subject = build_pretrained(config, tokenizer=None, device=torch.device("cuda"), seeds=Seeds(0))
    rollout = subject.generate(tiny.PROMPTS, Sampling(), n=2, rng=torch.Generator().manual_seed(0))
    subject.logprobs(rollout.samples.sequences).logprobs.sum().backward()
    assert max(float(p.grad.abs().max()) for p in subject.trainable() if p.grad is not None) > 0
