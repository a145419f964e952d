"""`alignbench compare`: the results table, from run directories."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from alignbench.errors import AlignbenchError, UserError
from alignbench.results import render
from alignbench.results.runs import find_runs
from alignbench.results.table import build_table

DEFAULT_RESULTS = Path("results/runs")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        _compare(options)
    except AlignbenchError as error:
        print(f"alignbench compare: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench compare",
        description="Print the results table of finished runs. Runs that differ only in the seed become\n"
        "one column: a mean and a 95% confidence interval. Runs that did not finish are\n"
        "listed below the table.",
        epilog="examples:\n"
        "  alignbench compare                                  every run in results/runs\n"
        "  alignbench compare results/runs/2026*-ppo-*         some of them\n"
        "  alignbench compare --format markdown > table.md     for a README",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUNS",
        help="run directories or folders of them; names are also looked for in the results folder (default: all of it)",
    )
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=DEFAULT_RESULTS,
        metavar="DIR",
        help="the results folder (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=["terminal", "markdown", "csv", "json"],
        default="terminal",
        help="csv and json hold unrounded numbers (default: %(default)s)",
    )
    return parser


def _compare(options: argparse.Namespace) -> None:
    paths = [_locate(name, options.results_dir) for name in options.runs] or [options.results_dir]
    runs, broken = find_runs(paths)
    where = ", ".join(map(str, paths))
    if not runs and not broken:
        raise UserError(f"No runs in {where}. Start one with `python -m alignbench`, or name the folder of your runs.")
    table = build_table(runs, broken)
    if options.format == "terminal":
        console = Console()
        console.print(render.terminal(table, console.width))
    else:
        draw = {"markdown": render.markdown, "csv": render.as_csv, "json": render.as_json}[options.format]
        sys.stdout.write(draw(table))
        if options.format == "csv":  # it has no place for them
            for line in render.remarks(table):
                print(line, file=sys.stderr)
    if not runs:
        raise UserError(f"None of the runs in {where} can be read.")


def _locate(name: str, results_dir: Path) -> Path:
    path = Path(name)
    return path if path.exists() or not (results_dir / name).exists() else results_dir / name
