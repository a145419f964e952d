"""GGUF files, converted once to a checkpoint in safetensors."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench import UserError, pretrained
from alignbench_hf.checkpoint.tokenizer import ensure_pad_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

CACHE_VARIABLE = "ALIGNBENCH_CACHE"
_CONVERSION = 1  # part of the cache key: raise it when `_convert` writes something else
_OF_CONVERSION = re.compile(r"-transformers-[\w.]+-v\d+$")


def is_converted(folder: Path) -> bool:
    """Whether `resolve` made this folder from a GGUF file."""
    return bool(_OF_CONVERSION.search(folder.name))


def quantized_already(where: Path, how: str) -> UserError:
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


def converted(gguf: Path, cache_dir: Path, to_quantize: bool = False) -> Path:
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
        raise quantized_already(gguf, how)
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
            packed, report = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent), dtype=torch.bfloat16, output_loading_info=True, **_unpacked(), **source
            )
            _repair_digits(tokenizer, gguf)
    except Exception as error:  # a damaged file or an unknown architecture fails in many ways
        raise UserError(f"{gguf} cannot be converted ({pretrained.one_line(error)}).") from error
    pretrained.check_report(gguf, packed, report)
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
