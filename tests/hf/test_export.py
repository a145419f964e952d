"""Exports load in plain transformers and peft, and compute what the policy computes; what does not is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from alignbench_hf import adapters, export
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from peft import AutoPeftModelForCausalLM
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from alignbench import POLICY, AlignbenchError, Sampling, Seeds, UserError
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny.base_model(hidden=64).save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    return folder


def of(base: Path, **options: object) -> HFPolicy:
    settings = {"path": str(base), "max_prompt_tokens": 8, "max_response_tokens": 6, "lora_rank": 4, "dtype": "float32"}
    config = PretrainedConfig(**(settings | options))
    policy = build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))
    tiny.move(policy, scale=0.1)
    return policy


def logprobs(model: torch.nn.Module, policy: HFPolicy) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all responses, by the exported model, whole and padded, and by the policy."""
    sequences = tiny.sequences(policy)
    ids = torch.cat([sequences.prompt_ids, sequences.response_ids], 1)
    mask = torch.cat([sequences.prompt_mask, sequences.response_mask], 1).long()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    found = logits[:, sequences.prompt_ids.shape[1] - 1 : -1].log_softmax(-1)
    found = found.gather(2, sequences.response_ids[..., None])[..., 0].masked_fill(~sequences.response_mask, 0)
    return found, policy.logprobs(sequences).logprobs.detach()


def dtypes(folder: Path) -> set[str]:
    found = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118
    return found


@pytest.mark.parametrize(
    "options", [{}, {"lora_targets": "q_proj,down_proj"}, {"quantization": "nf4"}, {"quantization": "int8"},
                {"quantization": "nf4", "lora_targets": "q_proj"}]
)  # fmt: skip
def test_a_merged_model_is_an_ordinary_one(base: Path, tmp_path: Path, options: dict[str, str]) -> None:
    policy = of(base, **options)
    before = {name: value.clone() for name, value in policy._roles.use(POLICY).state_dict().items()}
    exported = policy.export(tmp_path, merged=True, prompts=tiny.PROMPTS)
    assert exported.mean <= exported.largest < 1e-4 < exported.tolerance
    assert exported.tokens >= len(tiny.PROMPTS)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert not hasattr(model.config, "quantization_config")
    torch.testing.assert_close(*logprobs(model, policy), rtol=0, atol=1e-4)
    assert dtypes(tmp_path) == {"torch.float32"} and not list(tmp_path.glob("*.bin"))
    assert AutoConfig.from_pretrained(tmp_path).pad_token_id == tiny.PAD
    assert ["dequantised" in note for note in exported.notes] == [True] * ("quantization" in options)
    after = policy._roles.use(POLICY).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the policy stays as it was"
    for path in tmp_path.glob("*.json"):
        assert str(base) not in path.read_text(), "nothing names a folder of this machine"


def test_merging_keeps_the_base_dtype(base: Path, tmp_path: Path) -> None:
    exported = of(base, dtype="bfloat16").export(tmp_path, merged=True, prompts=tiny.PROMPTS)
    assert dtypes(tmp_path) == {"torch.bfloat16"}
    assert 0 < exported.mean < exported.tolerance == export.ROUNDED


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_an_adapter_loads_in_plain_peft(base: Path, tmp_path: Path, quantization: str) -> None:
    policy = of(base, quantization=quantization)
    exported = policy.export(tmp_path, merged=False, prompts=tiny.PROMPTS)
    assert exported.largest < 1e-4
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == (str(base), None)
    assert ["load the base in the same way" in note for note in exported.notes] == [True] * (quantization != "none")
    assert not (tmp_path / "model.safetensors").exists()
    if quantization == "none":
        model = AutoPeftModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        torch.testing.assert_close(*logprobs(model.eval(), policy), rtol=0, atol=1e-4)


def test_an_adapter_names_the_hub_id(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the folder in the cache that the base was read from: neither in an export nor in what a run saves."""
    monkeypatch.setattr("alignbench_hf.build.resolve", lambda *given, **options: base)
    asked: list[object] = []
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", lambda *given: asked.append(given))
    policy = of(base, path="somebody/some-model", revision="abc")
    exported = policy.export(tmp_path / "export", merged=False, prompts=tiny.PROMPTS)
    assert exported.largest < 1e-4
    policy.freeze_reference()
    for folder in (tmp_path / "export", policy.save(tmp_path)):
        settings = json.loads((folder / "adapter_config.json").read_text())
        assert (settings["base_model_name_or_path"], settings["revision"]) == ("somebody/some-model", "abc")
    policy.load(folder)
    assert not asked, "each would wait for the network"


def test_a_base_from_a_gguf_file_is_said_aloud(base: Path, tmp_path: Path) -> None:
    converted = tmp_path / "small-0123-transformers-5.23.0-v1"
    converted.symlink_to(base)
    policy = of(converted)
    (note,) = policy.export(tmp_path / "adapter", merged=False, prompts=tiny.PROMPTS[:1]).notes
    assert "converted from a GGUF file" in note
    assert not policy.export(tmp_path / "merged", merged=True, prompts=tiny.PROMPTS[:1]).notes


def test_a_model_trained_whole_is_copied(tmp_path: Path) -> None:
    policy = tiny.scratch()
    policy.freeze_reference()
    tiny.move(policy)
    exported = policy.export(tmp_path, merged=True, prompts=tiny.PROMPTS)
    assert exported.largest < 1e-4 and exported.notes == ()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(*logprobs(model, policy), rtol=0, atol=1e-4)
    with pytest.raises(UserError, match=r"All weights .* no adapter: use --merged"):
        policy.export(tmp_path, merged=False, prompts=tiny.PROMPTS)


def test_generate_samples_as_the_policy_does(base: Path, tmp_path: Path) -> None:
    """The tokens that a run suppressed stay away, EOS ends a response, and no base's setting sharpens it."""
    policy = of(base, suppress_tokens=["a", "b"])
    assert policy.export(tmp_path, merged=True, prompts=tiny.PROMPTS).largest < 1e-4
    settings = GenerationConfig.from_pretrained(tmp_path)
    assert (settings.eos_token_id, settings.pad_token_id, settings.suppress_tokens) == (tiny.EOS, tiny.PAD, [4, 5])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "c d"}], tokenize=False, add_generation_prompt=True
    )
    asked = tokenizer([text] * 3000, add_special_tokens=False, return_tensors="pt")
    torch.manual_seed(0)
    rows = model.generate(**asked, max_new_tokens=1)[:, -1]
    ours = policy.generate([tiny.prompt("c d")], Sampling(max_new_tokens=1), n=3000, rng=torch.Generator()).samples
    shares = [torch.bincount(ids, minlength=12) / 3000 for ids in (rows, ours.sequences.response_ids[:, 0])]
    assert shares[0][4] == shares[0][5] == 0
    torch.testing.assert_close(*shares, rtol=0, atol=0.05)


# What is wrong is found out


def test_a_lost_adapter_is_found(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = of(base)
    monkeypatch.setattr(export, "merged", lambda layer, *rest: layer.get_base_layer())
    exported = policy.export(tmp_path, merged=True, prompts=tiny.PROMPTS)
    assert exported.mean > exported.tolerance


def test_merging_into_other_weights_is_found(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter trained beside rounded weights, on those that were not rounded."""
    monkeypatch.setattr(
        adapters, "load_again", lambda loaded, dtype: AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    )
    exported = of(base, quantization="nf4").export(tmp_path, merged=False, prompts=tiny.PROMPTS)
    assert exported.mean > exported.tolerance


def test_a_tokenizer_that_reads_otherwise_is_found(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = of(base)
    save = type(policy.tokenizer).save_pretrained

    def with_another_template(tokenizer: object, folder: Path) -> None:
        save(tokenizer, folder)
        (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}")

    monkeypatch.setattr(type(policy.tokenizer), "save_pretrained", with_another_template)
    with pytest.raises(AlignbenchError, match="reads the prompt 'a' otherwise"):
        policy.export(tmp_path, merged=True, prompts=tiny.PROMPTS)
