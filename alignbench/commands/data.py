"""`alignbench data`: looks at a data set before anything is trained."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignbench.errors import UserError
from alignbench.paths import is_setting
from alignbench.plugins import Kind, registry
from alignbench.untrusted import plain

if TYPE_CHECKING:
    from alignbench.pipeline.data.inspection import Inspection, Lengths

BAR = 30
LONGEST = 600
"""Characters of a text that are shown."""


def main(arguments: Sequence[str]) -> int:
    """Prints what there is; returns the exit code."""
    options = _parser().parse_intermixed_args(list(arguments))
    overrides = _overrides(options.target, options.overrides)
    from alignbench.app.compose import load_config
    from alignbench.seeds import Seeds

    config = load_config(overrides)
    seeds = Seeds(config.seed)
    source = config.data.build(seeds=seeds.child("data"))
    from alignbench.pipeline.data.inspection import inspect
    from alignbench.pipeline.preparation import pick_device

    policy = None
    if any(override.startswith("model=") for override in overrides):
        device = pick_device(config.device)
        policy = config.model.build(tokenizer=source.tokenizer(), device=device, seeds=seeds.child("model"))
    found = inspect(source, policy, rows=options.rows)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2, ensure_ascii=False).encode(errors="replace").decode())
        return 0
    for line in text(found):
        print(line)
    if policy is None:
        print(
            "\nLengths are words. With a model (model=smollm2) they are its tokens, and rows are shown as it reads them."
        )
    return 0


def _overrides(target: str, overrides: Sequence[str]) -> list[str]:
    """A path or a hub id is read by the source of files, unless another is named; a setting stays one, unless a file has its name."""
    if is_setting(target):
        return [target, *overrides]
    if "\n" in target or "\0" in target:
        raise UserError("The path holds a control character.")
    from alignbench.app.overrides import quoted

    named = any(override.startswith("data=") for override in overrides)
    return [
        *([] if named else [f"data={registry().that(Kind.DATA, 'reads_files').name}"]),
        *overrides,
        f"data.path={quoted(target)}",
    ]


def text(found: Inspection) -> Iterator[str]:
    """The inspection for a terminal. What rows hold is untrusted: no control character comes through."""
    if found.description:
        yield "Files: " + ", ".join(map(plain, found.description.files))
        yield "Read as: " + _counts(found.description.forms)
        yield "Columns: " + (
            ", ".join(f"{plain(c)} ({role})" for role, c in found.description.columns.items()) or "none"
        )
        for note in found.description.notes:
            yield f"  {plain(note)}"
    yield "Gives: " + _counts(found.records)
    if found.counts:
        yield "Counts: " + _counts(found.counts)
    for reason, example in found.description.set_aside.items() if found.description else ():
        yield f"  set aside as {plain(reason)}, the first: {plain(example)}"
    for number, row in enumerate(found.rows, start=1):
        yield f"\nExample {number}, a {plain(row.kind)}"
        yield from _indented(row.prompt)
        for response in row.responses:
            yield from _indented(response, "  > ")
    for lengths in found.lengths:
        yield from _histogram(lengths)
    if found.agreement:
        yield "\nAgreement:" + found.agreement.line()
    yield "\nTo look at:" if found.suspicious else "\nNothing looks suspicious."
    for line in found.suspicious:
        yield f"  - {plain(line)}"


def _counts(counts: object) -> str:
    return ", ".join(f"{count} {plain(name)}" for name, count in dict(counts).items()) or "nothing"  # type: ignore[call-overload]


def _indented(shown: str, first: str = "  ") -> Iterator[str]:
    half = LONGEST // 2
    short = (
        shown
        if len(shown) <= LONGEST
        else f"{shown[:half]} [... {len(shown) - 2 * half} characters ...] {shown[-half:]}"
    )
    for i, line in enumerate(short.splitlines() or [""]):
        yield (first if i == 0 else "    ") + plain(line)


def _histogram(lengths: Lengths) -> Iterator[str]:
    limit = f", {lengths.over} over the model's {lengths.limit}" if lengths.limit else ""
    yield f"\n{lengths.count} {lengths.what}, {lengths.unit}: median {lengths.median}, at most {lengths.largest}{limit}"
    most = max(lengths.bins.values())
    for bound, count in lengths.bins.items():
        mark = " |" if lengths.limit and bound > lengths.limit else "  "
        yield f"  to {bound:>6}{mark} {'#' * max(round(BAR * count / most), 1)} {count}"


def _rows(given: str) -> int:
    """As many as there are, where there are not so many."""
    if not given.isdecimal():
        raise UserError(f"--rows={given}: a whole number is needed, 0 or more.")
    return min(int(given[:19]), sys.maxsize)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench data",
        description="Look at a data set before anything is trained: how it is read, rows as a model sees them, what would be set\n"
        "aside and why, lengths, agreement, and what looks wrong.\n\n"
        "  alignbench data pairs.jsonl\n"
        "  alignbench data pairs.jsonl model=smollm2 model.max_prompt_tokens=256\n"
        "  alignbench data data=ultrafeedback data.max_rows=2000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="PATH_OR_ID", help="a file, a folder, a hub id, or data=<a data source>")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as of a run")
    parser.add_argument("--rows", type=_rows, default=3, help="examples to show; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    return parser
