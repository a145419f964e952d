"""What plugins that read pretrained checkpoints share: a hub's files, what names a folder's content, loading that leaves no
weight to chance, and a token to pad with.

Part of the public door, beside `functional`; importing it imports nothing heavy."""

from functools import partial
from typing import TYPE_CHECKING

from alignbench.deprecation import moved
from alignbench.paths import is_hub_id
from alignbench.pretrained.checkpoint import Checkpoint
from alignbench.pretrained.files import json_object, require_file
from alignbench.pretrained.hub import (
    FILES,
    NOT_FILES,
    SECONDS_TO_REACH_HUB,
    NotOnHubError,
    OutOfReachError,
    fingerprint,
    one_line,
    padding_token,
    snapshot,
)
from alignbench.pretrained.weights import check_report

__all__ = [
    "FILES",
    "NOT_FILES",
    "SECONDS_TO_REACH_HUB",
    "Checkpoint",
    "NotOnHubError",
    "OutOfReachError",
    "check_report",
    "fingerprint",
    "is_hub_id",
    "json_object",
    "one_line",
    "padding_token",
    "require_file",
    "snapshot",
]

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = partial(moved, __name__)  # names that were here once
