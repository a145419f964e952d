"""From a reward model's name to its folder, and what names the files in it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from alignbench import UserError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_SECONDS_TO_REACH_HUB = 5.0
_FILES, _NOT_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt"], ["*/*"]
_END = 2**20  # bytes at the start and at the end of a file that its fingerprint reads


def resolve(model: str, revision: str = "") -> Path:
    """The folder of a model with safetensors weights: a local one, or the hub's snapshot, from its cache where the hub is out
    of reach."""
    if not model:
        raise UserError("reward=hf needs reward.model=<a folder or a hub id (owner/name)> of a reward model.")
    local = Path(model).expanduser()
    folder = local if local.is_dir() else _from_hub(model, revision)
    if not (folder / "config.json").is_file():
        raise UserError(f"reward.model={model}: {folder} has no config.json, so it is no checkpoint of transformers.")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"reward.model={model}: {folder} has no *.safetensors, and weights are read from those alone.")
    return folder


def fingerprint(folder: Path) -> str:
    """Of the files' names, sizes, first and last MiB: whole weights would take minutes."""
    found = hashlib.sha256()
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt")
    ):
        size = path.stat().st_size
        found.update(f"{path.name}:{size}\0".encode())
        with path.open("rb") as file:
            found.update(file.read(_END))
            file.seek(max(size - _END, 0))
            found.update(file.read())
    return found.hexdigest()[:24]


def _from_hub(name: str, revision: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise UserError(f"reward.model={name!r}: no such folder, and it is no hub id (owner/name).")
    commit, reason = revision or "main", ""
    try:  # asked first and once: the downloader would retry for minutes
        commit = HfApi().model_info(name, revision=commit, timeout=_SECONDS_TO_REACH_HUB).sha or commit
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(
            f"The hub has no reward model {name!r} at revision {commit!r} that may be read ({one_line(error)}). "
            "Check reward.model and reward.revision, or give a local folder."
        ) from error
    except Exception as error:  # no route, no name, a proxy, a time-out, offline mode: each library has its own errors
        reason = one_line(error)
    try:
        return Path(
            snapshot_download(
                name, revision=commit, allow_patterns=_FILES, ignore_patterns=_NOT_FILES, local_files_only=bool(reason)
            )
        )
    except Exception as error:
        raise UserError(
            f"The reward model {name!r} cannot be found (no such local folder; the hub and its cache: "
            f"{reason or one_line(error)}). Use reward.model=<a local folder>."
        ) from error


def one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
