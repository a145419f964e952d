"""Writes docs/tutorial.ipynb from docs/tutorial.md, for Colab: python tests/core/tutorial_notebook.py."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
SOURCE, NOTEBOOK = DOCS / "tutorial.md", DOCS / "tutorial.ipynb"
PICTURE, LINK = re.compile(r"^!\[.*\n?", re.MULTILINE), re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:)[^)]*\)")
INSTALL = "%pip install alignbench"


def cells(text: str) -> Iterator[tuple[str, str]]:
    """("markdown" or "code", its text): a code cell for each block of commands in a section. Of what stands before the first section, and
    what serves a page, which would never end, the commands stay text."""
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    yield "markdown", prose(head)
    yield "code", INSTALL
    for section in sections:
        for i, part in enumerate(re.split(r"((?:^    \S.*\n?)+)", section, flags=re.MULTILINE)):
            commands = [line.strip() for line in part.splitlines()]
            if i % 2:
                yield "code", "\n".join(f"!{command}" for command in commands)
            elif text := prose(part):
                yield "markdown", text


def prose(text: str) -> str:
    """Without pictures and links that lead nowhere outside the documentation."""
    return LINK.sub(r"\1", PICTURE.sub("", text)).strip()


def commands(text: str) -> list[str]:
    """Those that the sections of the page give."""
    sections = text.partition("\n## ")[2]
    return [line.strip() for line in sections.splitlines() if re.match(r"    \S", line)]


def written() -> str:
    found = [
        {
            "cell_type": kind,
            "id": hashlib.sha256(f"{i} {text}".encode()).hexdigest()[:8],
            "metadata": {},
            **({"execution_count": None, "outputs": []} if kind == "code" else {}),
            "source": text.splitlines(keepends=True),
        }
        for i, (kind, text) in enumerate(cells(SOURCE.read_text(encoding="utf-8")))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {"cells": found, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(written(), encoding="utf-8")
