"""The estimate of memory: parameters to the byte, activations against those that autograd keeps, presets against their GPU."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_hf.base import scratch_shape
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig, ScratchConfig
from alignbench_hf.decoding.compiled import Compiled, Step
from alignbench_hf.decoding.samplers import begin
from alignbench_hf.footprint import Held, pretrained_shape
from alignbench_hf.policy import HFPolicy
from alignbench_hf.prompts import prefill
from alignbench_hf.quantization import merged
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config

from alignbench import (
    POLICY,
    REFERENCE,
    Does,
    OptimizerConfig,
    Request,
    Sampling,
    Seeds,
    Sequences,
    UserError,
    Work,
    functional,
)
from alignbench.app.compose import load_config
from alignbench.pipeline.memory import GIB, Machine, estimate
from tests import tiny

ROLES = (POLICY, REFERENCE, "reward", "value")
LIMITS = {"max_prompt_tokens": 8, "max_response_tokens": 24, "dtype": "float32", "lora_rank": 4}
UPDATE = Work("ppo", Does.TRAIN, 3, 3, ROLES, (POLICY, "value"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shaped as real models are: more queries than keys, a wide MLP, more layers than one."""
    folder = tmp_path_factory.mktemp("base")
    shape = LlamaConfig(
        vocab_size=len(tiny.letters()),
        hidden_size=48,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        pad_token_id=tiny.PAD,
        eos_token_id=tiny.EOS,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(shape).save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    return folder


def planned(config: PretrainedConfig | ScratchConfig, work: Work) -> dict[str, int]:
    parts = config.plan([work], device="cpu", tokenizer=tiny.letters)[0]
    return {part.name: part.size for part in parts}


def build(config: PretrainedConfig) -> HFPolicy:
    return build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))


def with_roles(policy: HFPolicy) -> dict[str, list[torch.nn.Parameter]]:
    """All four; gives what PPO trains."""
    policy.freeze_reference()
    policy.scalar("reward")
    return {POLICY: policy.trainable(), "value": policy.scalar("value").parameters()}


def size(tensors: object) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)  # type: ignore[attr-defined]


def optimised(groups: dict[str, list[torch.nn.Parameter]]) -> tuple[int, int]:
    """Bytes of the gradients and of AdamW's moments after a step."""
    optimizer = functional.ScheduledAdamW(OptimizerConfig(), groups, 1)
    for parameter in (p for group in groups.values() for p in group):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = optimizer.state_dict()["optimizer"]["state"].values()
    moments = size(value for state in states for name, value in state.items() if name != "step")
    return size(p.grad for group in groups.values() for p in group), moments


@pytest.mark.parametrize("targets", ["all-linear", "q_proj,down_proj"])
def test_parameters_of_adapters_are_counted_to_the_byte(checkpoint: Path, targets: str) -> None:
    config = PretrainedConfig(path=str(checkpoint), lora_targets=targets, **LIMITS)
    found, policy = planned(config, UPDATE), build(config)
    groups = with_roles(policy)
    named = dict(policy._roles.use(POLICY).named_parameters())
    assert found["weights"] == size(p for name, p in named.items() if "lora_" not in name)
    assert found["adapters"] == size(p for name, p in named.items() if "lora_" in name)
    assert (found["gradients"], found["optimiser"]) == optimised(groups)
    assert found["last good weights"] == size(policy.trainable())


def test_parameters_of_copies_are_counted_to_the_byte() -> None:
    policy = tiny.scratch()
    found, groups = planned(policy._config, UPDATE), with_roles(policy)
    models = [policy._roles.use(role) for role in ROLES]
    assert found["weights"] == sum(size(model.parameters()) for model in models)
    assert found["adapters"] == 0
    assert (found["gradients"], found["optimiser"]) == optimised(groups)
    assert scratch_shape(policy._config, tiny.letters()).hidden_size == 16


def test_a_shared_trunk_has_one_adapter_less(checkpoint: Path) -> None:
    own, shared = (
        planned(PretrainedConfig(path=str(checkpoint), value_trunk=trunk, **LIMITS), UPDATE)
        for trunk in ("own", "shared")
    )
    assert shared["adapters"] * 4 == own["adapters"] * 3
    assert shared["optimiser"] < own["optimiser"]


def kept(policy: HFPolicy, rows: int) -> int:
    """Bytes that autograd keeps of the trunk's pass over rows of full length, one of them padded."""
    parameters = {p.untyped_storage().data_ptr() for p in policy._roles.use(POLICY).parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in parameters:
            found[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states, _ = policy._states(POLICY, full(policy, rows))
    assert states.requires_grad
    return sum(storage.nbytes() for storage in found.values())


def full(policy: HFPolicy, rows: int) -> Sequences:
    asked, answered = policy.max_prompt_tokens, policy.max_response_tokens
    ids = torch.randint(4, 12, (rows, asked + answered), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(rows, asked + answered, dtype=torch.bool)
    mask[0, :2] = False
    return Sequences(ids[:, :asked], mask[:, :asked], ids[:, asked:], mask[:, asked:])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_are_those_that_autograd_keeps(checkpoint: Path, dtype: str, attention: str) -> None:
    config = PretrainedConfig(path=str(checkpoint), attention=attention, **(LIMITS | {"dtype": dtype}))
    found = planned(config, UPDATE)["activations"] * 6 / 7  # less the layer that the backward pass works on
    adapters = 2 * size(build(config).trainable()) // 4 if dtype == "bfloat16" else 0  # copies in bfloat16
    assert kept(build(config), 3) - adapters == pytest.approx(found, rel=0.08)


def test_with_checkpoints_a_layer_keeps_what_it_read(checkpoint: Path) -> None:
    config = PretrainedConfig(path=str(checkpoint), gradient_checkpointing=True, **LIMITS)
    whole = planned(PretrainedConfig(path=str(checkpoint), **LIMITS), UPDATE)["activations"]
    found = planned(config, UPDATE)["activations"] - whole / 7
    assert kept(build(config), 3) == pytest.approx(found, rel=0.08)


def test_the_cache_of_keys_and_values_is_counted_to_the_byte(checkpoint: Path) -> None:
    config = PretrainedConfig(path=str(checkpoint), generation_batch_size=5, **LIMITS)
    found = planned(config, Work("rollouts", Does.SAMPLE, 40, 40, ROLES))
    policy = build(config)
    rows = full(policy, 5)
    ids, mask = (
        torch.cat(two, 1) for two in ((rows.prompt_ids, rows.response_ids), (rows.prompt_mask, rows.response_mask))
    )
    with torch.no_grad():
        *_, cache = prefill(policy._roles.use(POLICY).base_model, ids, mask, share=True)
    assert found["KV cache"] == size(part for layer in cache.layers for part in (layer.keys, layer.values))
    with policy._roles.sampling(POLICY):
        copies = [m for m in policy._roles._peft.modules() if type(m) is torch.nn.Linear]
        assert found["merged copies"] == size(m.weight for m in copies if m.out_features != len(tiny.letters()))


class Made(TorchDispatchMode):
    """The bytes of what operators make: `most` of each at a time, and `peak` of all that is there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.peak, self._there = Counter[str](), 0, {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
                continue
            if (storage := tensor.untyped_storage())._cdata not in known:
                name = func._schema.name.partition("::")[2]
                self.most[name] = max(self.most[name], storage.nbytes())
                self._there[StorageWeakRef(storage)] = storage.nbytes()
        self._there = {ref: size for ref, size in self._there.items() if not ref.expired()}
        self.peak = max(self.peak, sum(self._there.values()))
        return found


def test_the_copy_of_a_layers_cache_is_counted_to_the_byte(checkpoint: Path) -> None:
    """Of all rows when their last token is added; finished rows leave while there are fewer than that."""
    config = PretrainedConfig(path=str(checkpoint), generation_batch_size=5, **LIMITS)
    found = planned(config, Work("rollouts", Does.SAMPLE, 40, 40, ROLES))["copy of a cache"]
    policy = build(config)
    rows, trunk = full(policy, 5), policy._roles.use(POLICY).base_model
    ids, mask = (
        torch.cat(two, 1) for two in ((rows.prompt_ids, rows.response_ids), (rows.prompt_mask, rows.response_mask))
    )
    with torch.no_grad():
        *_, cache = prefill(trunk, ids[:, :-1], mask[:, :-1], share=True)
        with Made() as made:
            trunk(input_ids=ids[:, -1:], attention_mask=mask.long(), past_key_values=cache, use_cache=True)
            cache.batch_select_indices(torch.tensor([0, 2, 3]))
    assert max(made.most["cat"], made.most["index"]) == made.most["cat"] == found


def test_the_second_cache_of_a_compiled_step_is_counted_to_the_byte(checkpoint: Path) -> None:
    """One that grew, of the prompts and the token that is read to compare both, beside the one of fixed size that decoding goes on in."""
    config = PretrainedConfig(path=str(checkpoint), generation_batch_size=5, decode="compiled", **LIMITS)
    work = Work("rollouts", Does.SAMPLE, 40, 40, ROLES)
    found = planned(config, work)
    policy = build(config)
    rows = full(policy, 5)
    request = Request(
        rows.prompt_ids, rows.prompt_mask, Sampling(), max_new_tokens=24, eos=torch.tensor([tiny.EOS]), pad=tiny.PAD,
        chances=torch.full((5, 24), 0.5, dtype=torch.float64), share_prompts=True, start_within=10**6, watch=None, role=POLICY,
    )  # fmt: skip
    with torch.no_grad(), policy._roles.sampling(POLICY) as model:
        output = policy._output(model)
        begun = begin(model, output, request)
        step = Step.first(model, output, request, begun)
        Compiled("compiled", tiny.CPU)._check(step, begun)
    caches = [
        size(part for layer in held.layers for part in (layer.keys, layer.values)) for held in (step.cache, begun.cache)
    ]
    assert caches == [found["KV cache"], found["cache of fixed size"]]


@pytest.mark.parametrize(
    ("settings", "device", "second"),
    [
        ({}, "cpu", False), ({}, "cuda", True), ({"decode": "eager"}, "cuda", False), ({"decode": "compiled"}, "cpu", True),
        ({"max_response_tokens": 4}, "cuda", False), ({"sampler": "generate"}, "cuda", False), ({"shard": True}, "cuda", False),
    ],
    ids=str,
)  # fmt: skip
def test_a_second_cache_is_counted_where_there_is_one(
    checkpoint: Path, settings: dict[str, Any], device: str, second: bool
) -> None:
    config = PretrainedConfig(path=str(checkpoint), **(LIMITS | settings))
    (parts,) = config.plan([Work("rollouts", Does.SAMPLE, 40, 40, ROLES)], device=device, tokenizer=tiny.letters)
    (found,) = (part.size for part in parts if part.name == "cache of fixed size")
    assert (found > 0) == second


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_what_merging_and_unpacking_take_for_a_moment(checkpoint: Path, quantization: str, dtype: str) -> None:
    settings = LIMITS | {"dtype": dtype, "quantization": quantization, "lora_targets": "down_proj"}
    config = PretrainedConfig(path=str(wide(checkpoint.parent / "wide")), **settings)
    shape, _ = pretrained_shape(config.path, "main", "", "", "down_proj")
    held = Held(
        0.5 if quantization == "nf4" else getattr(torch, dtype).itemsize, getattr(torch, dtype).itemsize, 4, merges=True
    )
    policy = build(config)
    layer = next(iter(policy._roles._layers.values()))
    with torch.no_grad(), Made() as made:
        merged(layer, "default", getattr(torch, dtype))
    copy = shape.largest * held.compute
    assert made.peak == pytest.approx(held.merging(shape) + copy, rel=0.05), "beside the merged copy itself"
    with Made() as made:
        policy.logprobs(full(policy, 2)).logprobs.sum().backward()
    assert made.most["dequantize_4bit"] == held.unpacked(shape) == planned(config, UPDATE)["unpacked layer"]


def wide(folder: Path) -> Path:
    """Rows that bitsandbytes packs rightly on every processor."""
    shape = LlamaConfig(
        vocab_size=len(tiny.letters()), hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=tiny.PAD, eos_token_id=tiny.EOS, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(shape).save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    return folder


def test_config_json_alone_is_enough(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    alone, whole = (PretrainedConfig(path=str(folder), **LIMITS) for folder in (tmp_path, checkpoint))
    assert planned(alone, UPDATE) == planned(whole, UPDATE)
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        build(alone)


def test_a_checkpoint_in_four_bits_is_planned_in_four_bits(tmp_path: Path, checkpoint: Path) -> None:
    held = json.loads((checkpoint / "config.json").read_text())
    held["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(held))
    stored = planned(PretrainedConfig(path=str(tmp_path), **LIMITS), UPDATE)
    assert stored == planned(PretrainedConfig(path=str(checkpoint), quantization="nf4", **LIMITS), UPDATE)


@pytest.fixture
def seven(tmp_path: Path) -> Iterator[str]:
    """A model of the shape of Qwen2.5-7B (arXiv 2412.15115): 7.6 B parameters, of which 6.5 B are not embeddings."""
    shape = Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        architectures=["Qwen2ForCausalLM"],
    )
    shape.save_pretrained(tmp_path)
    yield str(tmp_path)
    pretrained_shape.cache_clear()


@pytest.mark.parametrize("algo", ["ppo", "dpo"])
def test_the_preset_of_a_7b_model_fits_the_gpu_that_it_is_meant_for(seven: str, algo: str) -> None:
    shape, _ = pretrained_shape(seven, "main", "", "", "all-linear")
    assert (shape.linear + shape.rest) / 1e9 == pytest.approx(7.6, abs=0.05)
    assert shape.linear / 1e9 == pytest.approx(6.5, abs=0.05)
    for gpu, memory in (([], 24), (["gpu=80gb"], 80)):
        config = load_config(
            ["model=qwen2.5-7b", f"model.path={seven}", f"algo={algo}", *gpu, "data=hh", "annotator=recorded"]
        )
        machine = Machine("cuda", memory * GIB, GIB // 2)
        peak = max(stage.total for stage in estimate(config, machine))
        assert peak <= machine.limit
        assert peak > 6 * GIB, "the base alone takes as much"


PARAMETERS = {
    "smollm2": 134_515_008,
    "smollm2-1.7b": 1_711_376_384,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
}
"""Of the published checkpoints, as the hub counts them."""


def test_the_presets_shapes_are_known_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that is off by one number has another count of parameters."""
    presets = {
        path.stem for path in (Path(__file__).parents[2] / "conf/model").glob("*.yaml") if "path:" in path.read_text()
    }
    assert presets == set(PARAMETERS)

    def out_of_reach(*_: object, **__: object) -> Path:
        raise UserError("the hub is out of reach")

    monkeypatch.setattr("alignbench_hf.footprint.resolve", out_of_reach)
    pretrained_shape.cache_clear()
    for preset, count in PARAMETERS.items():
        config = load_config([f"model={preset}"]).model.config
        shape, stored = pretrained_shape(config.path, config.revision, "", config.wheel, config.lora_targets)
        assert (shape.linear + shape.rest, stored) == (count, "none"), preset
    for path, revision in (("somebody/model", "main"), ("Qwen/Qwen2.5-7B-Instruct", "a commit of it")):
        with pytest.raises(UserError, match="out of reach"):
            pretrained_shape(path, revision, "", "", "all-linear")
    pretrained_shape.cache_clear()
