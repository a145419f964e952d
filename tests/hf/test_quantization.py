"""Bases in four and eight bits: they train as their dequantised selves do, and no rollout changes that."""

from __future__ import annotations

import re
from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from alignbench_hf import adapters, build, quantization
from alignbench_hf.adapters import AdapterRoles
from alignbench_hf.build import build_pretrained
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from alignbench_hf.quantization import dequantized, quantization_config
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from alignbench import POLICY, REFERENCE, Sampling, Seeds, UserError
from tests import tiny
from tests.hf import architectures
from tests.shared_data import shared_case

KINDS = ("nf4", "int8")
LIMITS = {"max_prompt_tokens": 8, "max_response_tokens": 6, "lora_rank": 4, "dtype": "float32"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    # As wide as a block of weights: where rows end within blocks, bitsandbytes reads other blocks' scales on AVX512.
    tiny.base_model(hidden=64).save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linear layers with biases: bitsandbytes' products are views of others."""
    return architectures.build("qwen2", tmp_path_factory.mktemp("biased"))


def load(checkpoint: Path, quantization: str = "nf4", **options: object) -> HFPolicy:
    config = PretrainedConfig(path=str(checkpoint), quantization=quantization, **(LIMITS | options))
    policy = build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))
    tiny.move(policy)
    return policy


def dequantised(checkpoint: Path, kind: str) -> HFPolicy:
    """The same weights after rounding, in float32, by transformers' own way back."""
    base = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        quantization_config=quantization_config(kind, torch.float32, tiny.CPU),
        device_map={"": "cpu"},
    )
    base = base.dequantize().float()
    assert not any(isinstance(m, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt) for m in base.modules())
    lora = LoraConfig(r=4, lora_alpha=32.0, target_modules="all-linear", task_type="CAUSAL_LM")
    with Seeds(0).global_torch("adapters"):
        roles = AdapterRoles(base, lora)
    policy = HFPolicy(PretrainedConfig(**LIMITS), roles, tiny.letters(), pretrained=True, device=tiny.CPU)
    tiny.move(policy)
    return policy


def packed(policy: HFPolicy) -> dict[str, torch.Tensor]:
    """All that a base holds, quantisation states included."""
    return {
        name: value.clone()
        for name, value in policy._roles.use(POLICY).state_dict().items()
        if "lora_" not in name and isinstance(value, torch.Tensor)
    }


@pytest.mark.parametrize("base", ["checkpoint", "biased"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_after_a_rollout_are_those_of_the_dequantised_base(
    base: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """Rollout, reference and reward first: passes in evaluation mode, after which bitsandbytes may compute without autograd."""
    checkpoint = request.getfixturevalue(base)
    policy, reference = load(checkpoint, kind), dequantised(checkpoint, kind)
    before = packed(policy)
    policy.freeze_reference()
    sequences = tiny.sequences(policy, n=3)
    with torch.no_grad():
        policy.logprobs(sequences, role=REFERENCE)
    grads = []
    for p in (policy, reference):
        for a, b in zip(p.trainable(), reference.trainable(), strict=True):
            assert torch.equal(a, b), "the same adapters"
        scores = p.logprobs(sequences).logprobs
        grads.append((scores.detach(), torch.autograd.grad(scores.sum(), p.trainable())))
    (mine, own), (theirs, expected) = grads
    assert max(float(g.abs().max()) for g in expected) > 1e-1
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-3)
    flat, wanted = (torch.cat([g.flatten() for g in gs]) for gs in (own, expected))
    assert torch.nn.functional.cosine_similarity(flat, wanted, dim=0) > 0.99999
    after = packed(policy)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before), "bit for bit"


@pytest.mark.parametrize(("case", "loss", "norm"), [("nf4", -49.2544, 39.7946), ("int8", -48.8942, 44.1563)])
def test_a_base_with_biases_that_failed_once(case: str, loss: float, norm: float) -> None:
    """By peft's own forward pass."""
    path = str(shared_case("models", "wide_qwen2"))
    config = PretrainedConfig(path=path, dtype="float32", quantization=case)
    policy = build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))
    found = policy.logprobs(policy.encode([tiny.prompt("Hi there")], ["Hello you"]).sequences).logprobs.sum()
    found.backward()
    assert found.item() == pytest.approx(loss, abs=2e-4)
    grads = torch.cat([parameter.grad.flatten() for parameter in policy.trainable()])
    assert float(grads.norm()) == pytest.approx(norm, rel=1e-5)


def test_eight_bits_as_a_gpu_computes_them(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer is told that it trains, so that each takes bitsandbytes' product of two rounded matrices."""
    for module in (adapters, build):
        monkeypatch.setattr(module, "evaluation_mode", lambda model: model.eval())
    policy = load(checkpoint, "int8")
    grads = torch.autograd.grad(policy.logprobs(tiny.sequences(policy)).logprobs.sum(), policy.trainable())
    assert all(float(slope.abs().max()) > 0 for slope in grads)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_sampler_agrees_with_the_policy(checkpoint: Path, kind: str, merge: bool) -> None:
    policy = load(checkpoint, kind, merge_adapters=merge)
    base = packed(policy)
    with policy._roles.sampling(POLICY) as model:
        kinds = {type(module) for module in model.modules()}
        assert bool(kinds & {bnb.nn.Linear4bit, bnb.nn.Linear8bitLt}) is not merge
    rollout = policy.generate(tiny.PROMPTS, Sampling(), n=6, rng=torch.Generator().manual_seed(0))
    with torch.no_grad():
        again = policy.logprobs(rollout.samples.sequences).logprobs
    torch.testing.assert_close(rollout.logprobs, again, rtol=0, atol=1e-3)
    after = packed(policy)
    assert all(torch.equal(base[n], after[n]) for n in base)


@pytest.mark.parametrize("hidden", [32, 48, 64])
def test_weights_that_are_unpacked_wrongly_are_refused(tmp_path: Path, hidden: int) -> None:
    """Whichever widths bitsandbytes gets wrong on this processor: what loads is rounded, and not mixed up."""
    tiny.base_model(hidden=hidden).save_pretrained(tmp_path)
    tiny.letters().save_pretrained(tmp_path)
    try:
        policy = load(tmp_path)
    except UserError as refusal:
        assert hidden % 64, refusal
        assert re.search(
            rf"unpacks four-bit rows of {hidden} numbers wrongly .*quantization=int8 or none", str(refusal)
        )
        return
    plain = load(tmp_path, "none")
    for name, layer in policy._roles.use(POLICY).named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            whole, rounded = plain._roles.use(POLICY).get_submodule(name).weight, dequantized(layer)
            assert rounded is not None
            assert float((rounded - whole).norm() / whole.norm()) < 0.12, name


def test_a_library_that_loses_weights_is_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = bnb.functional.dequantize_4bit
    monkeypatch.setattr(bnb.functional, "dequantize_4bit", lambda *args, **rest: honest(*args, **rest).roll(1, 0))
    with pytest.raises(UserError, match=r"unpacks four-bit rows of 24 numbers wrongly on device=cpu here \(1\d\d% of"):
        load(checkpoint)


def test_four_bits_are_four_bits_and_really_round(checkpoint: Path) -> None:
    policy, plain = load(checkpoint), load(checkpoint, "none")
    layers = [m for m in policy._roles.use(POLICY).modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(layers) == 14, "seven in each of two blocks; the output layer and the embeddings stay whole"
    assert all(layer.weight.quant_state.nested and layer.weight.quant_state.quant_type == "nf4" for layer in layers)
    for name, layer in policy._roles.use(POLICY).named_modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            other = plain._roles.use(POLICY).get_submodule(name)
            assert dequantized(other) is None
            whole, rounded = other.weight, dequantized(layer)
            assert rounded is not None
            # What NF4 in blocks of 64 costs normal weights; of as few weights as here it varies by 0.002.
            assert float((rounded - whole).norm() / whole.norm()) == pytest.approx(0.092, abs=0.01), name


def test_a_reloaded_adapter_computes_the_same(checkpoint: Path, tmp_path: Path) -> None:
    """Norms and embeddings have one form, made and reloaded alike."""
    policy = load(checkpoint)
    sequences = tiny.sequences(policy)
    path = policy.save(tmp_path)
    other = load(checkpoint)
    tiny.move(other, seed=8)
    assert not torch.equal(other.logprobs(sequences).logprobs, policy.logprobs(sequences).logprobs)
    other.load(path)
    assert torch.equal(other.logprobs(sequences).logprobs, policy.logprobs(sequences).logprobs)


# The fault of bitsandbytes on processors with AVX512-BF16


def test_no_layer_is_repacked_by_a_pass_in_evaluation_mode(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this processor had AVX512-BF16. Repacked for good, a layer has no gradient, and says so to nobody."""
    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: True)
    repacked: list[object] = []
    monkeypatch.setattr(
        bnb.nn.modules, "_convert_weight_packed_for_cpu", lambda *given: (repacked.append(given), given)[1]
    )
    layer = bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4").to("cpu").eval()
    layer(torch.ones(1, 64))
    assert repacked, "the fault is there"
    repacked.clear()
    policy = load(checkpoint, merge_adapters=False)
    tiny.sequences(policy)
    assert not repacked


def test_without_the_switch_nothing_is_loaded(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_CPU_FLAG", "another_name")
    with pytest.raises(UserError, match=r"bitsandbytes [\d.]+ has no Linear4bit.another_name.*constraints.txt"):
        load(checkpoint)


# What cannot work


def test_where_bitsandbytes_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"Unknown model.quantization 'nf5'.*int8, nf4, none"):
        PretrainedConfig(path="x", quantization="nf5")
    assert quantization_config("none", torch.float32, torch.device("mps")) is None
    for kind in KINDS:
        with pytest.raises(UserError, match=f"model.quantization={kind}: bitsandbytes cannot run on device=mps here"):
            quantization_config(kind, torch.float32, torch.device("mps"))
        monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
        with pytest.raises(UserError, match="cannot run on device=cpu here .*bitsandbytes.*model.quantization=none"):
            quantization_config(kind, torch.float32, tiny.CPU)
        monkeypatch.undo()


def test_weights_that_are_quantised_already_are_not_rounded_twice(checkpoint: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "small.gguf"), "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    rows = gguf.quants.quantize(np.ones((4, 32), dtype=np.float32), kind)
    writer.add_tensor("blk.0.attn_q.weight", rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match=r"small.gguf is quantised already \(Q8_0\).*model.quantization=none"):
        resolve(str(tmp_path / "small.gguf"), cache_dir=tmp_path / "cache", to_quantize=True)

    folder = tmp_path / "packed"
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, quantization_config=quantization_config("nf4", torch.float32, tiny.CPU), device_map={"": "cpu"}
    )
    model.save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    with pytest.raises(UserError, match=r"is quantised already \(bitsandbytes\)"):
        load(folder)
    policy = load(folder, "none")  # as it is, and as well guarded
    layers = [m for m in policy._roles.use(POLICY).modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
