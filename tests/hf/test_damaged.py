"""Checkpoints that are damaged, incomplete or of another kind: one line says so, and never is a weight made up."""

from __future__ import annotations

import json
import logging
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_hf.build import build_pretrained
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaForSequenceClassification

from alignbench import POLICY, Seeds, UserError, pretrained
from alignbench.pretrained import weights
from alignbench.pretrained.files import stored
from tests import damage, tiny
from tests.damage import INDEX, WEIGHTS, Damage

LIMITS = {"max_prompt_tokens": 8, "max_response_tokens": 6, "lora_rank": 4, "dtype": "float32"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    tiny.base_model().save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def build(folder: Path, **options: Any) -> HFPolicy:
    config = PretrainedConfig(path=str(folder), **(LIMITS | options))
    return build_pretrained(config, tokenizer=None, device=tiny.CPU, seeds=Seeds(0))


def base(policy: HFPolicy) -> dict[str, torch.Tensor]:
    """The base's own weights, under the names that they have in a file."""
    state = policy._roles.use(POLICY).state_dict()
    return {name.replace(".base_layer", ""): value for name, value in state.items() if "lora_" not in name}


def is_what_the_files_hold(policy: HFPolicy, folder: Path) -> bool:
    files = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("model-*.safetensors"))
    held: dict[str, torch.Tensor] = {}
    for file in files:
        held |= load_file(file)
    own = base(policy)
    return {*own} <= {*held} and all(torch.equal(own[name], held[name].float()) for name in own)


def refused(folder: Path, said: str, **options: Any) -> None:
    with pytest.raises(UserError, match=said) as caught:
        build(folder, **options)
    line = str(caught.value)
    assert "\n" not in line and str(folder) in line and line.endswith((".", ")"))


# What is refused


@pytest.mark.parametrize("damage", damage.FILES + damage.CONTENT, ids=lambda damage: damage.name)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    copy: Path, damage: Damage, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    damage.do(copy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(copy, damage.said)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19, "half a GiB, for thousands of weights"
    assert not (copy / "it_ran").exists(), "code that came with the model"
    assert "REPORT" not in capfd.readouterr().err + caplog.text, "nobody has to read a table"


@pytest.mark.parametrize("damage", damage.FILES, ids=lambda damage: damage.name)
def test_what_the_files_show_is_seen_before_a_weight_is_read(
    copy: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in ("check_finite", "check_room"):
        monkeypatch.setattr(weights, at, lambda *_: pytest.fail("weights were read"))
    damage.do(copy)
    refused(copy, damage.said)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_found_in_16_bits_too(copy: Path, dtype: torch.dtype, number: float) -> None:
    damage.change(copy, lambda held: {name: value.to(dtype) for name, value in held.items()})
    build(copy)
    damage.poison(number)(copy)
    refused(copy, "holds NaN or infinity")


def test_they_are_found_in_each_shard(copy: Path) -> None:
    damage.poison(float("nan"))(copy)
    damage.shard(copy, 3)
    refused(copy, r"-of-00003\.safetensors holds NaN or infinity in model\.layers\.1\.mlp\.down_proj\.weight")


def test_a_classifier_is_no_language_model(tmp_path: Path) -> None:
    LlamaForSequenceClassification(tiny.base_model().config).save_pretrained(tmp_path)
    tiny.letters().save_pretrained(tmp_path)
    refused(tmp_path, r"lack lm_head\.weight, which a LlamaForCausalLM has")


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors", "brandnew", 7])
def test_weights_quantised_by_other_libraries_are_refused(copy: Path, method: object) -> None:
    """Its layers are not those that adapters are merged into here, whether or not the library is there."""
    damage.edit(copy, quantization_config={"quant_method": method, "bits": 4, "group_size": 128})
    refused(
        copy, r"config\.json: the weights are quantised by (\S+|another way), and adapters .* model\.quantization=nf4"
    )


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = sum(value.nbytes for value in load_file(copy / WEIGHTS).values())
    room = held + 1000  # buffers
    monkeypatch.setattr(weights, "free_memory", lambda device: room)
    build(copy)
    monkeypatch.setattr(weights, "check_finite", lambda *_: pytest.fail("weights were read"))
    room = held - 1
    with pytest.raises(UserError, match=r"Out of memory: .*model\.quantization=nf4 or model\.dtype=bfloat16"):
        build(copy)
    monkeypatch.undo()
    monkeypatch.setattr(weights, "free_memory", lambda device: room)
    build(copy, dtype="bfloat16")
    build(copy, quantization="int8")


def test_free_memory_is_what_the_machine_can_still_give() -> None:
    free = weights.free_memory(tiny.CPU)
    assert free is None or 2**26 < free < 2**45


@pytest.mark.parametrize("four", [True, False], ids=["nf4", "int8"])
def test_packed_weights_are_held_to_the_same(tmp_path: Path, four: bool) -> None:
    """A checkpoint that bitsandbytes wrote: its tensors are not those of the model by name and shape."""
    how = (
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        if four
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    tiny.base_model(hidden=64).save_pretrained(tmp_path / "plain")
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=how, device_map={"": "cpu"})
    folder = tmp_path / "packed"
    packed.save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    build(folder)
    refused(folder, r"is quantised already \(bitsandbytes\)", quantization="nf4")
    config = (folder / "config.json").read_text()
    damage.edit(folder, hidden_size=1000, head_dim=1000, intermediate_size=1000, num_hidden_layers=9)
    refused(folder, r"bytes cannot hold \d+ weights")
    (folder / "config.json").write_text(config)
    damage.without("model.norm")(folder)
    refused(folder, r"lack model\.norm\.weight, which a LlamaForCausalLM has")


# What is loaded


def variants() -> dict[str, Callable[[Path], object]]:
    return {
        "as it is": lambda folder: None,
        "in shards": damage.shard,
        "in float16": lambda folder: damage.change(folder, lambda held: {n: v.half() for n, v in held.items()}),
        "beside a pickle": lambda folder: torch.save({}, folder / "pytorch_model.bin"),
        "beside another safetensors": lambda folder: (folder / "consolidated.safetensors").touch(),
        "from a folder with an odd name": lambda folder: None,
    }


@pytest.mark.parametrize("variant", variants())
def test_a_complete_checkpoint_is_loaded(whole: Path, tmp_path: Path, variant: str) -> None:
    folder = shutil.copytree(whole, tmp_path / ("mödel dir, (v1) = 🤗" if "odd" in variant else "model"))
    variants()[variant](folder)
    assert is_what_the_files_hold(build(folder), folder)


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    model = tiny.base_model()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    tiny.letters().save_pretrained(tmp_path)
    held = load_file(tmp_path / WEIGHTS)
    assert "lm_head.weight" not in held
    assert torch.equal(base(build(tmp_path))["lm_head.weight"], held["model.embed_tokens.weight"])


def test_an_embedding_may_have_more_rows_than_there_are_tokens(tmp_path: Path) -> None:
    model = tiny.base_model()
    model.resize_token_embeddings(16)
    model.save_pretrained(tmp_path)
    tiny.letters().save_pretrained(tmp_path)
    assert base(build(tmp_path))["lm_head.weight"].shape == (16, 16)


def test_tokens_that_a_tokenizers_class_adds_by_itself_do_no_harm(copy: Path) -> None:
    """Qwen2's adds <|endoftext|> whether or not the model knows it; as padding it would be read."""
    damage.edit(copy, "tokenizer_config.json", tokenizer_class="Qwen2Tokenizer", unk_token=None)
    content = json.loads((copy / "tokenizer.json").read_text())
    content["model"] = {"type": "BPE", "vocab": content["model"]["vocab"], "merges": []}
    (copy / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = pretrained.Checkpoint(copy).tokenizer()
    assert "<|endoftext|>" in tokenizer.get_vocab() and tokenizer.pad_token == "<pad>"
    build(copy)
    damage.edit(copy, "tokenizer_config.json", pad_token="<|endoftext|>")
    refused(copy, r"embedding of 12 rows lacks \(<\|endoftext\|>\)")


def test_tensors_without_a_place_are_named(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage.change(copy, lambda held: held | {"v_head.summary.weight": torch.zeros(1, 16)})
    with caplog.at_level(logging.WARNING):
        policy = build(copy)
    assert is_what_the_files_hold(policy, copy)
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("alignbench")]
    assert line == f"{copy}: a LlamaForCausalLM has no place for v_head.summary.weight, which are not read."


def test_only_loading_is_quiet(whole: Path) -> None:
    """transformers is as talkative afterwards as it was."""
    from transformers.utils import logging as theirs

    before = theirs.get_verbosity()
    try:
        theirs.set_verbosity_info()
        build(whole)
        assert theirs.get_verbosity() == theirs.INFO
    finally:
        theirs.set_verbosity(before)


# What is written here is read as strictly


def test_adapters_and_scalar_roles_are_read_from_safetensors_alone(whole: Path, tmp_path: Path) -> None:
    policy = build(whole)
    folder, file = policy.save(tmp_path), "adapter_model.safetensors"
    torch.save(load_file(folder / file), folder / "adapter_model.bin")
    for do, said in (
        (lambda: damage.cut(folder, file, 0.5), "cannot be loaded: Error while deserializing header"),
        (lambda: damage.cut(folder, file, 0), "is empty"),
        ((folder / file).unlink, "cannot be read"),
    ):
        policy.load(folder)
        do()
        with pytest.raises(UserError, match=said):
            policy.load(folder)
        policy.save(tmp_path)
    role = policy.scalar("reward")
    role.save(tmp_path / "role")
    role.load(tmp_path / "role")
    damage.cut(tmp_path / "role", "scalar.safetensors", 0.5)
    with pytest.raises(UserError, match="cannot be loaded: Error while deserializing header"):
        role.load(tmp_path / "role")


@pytest.mark.parametrize("damage", damage.CONTENT[:2], ids=lambda damage: damage.name)
def test_a_model_that_was_trained_whole_is_read_back_whole(tmp_path: Path, damage: Damage) -> None:
    policy = tiny.scratch()
    folder = policy.save(tmp_path)
    policy.load(folder)
    damage.do(folder)
    with pytest.raises(UserError, match=damage.said):
        policy.load(folder)


def test_a_model_without_an_adapter_is_not_looked_for_in_one(copy: Path) -> None:
    damage.only_adapter(copy)
    with pytest.raises(
        UserError, match=r"it was trained on owner/base. Use that as model\.path=, or one model of the two"
    ):
        resolve(str(copy))


# Fuzzing: whatever is done to a file, it is one line or a model of exactly the numbers in the files

FILES = ("config.json", "generation_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")
WRONG = (None, True, -1, 0, 3, 1.5, 10**7, 10**20, float("nan"), "", "x", [], [1], {}, {"a": 1})


def entries(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that a JSON document holds."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [found for key, value in inside for found in ((*path, key), *entries(value, (*path, key)))]


def put(content: Any, path: tuple[Any, ...], value: object) -> None:
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


@st.composite
def changes(draw: st.DrawFn, whole: Path) -> tuple[str, bytes]:
    """The name of a file and another content of it: cut off, with a byte changed near its start, or with a wrong JSON value."""
    name = draw(st.sampled_from(FILES))
    content = (whole / name).read_bytes()
    how = draw(st.sampled_from(("cut", "byte", "value", "value") if name.endswith("json") else ("cut", "byte")))
    if how == "cut":
        return name, content[: draw(st.integers(0, len(content) - 1))]
    if how == "byte":
        at, byte = draw(st.integers(0, min(len(content), 2500) - 1)), draw(st.integers(0, 255))
        return name, content[:at] + bytes([byte]) + content[at + 1 :]
    document = json.loads(content)
    put(document, draw(st.sampled_from(entries(document))), draw(st.sampled_from(WRONG)))
    return name, json.dumps(document).encode()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_is_done_to_a_file_it_is_one_line_or_the_files_own_weights(
    whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, outcomes = tmp_path_factory.mktemp("fuzz"), set()

    @settings(max_examples=120, deadline=None, derandomize=True, database=None)
    @given(changes(whole))
    def check(change: tuple[str, bytes]) -> None:
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        (folder / change[0]).write_bytes(change[1])
        try:
            policy = build(folder)
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
        else:
            assert is_what_the_files_hold(policy, folder)
            outcomes.add("loaded")

    check()
    assert outcomes == {"refused", "loaded"}


@pytest.mark.parametrize("file", [*FILES, INDEX, "model-00002-of-00003.safetensors"])
@pytest.mark.parametrize("share", [0, 0.001, 0.2, 0.9, 0.99])
def test_a_file_that_ends_early_is_named(copy: Path, file: str, share: float) -> None:
    if file not in FILES:
        damage.shard(copy, 3)
    damage.cut(copy, file, share)
    refused(copy, file.replace(".", r"\."))


def test_a_file_of_weights_may_hold_no_numbers_in_a_tensor(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(0), "b": torch.zeros(2, dtype=torch.float8_e4m3fn)}, tmp_path / WEIGHTS)
    weights.check_finite(stored(tmp_path))
