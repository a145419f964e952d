"""The commands of README and docs, as a reader would type them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "results").glob("*.md")),
]
BLANK = "BLANK"
"""What stands for a part that a reader fills in, as <folder>."""
PROGRAMS = (
    "alignbench", "python", "torchrun", "pip", "pytest", "benchmarks/gpu_first_hour.sh", ".ci/run", "mkdocs", "export", "cp",
    "head", "grep", "vllm", "lm_eval", "pre-commit", "tests/engines/make_vllm_env.sh", "~/vllm/bin/python", "docker", "source",
)  # fmt: skip
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Shown:
    """One command of a page: its program and arguments, without the variables that are set before it."""

    page: Path
    line: int
    words: tuple[str, ...]

    @property
    def alignbench(self) -> tuple[str, ...] | None:
        """The arguments of `alignbench`, if it is that program, however started."""
        for start in (("alignbench",), ("python", "-m", "alignbench")):
            if self.words[: len(start)] == start:
                return self.words[len(start) :]
        if self.words[0] == "torchrun" and "alignbench" in self.words:
            return self.words[self.words.index("alignbench") + 1 :]
        return None

    @property
    def blank(self) -> bool:
        return any(BLANK in word or "..." in word or word.split("/")[0] in ("RUN", "MODEL") for word in self.words)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {shlex.join(self.words)}"


def shown(pages: list[Path] = PAGES) -> list[Shown]:
    return [one for page in pages for one in of_page(page, page.read_text(encoding="utf-8"))]


def of_page(page: Path, text: str) -> Iterator[Shown]:
    fenced = [False] * (text.count("\n") + 2)
    for block in FENCE.finditer(text):
        first = text.count("\n", 0, block.start()) + 1
        code = block[3].splitlines()
        for i in range(first, first + len(code) + 2):
            fenced[i] = True
        if block[2] in ("bash", "sh", "console"):
            yield from _commands(page, list(enumerate(code, start=first + 1)), strict=True)
    lines = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if not fenced[i]]
    yield from _commands(page, [(i, line) for i, line in lines if line.startswith("    ")], strict=False)


def _commands(page: Path, lines: list[tuple[int, str]], *, strict: bool) -> Iterator[Shown]:
    """`strict`: every line is a command. Elsewhere a line is one if it begins with a program, since outputs are shown too."""
    while lines:
        (number, line), *lines = lines
        while line.endswith("\\") and lines:
            line, lines = line[:-1] + " " + lines[0][1].lstrip(), lines[1:]
        line = re.sub(r"<\([^)]*\)", BLANK, line.strip())  # <(a process)
        line = re.sub(r"<[^<>|]*>", BLANK, line)
        line = re.split(r"(?<=\S) {2,}(?=\S)", line)[0]  # a word of explanation beside it
        if not line or line.startswith("#"):
            continue
        for part in re.split(r"\s(?:&&|\|)\s", line):
            words = _words(part)
            if words and (strict or _program(words[0])):
                assert _program(words[0]), f"{page}:{number}: {words[0]} is none of PROGRAMS in {__file__}"
                yield Shown(page, number, tuple(words))


def _words(part: str) -> list[str]:
    try:
        words = shlex.split(part, comments=True)
    except ValueError:  # an apostrophe: prose, or what a program printed
        return []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def _program(word: str) -> bool:
    return word in PROGRAMS
