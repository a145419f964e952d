"""Options of `annotator=recorded`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RecordedConfig:
    """Rankings that were given before: the data source's own, or a file of them; nothing is sampled."""

    path: str = ""
    """A rankings file, JSONL: {"prompt": text or "messages": [...], "responses": [...], "ranks": [...]}; empty: the
    rankings that the data source brings."""
