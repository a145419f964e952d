"""A hub's files, what names a folder's content, and a token to pad with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignbench.errors import reason_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS_TO_REACH_HUB = 5.0
"""How long a hub may take to answer, seconds; after that what is on this machine is taken."""
FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer*", "*.model", "*.txt")
"""What is taken of a repository: no pickles."""
NOT_FILES = ("*/*",)
"""Nothing of sub-folders (original/, onnx/: the same weights again)."""
_NAMING = (".safetensors", ".json", ".jinja", ".model", ".txt")
_END = 2**20  # bytes at the start and at the end of a file that a fingerprint reads
_PAD_TOKENS = (
    "<pad>",
    "<|pad|>",
    "[PAD]",
    "<|padding|>",
    "<|endoftext|>",
    "<|finetune_right_pad_id|>",
    "<|video_pad|>",
    "<unk>",
)


class NotOnHubError(Exception):
    """The hub has no such repository or revision, or does not let it be read; the message says why, in one line."""


class OutOfReachError(Exception):
    """The hub did not answer and its cache has no copy; the message says why, in one line."""


def snapshot(
    name: str,
    *,
    revision: str = "",
    files: Sequence[str] = FILES,
    not_files: Sequence[str] = NOT_FILES,
    needed: str = "*.safetensors",
) -> Path:
    """The folder of a repository's files on the Hugging Face hub at a branch, tag or commit (empty: main); where the hub does
    not answer within seconds, of the copy in its cache, which must hold a file like `needed`: it may have a part alone.

    Raises NotOnHubError and OutOfReachError, for the caller to say what to do about the setting that named it."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    commit, reason = revision or "main", ""
    try:  # asked first and once: the downloader would retry for minutes
        commit = HfApi().model_info(name, revision=commit, timeout=SECONDS_TO_REACH_HUB).sha or commit
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise NotOnHubError(one_line(error)) from error
    except Exception as error:  # no route, no name, a proxy, a time-out, offline mode: each library has its own errors
        reason = one_line(error)
    try:
        folder = snapshot_download(
            name,
            revision=commit,
            allow_patterns=list(files),
            ignore_patterns=list(not_files) or None,
            local_files_only=bool(reason),
        )
    except Exception as error:
        raise OutOfReachError(reason or one_line(error)) from error
    if reason and not any(Path(folder).glob(needed)):
        raise OutOfReachError(reason)
    return Path(folder)


def fingerprint(folder: Path) -> str:
    """Tells checkpoints apart by their files: name, size, and the first and last MiB of each. Whole files would take minutes
    where weights take gigabytes, and training moves the ends as it moves the rest."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _NAMING):
        size = path.stat().st_size
        found.update(f"{path.name}:{size}\0".encode())
        with path.open("rb") as file:
            found.update(file.read(_END))
            if size > _END:
                file.seek(max(size - _END, _END))
                found.update(file.read())
    return found.hexdigest()[:24]


def padding_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A token to pad with that is not the tokenizer's EOS, since masks and readers of the last token could not tell the two apart:
    its own, or one that its vocabulary has (no embedding is added); None where there is none. Chat models often pad with EOS."""
    own, eos = tokenizer.pad_token, tokenizer.eos_token
    if own is not None and own != eos:
        return str(own)
    vocabulary = tokenizer.get_vocab()
    usable = (token for token in (*_PAD_TOKENS, tokenizer.unk_token) if token in vocabulary and token != eos)
    return next(usable, None)


def one_line(error: BaseException) -> str:
    """The first line of what an error says, with those that it announces by a colon or a comma; no name of a class."""
    text, *rest = [line.strip() for line in reason_of(error).splitlines() if line.strip()]
    while text.endswith((":", ",")) and rest:
        text = f"{text} {rest.pop(0)}"
    return text
