"""Which layers are adapted: embeddings and output layers too, and never one that no text would train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy

from alignbench import POLICY, Does, Sampling, UserError, Work
from tests import tiny
from tests.hf.architecture_checks import NEAR, alone, distance, gradients, load, rollout

BESIDE = {
    "llama": "q_proj,embed_tokens",
    "qwen2": "embed_tokens,lm_head",
    "gemma": "embed_tokens",
    "gpt2": "wte,c_attn",
}
"""Qwen2's and Gemma's output layers have the weights of their embeddings; Gemma scales what it looks up."""


def adapted(policy: HFPolicy) -> set[str]:
    names = policy._roles.named_parameters(POLICY)
    return {name.partition(".lora_")[0].rpartition(".")[2] for name in names}


@pytest.mark.parametrize(("name", "targets"), BESIDE.items())
def test_adapters_of_embeddings_and_output_layers_are_trained(name: str, targets: str) -> None:
    """Gradients, scoring and samples, merged and not, are those of peft's own pass."""
    policy = load(name, "float32", lora_targets=targets)
    assert adapted(policy) == set(targets.split(","))
    model = policy._roles._peft
    everything = {id(p) for n, p in model.named_parameters() if "lora_" in n}
    assert {id(parameter) for parameter in policy.trainable()} == everything
    drawn = rollout(policy)
    sequences = drawn.samples.sequences
    found, ours = policy.logprobs(sequences).logprobs, gradients(policy, sequences)
    for layer in policy._roles._layers.values():
        vars(layer).pop("forward", None)  # peft's own from here
    right = torch.cat([alone(model, sequences, row) for row in range(len(sequences))])
    assert distance(found[sequences.response_mask.bool()].detach(), right.detach()) < NEAR
    theirs = torch.autograd.grad(right.sum(), policy.trainable())
    assert all(bool(slope.any()) for slope in theirs)
    assert distance(ours, torch.cat([slope.flatten() for slope in theirs])) < NEAR
    assert distance(drawn.logprobs, found.detach()) < NEAR, "merged"
    policy._roles._merges = False
    assert distance(rollout(policy).logprobs, found.detach()) < NEAR, "beside the base"


@pytest.mark.parametrize(("name", "targets"), BESIDE.items())
def test_adapters_of_embeddings_are_saved_and_belong_to_one_role(name: str, targets: str, tmp_path: Path) -> None:
    policy, other = (load(name, "float32", lora_targets=targets) for _ in range(2))
    tiny.move(policy, seed=3)
    policy.freeze_reference()
    sequences = rollout(policy).samples.sequences
    with torch.no_grad():
        right = policy.logprobs(sequences).logprobs
        other.load(policy.save(tmp_path))
        assert torch.equal(other.logprobs(sequences).logprobs, right)
        tiny.move(policy, seed=4)
        assert not torch.equal(policy.logprobs(sequences).logprobs, right)
        assert torch.equal(policy.logprobs(sequences, role="reference").logprobs, right)
    assert not any(p.requires_grad for p in policy._roles.named_parameters("reference").values())


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(("name", "targets"), [*BESIDE.items(), ("mixtral", "all-linear")])
def test_exports_compute_the_same(name: str, targets: str, merged: bool, tmp_path: Path) -> None:
    """Embeddings that are adapted apart from the output layer have tensors of their own; so have fused experts."""
    policy = load(name, "float32", lora_targets=targets)
    apart = policy.export(tmp_path / "out", merged=merged, prompts=tiny.PROMPTS)
    assert apart.mean < NEAR and apart.tokens > 12


@pytest.mark.parametrize(
    ("name", "wanted", "line"),
    [
        (
            "llama",
            "q_porj",
            "LlamaForCausalLM has no layer 'q_porj' .* all-linear or among down_proj, embed_tokens, gate_proj",
        ),
        ("llama", "q_proj, layers", "no layer 'layers'"),
        ("gpt2", "q_proj", "no layer 'q_proj' .* among c_attn, c_fc, c_proj, lm_head, wpe, wte"),
        ("gemma3", "fc1", "no layer 'fc1'"),  # of what reads images
        ("jamba", "dt_proj", "no layer 'dt_proj'"),  # whose weight Jamba multiplies by itself
    ],
)
def test_names_of_no_layer_are_refused_with_those_that_there_are(name: str, wanted: str, line: str) -> None:
    with pytest.raises(UserError, match=f"model.lora_targets: .*{line}"):
        load(name, "float32", lora_targets=wanted)


def test_what_no_text_would_train_is_left_out() -> None:
    assert "dt_proj" not in adapted(load("jamba", "float32")) and "x_proj" in adapted(load("jamba", "float32"))
    assert not {"fc1", "out_proj"} & adapted(load("gemma3", "float32"))


@pytest.mark.parametrize("name", ["gemma3", "gpt2", "mixtral", "bloom", "opt"])
@pytest.mark.parametrize("targets", ["all-linear", None])
def test_the_plan_counts_what_is_built(name: str, targets: str | None) -> None:
    """Of what has its sizes elsewhere, other kinds of layers, or fused experts: weights and adapters to the byte."""
    wanted = (
        targets or {"gemma3": "q_proj", "gpt2": "wte,c_fc", "mixtral": "v_proj", "bloom": "dense", "opt": "fc1"}[name]
    )
    policy = load(name, "float32", lora_targets=wanted)
    config: PretrainedConfig = policy._config  # type: ignore[assignment]
    parts = config.plan([Work("sft", Does.TRAIN, 2, 2, (POLICY,), (POLICY,))], device="cpu", tokenizer=lambda: None)[0]
    found = {part.name: part.size for part in parts}
    named = dict(policy._roles.use(POLICY).named_parameters())
    assert found["adapters"] == 4 * sum(p.numel() for n, p in named.items() if "lora_" in n)
    assert found["weights"] == 4 * sum(p.numel() for n, p in named.items() if "lora_" not in n)
    sampled = config.plan([Work("x", Does.SAMPLE, 2, 2, (POLICY,))], device="cpu", tokenizer=lambda: None)[0]
    assert all(part.size > 0 for part in sampled if part.name in ("KV cache", "merged copies"))
    policy.generate(tiny.PROMPTS[:1], Sampling(), rng=torch.Generator().manual_seed(0))
