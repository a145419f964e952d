"""Which base saved weights belong to."""

from __future__ import annotations

import json
from pathlib import Path

from alignbench import UserError, pretrained

_BASE_FILE = "base.json"  # in the folder of an adapter


def write_base(path: Path, fingerprint: str) -> None:
    """Says beside saved weights which base they belong to; models without one say nothing."""
    if fingerprint:
        (path / _BASE_FILE).write_text(json.dumps({"fingerprint": fingerprint}) + "\n")


def check_base(path: Path, fingerprint: str) -> None:
    """Raises UserError where saved weights belong to another base: shapes alone would let a sister model's pass."""
    file = path / _BASE_FILE
    if fingerprint and file.is_file() and pretrained.json_object(file).get("fingerprint") != fingerprint:
        raise UserError(
            f"The adapter in {path} was trained on another base than this model ({_BASE_FILE} has another fingerprint): "
            "set model.path and model.revision to those of the run that made it."
        )
