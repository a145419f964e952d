"""`alignbench cache`: lists and prunes the stages that runs share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from alignbench.errors import UserError
from alignbench.paths import check_may_be_folder, given_path
from alignbench.store.artifacts import Artifact, artifacts, cache_root, remove
from alignbench.untrusted import plain

MOST_HOURS = 100 * 366 * 24


def main(argv: Sequence[str]) -> int:
    """Lists artifacts, or deletes those that were asked for; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.action == "list" and (options.all or options.unused is not None):
        raise UserError("--all and --unused say what to delete: alignbench cache prune. The list shows everything.")
    if options.cache_dir:
        check_may_be_folder(str(options.cache_dir), "--cache-dir")
        if not options.cache_dir.is_dir():
            raise UserError(f"There is no folder {options.cache_dir}: nothing is kept there.")
    root = cache_root(options.cache_dir or "")
    found = artifacts(root)
    if options.action == "prune":
        _prune(found, options)
    else:
        _list(found)
        print(f"{len(found)} artifacts, {_size(sum(a.size for a in found))}, in {root}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench cache",
        description="The stages that runs share: SFT models, rankings, reward models, evaluations of SFT\n"
        "models and reference log-probabilities. Deleting them costs time, never results.",
        epilog="examples:\n"
        "  alignbench cache\n"
        "  alignbench cache prune --unused 30d      not used for thirty days\n"
        "  alignbench cache prune --all",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=["list", "prune"], default="list")
    parser.add_argument("--cache-dir", type=given_path, metavar="DIR", help="as cache_dir= of a run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--unused", type=_duration, metavar="TIME", help="not used for so long: 12h, 30d, 8w")
    which.add_argument("--all", action="store_true", help="everything that no run is using at this moment")
    return parser


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)([hdw])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: write 12h, 30d or 8w")
    hours = int(found[1]) * {"h": 1, "d": 24, "w": 7 * 24}[found[2]]
    if hours > MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a hundred years")
    return timedelta(hours=hours)


def _list(found: Sequence[Artifact]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("stage", "size", "last used", "made by", "name", box=None, pad_edge=False)
    for a in found:
        name = a.path.name + (f" ({a.fault})" if a.fault else "")
        table.add_row(
            a.stage,
            _size(a.size),
            f"{a.last_used:%Y-%m-%d %H:%M}",
            *(escape(plain(text)) for text in (a.made_by, name)),
        )
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(table)


def _prune(found: Sequence[Artifact], options: argparse.Namespace) -> None:
    if not options.all and options.unused is None:
        raise UserError("alignbench cache prune: say what to delete, with --unused 30d or --all.")
    limit = datetime.now(UTC) - (options.unused or timedelta())
    chosen = [a for a in found if options.all or a.fault or a.last_used < limit]
    gone = [a for a in chosen if remove(a)]
    kept = f"; {len(chosen) - len(gone)} are in use" if len(gone) < len(chosen) else ""
    print(f"Deleted {len(gone)} of {len(found)} artifacts, {_size(sum(a.size for a in gone))}{kept}.")


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
