"""Prompts with many good answers, for models of ordinary text: a small set of the suite's own, and NoveltyBench's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from alignbench import UserError

CURATED = "curated.jsonl"


@dataclass(frozen=True)
class OpenPrompt:
    id: str
    prompt: str
    category: str = ""
    paraphrases: tuple[str, ...] = ()


def own_prompts() -> tuple[OpenPrompt, ...]:
    """The 40 prompts that the suite carries."""
    file = resources.files("alignbench_suite") / "data" / "open_ended.jsonl"
    return _read(file.read_text(encoding="utf-8"), "open_ended.jsonl")


def noveltybench(folder: str | Path) -> tuple[OpenPrompt, ...]:
    """NoveltyBench's 100 curated prompts (arXiv 2504.05228), from a folder that holds its curated.jsonl."""
    path = Path(folder).expanduser() / CURATED
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"NoveltyBench's prompts cannot be read from {path} ({reason}): give the folder of its {CURATED} "
            "(github.com/novelty-bench/novelty-bench, data/)."
        ) from error
    return _read(text, str(path))


def _read(text: str, where: str) -> tuple[OpenPrompt, ...]:
    found: dict[str, OpenPrompt] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            made = OpenPrompt(
                row["id"], row["prompt"], row.get("category", ""), tuple(row.get("prompt_paraphrases", ()))
            )
            if not (isinstance(made.id, str) and isinstance(made.prompt, str) and made.prompt.strip()):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{where}, line {number}: no object with the texts `id` and `prompt`.") from None
        if made.id in found:
            raise UserError(f"{where}, line {number}: the id {made.id!r} stands twice.")
        found[made.id] = made
    if not found:
        raise UserError(f"{where} holds no prompt.")
    return tuple(found.values())
