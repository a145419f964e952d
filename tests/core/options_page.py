"""Writes docs/options.md from the config dataclasses: python tests/core/options_page.py."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "options.md"

if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from alignbench.app.config import Settings  # noqa: E402
from alignbench.app.options import docstrings, sections  # noqa: E402
from alignbench.bounds import in_words, number, ranges  # noqa: E402
from alignbench.plugins import Kind, registry  # noqa: E402

OURS = "alignbench"
"""The distribution whose components are listed: others say theirs in their own docs."""
HEAD = """# Options

Every option of a run, with its default and what it takes; `python -m alignbench algo=dpo --help` shows those of one choice. A number
outside its range, NaN and infinity are refused before anything is built, in one line that names the option, its value and its range.
This page is written by `python tests/core/options_page.py`.
"""
KEYS = {
    Kind.EVALUATION: "eval.options.{}",
    Kind.OPTIMIZER: "algo.optimizer={} (algo.optimizer_options)",
    Kind.SAMPLER: "model.sampler={} (model.sampler_options)",
    Kind.SCHEDULE: "algo.lr_schedule={} (algo.lr_schedule_options)",
    Kind.STAGE: "stages=[{0}] (stage_options.{0})",
    Kind.FORMAT: "data.format={} (data.format_options)",
}
"""Where the options of a kind stand, where that is not its own name."""


def default(field: dataclasses.Field[object]) -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    words = {None: "null", True: "true", False: "false", "": "empty"}
    if isinstance(value, (bool, str, type(None))) and value in words:
        return words[value]
    text = number(value) if isinstance(value, float) else str(value)
    return f"`{text}`" if len(text) <= 60 else "long"


def rows(schema: type) -> Iterator[str]:
    said, hints, known = docstrings(schema), typing.get_type_hints(schema), ranges(schema)
    for field in dataclasses.fields(schema):
        if dataclasses.is_dataclass(field.default_factory):
            continue  # it has a table of its own
        cells = (f"`{field.name}`", default(field), in_words(hints[field.name], known.get(field.name)))
        yield (
            "| "
            + " | ".join(cell.replace("|", "\\|").replace("<", "\\<") for cell in (*cells, said.get(field.name, "")))
            + " |"
        )


def table(schema: type) -> str:
    found = list(rows(schema))
    return (
        "\n".join(["| option | default | takes | what it is |", "| --- | --- | --- | --- |", *found])
        if found
        else "No options."
    )


def written() -> str:
    parts = [HEAD]
    for where, schema in sections(Settings):
        if where:
            parts.append(f"## {where}\n\n{table(schema)}\n")
    for kind in Kind:
        for component in registry().of(kind):
            if component.distribution == OURS:
                key = KEYS.get(kind, f"{kind.value}={{}}").format(component.name)
                parts.append(f"## {key}\n\n{component.summary}\n\n{table(component.config)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
