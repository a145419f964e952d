"""What is found out about a model at load, with a few tokens: faults are refused in one line, and sharing where it would go wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_hf.architecture.output import OutputLayer
from alignbench_hf.architecture.trunk import Sharing, text_config
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from safetensors.torch import load_file, save_file
from transformers import BloomModel, GPT2Model, LlamaModel

from alignbench import POLICY, Sampling, Seeds, UserError
from tests import tiny
from tests.hf import architectures
from tests.hf.architecture_checks import alone, checkpoint, load, rollout
from tests.shared_data import shared_case

EMPTY = torch.zeros(0, dtype=torch.long)


def build(folder: Path, **changes: object) -> HFPolicy:
    limits = {"max_prompt_tokens": 8, "max_response_tokens": 6, "lora_rank": 4, "dtype": "float32"}
    config = PretrainedConfig(path=str(folder), **(limits | changes))
    return build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))


# Faults that are refused


def deaf(arguments: dict[str, Any]) -> None:
    arguments["attention_mask"] = None


def lost(arguments: dict[str, Any]) -> None:
    arguments["position_ids"] = None


def forgetful(arguments: dict[str, Any]) -> None:
    arguments["past_key_values"] = None


def wrong(arguments: dict[str, Any]) -> None:
    raise KeyError("no such layer")


def plant(fault: Callable[[dict[str, Any]], None], kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into transformers' own model, which is then another architecture under the same name."""
    honest = kind.forward  # type: ignore[attr-defined]

    @functools.wraps(honest)
    def faulty(self: Any, input_ids: Any = None, **arguments: Any) -> Any:
        fault(arguments)
        return honest(self, input_ids, **arguments)

    monkeypatch.setattr(kind, "forward", faulty)


@pytest.mark.parametrize(
    ("fault", "name", "kind", "what"),
    [
        (deaf, "llama", LlamaModel, "log-probabilities of sampling are not those"),
        (deaf, "bloom", BloomModel, "log-probabilities of padded rows are not those"),
        (lost, "gpt2", GPT2Model, "log-probabilities of padded rows are not those"),
        (forgetful, "llama", LlamaModel, "log-probabilities of sampling are not those"),
        (
            wrong,
            "llama",
            LlamaModel,
            r"a pass over a few tokens fails \(something that is needed is missing or unknown: 'no such layer'\)",
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_reads_otherwise_is_refused(
    fault: Callable[[dict[str, Any]], None],
    name: str,
    kind: type,
    what: str,
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = checkpoint(name)
    plant(fault, kind, monkeypatch)
    with pytest.raises(UserError, match=f"(LMHeadModel|ForCausalLM) cannot be trained here: .*{what}") as caught:
        build(folder, dtype=dtype)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["model.embed_tokens", "model.layers.1.mlp.up_proj"])
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(
    tmp_path: Path, value: float, quantization: str, where: str
) -> None:
    """Of a token that no prompt has, too."""
    architectures.build("llama", tmp_path)
    file = tmp_path / "llama" / "model.safetensors"
    weights = load_file(file)
    weights[f"{where}.weight"][9, 3] = value
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"holds NaN or infinity in {where}"):
        build(tmp_path / "llama", quantization=quantization)


def test_a_model_of_the_field_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UserError, match="peft cannot adapt MambaForCausalLM"):
        build(shared_case("models", "models_mamba"), max_prompt_tokens=64)


@pytest.mark.parametrize("targets", ["all-linear", "in_proj,x_proj"])
def test_a_model_without_a_cache_of_ours_is_refused_whatever_is_adapted(targets: str) -> None:
    with pytest.raises(UserError, match="MambaForCausalLM"):
        build(checkpoint("mamba"), lora_targets=targets)


def test_a_planned_encoder_decoder_is_refused_as_well() -> None:
    config = PretrainedConfig(path=str(checkpoint("t5")))
    with pytest.raises(UserError, match="t5 is an encoder-decoder model"):
        config.plan([], device="cpu", tokenizer=lambda: None)


@pytest.mark.parametrize(
    "case", ["models_gemma2", "broken_gemma3_vl", "models_opt", "models_mixtral", "models_deepseek_v3", "models_lfm2"]
)
@pytest.mark.parametrize("merge", [True, False])
def test_models_that_failed_once(case: str, merge: bool) -> None:
    """Small checkpoints of the field's reports, merged where experts are fused and not."""
    policy = build(shared_case("models", case), max_prompt_tokens=64, max_response_tokens=8, merge_adapters=merge)
    tiny.move(policy, scale=0.1)
    rollout = policy.generate(tiny.PROMPTS, Sampling(), n=1, rng=torch.Generator().manual_seed(0))
    sequences = rollout.samples.sequences
    with torch.no_grad():
        found = policy.logprobs(sequences).logprobs
        right = torch.cat([alone(policy._roles._peft, sequences, row) for row in range(len(sequences))])
    torch.testing.assert_close(found[sequences.response_mask.bool()], right, rtol=0, atol=1e-4)
    torch.testing.assert_close(found, rollout.logprobs, rtol=0, atol=1e-4)


# What can be shared


@pytest.mark.parametrize(
    ("name", "sharing"),
    [
        ("llama", Sharing()),
        ("bloom", Sharing()),
        ("mistral", Sharing(start_within=architectures.WINDOW)),
        ("gemma3", Sharing(start_within=architectures.WINDOW)),
        ("mpt", Sharing(start_within=0)),  # its distances between tokens count columns
        ("lfm2", Sharing(prompts=False)),
        ("qwen3_next", Sharing(prompts=False)),
    ],
)
@pytest.mark.parametrize("setting", ["float32", "bfloat16"])
def test_what_an_architecture_can_share(name: str, sharing: Sharing, setting: str) -> None:
    assert load(name, setting)._roles.sharing == sharing


@pytest.mark.parametrize("name", ["mistral", "mpt"])
def test_a_shared_start_would_be_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The padding behind it pushes tokens out of the window, and moves those of MPT apart."""
    monkeypatch.setattr("alignbench_hf.prompts.WORTHWHILE", 1.0)
    policy = load(name, "float32")
    sequences = rollout(policy).samples.sequences
    right = policy.logprobs(sequences).logprobs
    policy._roles.sharing = Sharing()
    assert float((policy.logprobs(sequences).logprobs - right).detach().abs().max()) > 1e-3


# Where sizes stand


def test_a_model_that_reads_images_too_is_read_by_its_text() -> None:
    policy = load("gemma3", "float32")
    model = policy._roles.use(POLICY)
    assert not hasattr(model.config, "hidden_size") and text_config(model).hidden_size == architectures.WIDTH
    assert policy.window == 64
    assert policy.scalar("value").values(rollout(policy).samples.sequences).shape[0] == 12
    assert all("vision" not in name for name in policy._roles.named_parameters(POLICY))
    with pytest.raises(UserError, match="window of 64 tokens"):
        build(checkpoint("gemma3"), max_prompt_tokens=60, max_response_tokens=6)


# The output layer


@pytest.mark.parametrize("name", ["gpt_neox", "phi", "stablelm"])
def test_states_of_another_type_reach_the_output_layer(name: str) -> None:
    """On a GPU autocast computes nn.LayerNorm in float32, and the output layer is in bfloat16 and outside of it."""
    model = load(name, "bfloat16")._roles.use(POLICY)
    states = torch.randn(3, architectures.WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        found = OutputLayer(model, EMPTY)(states.float())
        assert found.dtype is torch.bfloat16
        assert torch.equal(found, model.get_output_embeddings()(states))
