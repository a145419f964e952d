"""`alignbench compare`: the results table, from run directories."""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from alignbench.app.price import price_of
from alignbench.errors import UserError, unknown_name
from alignbench.paths import given_path
from alignbench.results.compared.comparable import caveats, chosen, clashes, require_comparable
from alignbench.results.compared.comparisons import rate_file
from alignbench.results.compared.examples import Examples, read_examples
from alignbench.results.compared.frontier import AT_BUDGET, AT_KL, KL, matched
from alignbench.results.compared.paired import Difference, differences, on_shared_seeds
from alignbench.results.compared.primary import primary_of
from alignbench.results.compared.ratings import ratings
from alignbench.results.compared.table import Table, build_table
from alignbench.results.compared.verdict import tests, verdict
from alignbench.results.disk.runs import DEFAULT_RESULTS, find_runs, locate, no_runs
from alignbench.results.shown import export, leaderboard, render
from alignbench.untrusted import plain

FORMATS = ("text", "markdown", "csv", "json", "latex", "html")
SUFFIXES = {".txt": "text", ".md": "markdown", ".csv": "csv", ".json": "json", ".tex": "latex", ".html": "html"}
WITH_POWER = ("text", "markdown", "json")
MOST_ROWS = 60
"""Of a table that somebody reads: above it differences are computed only where they are asked for."""
NO_POWER = (
    "--power: no tested difference stands in these tables. They need a row to be held against (--only algo=sft,... or --baseline), "
    f"a primary metric that --metrics does not leave out, and above {MOST_ROWS} rows --differences."
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Of a terminal, which a file is not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and returns the exit code."""
    options = _parser().parse_args(argv)
    gc.disable()  # ten thousand runs are a million objects, all in use: looking through them takes a quarter of the time
    try:
        _compare(options)
    finally:
        gc.enable()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignbench compare",
        description="Print the results table of finished runs, and what differs from a baseline beyond noise.\n"
        "Runs that differ only in the seed become one column: a mean and a 95% confidence\n"
        "interval. Runs that did not finish are listed below the table.",
        epilog="examples:\n"
        "  alignbench compare                                  every run in results/runs\n"
        "  alignbench compare results/runs/2026*-ppo-*         some of them\n"
        "  alignbench compare --only data=world --baseline dpo every row against DPO\n"
        "  alignbench compare --only algo=ppo,dpo --metrics optimization\n"
        "  alignbench compare --at-kl 2                        at a KL of 2 nats per response\n"
        "  alignbench compare --ratings helpfulness/gold_reward\n"
        "  alignbench compare --overoptimisation               of runs with eval.every\n"
        "  alignbench compare --sameness                       do different algorithms say the same?\n"
        "  alignbench compare --output table.md                for a README; also .csv .json .tex .html\n\n"
        "docs/results.md says how to read it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="*",
        metavar="RUNS",
        help="run directories or folders of them; names are also looked for in the results folder (default: all of it)",
    )
    add(
        "--results-dir",
        type=given_path,
        default=DEFAULT_RESULTS,
        metavar="DIR",
        help="the results folder (default: %(default)s)",
    )
    add(
        "--only",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="only runs with this, as in data=world or algo=ppo,dpo; repeat it",
    )
    add(
        "--baseline",
        type=_given,
        metavar="ROW",
        help="the row that the others are compared with (default: their SFT model)",
    )
    add(
        "--primary",
        action="append",
        default=[],
        metavar="METRIC",
        help="test this metric in place of those that the runs name (eval.primary); repeat it",
    )
    add(
        "--metrics",
        action="append",
        default=[],
        type=_given,
        metavar="NAME,...",
        help="show these metrics or families of them, as in optimization,helpfulness/accuracy; what is tested stays",
    )
    add("--force", action="store_true", help="show runs in one table whose numbers are not comparable")
    add("--verbose", action="store_true", help="all that makes runs incomparable, where that is refused")
    add("--mix-code", action="store_true", help="pool seeds that were run by different code into one row")
    add("--differences", action="store_true", help=f"differences also in a table of more than {MOST_ROWS} rows")
    add(
        "--power",
        action="store_true",
        help="how large a difference must be for these seeds and prompts to find it (text, markdown, json)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--at-kl", type=float, metavar="NATS", help="compare at this KL, between settings that were run")
    what.add_argument("--at-budget", type=float, metavar="SECONDS", help="compare at this many seconds of a whole run")
    add(
        "--overoptimisation",
        action="store_true",
        help="proxy and gold reward along training (eval.every), the peak, and Gao et al.'s curves fitted",
    )
    add(
        "--ratings",
        metavar="METRIC",
        type=_given,
        help="rate the rows by who wins on each example: Bradley-Terry, Elo, win rate",
    )
    add(
        "--comparisons",
        type=given_path,
        metavar="FILE.csv",
        help="rate by comparisons from elsewhere, people's or a judge's: columns left, right, winner (or tie), item",
    )
    add("--sameness", action="store_true", help="how alike the responses of each two rows are, to the same prompts")
    add("--format", choices=FORMATS, help="csv and json hold unrounded numbers (default: text, or as --output ends)")
    add("--output", type=given_path, metavar="FILE", help="write to a file")
    add("--plots", type=given_path, metavar="FOLDER", help="draw every plot there too, as PNG and SVG")
    return parser


def _given(text: str) -> str:
    if not text.strip(" ,"):
        raise argparse.ArgumentTypeError("a name is missing")
    return text


def _compare(options: argparse.Namespace) -> None:
    form = options.format or _format_of(options.output)
    if form == "html" and not options.output:
        raise UserError("--format html takes --output FILE.")
    for flag, target in (("--at-kl", options.at_kl), ("--at-budget", options.at_budget)):
        if target is not None and not 0 <= target < math.inf:
            raise UserError(f"{flag} {target:g}: a number of 0 or more.")
    _refuse_together(options)
    if options.power and form not in WITH_POWER:
        raise UserError(f"--power is no part of {form}: choose one of {', '.join(WITH_POWER)} by --format.")
    if options.comparisons:
        found_elsewhere = rate_file(options.comparisons)
        _write(leaderboard.draw(found_elsewhere, [], options.comparisons.name, form, items=True), options.output)
        return
    paths = [locate(name, options.results_dir) for name in options.runs] or [options.results_dir]
    found, broken = find_runs(paths)
    where = ", ".join(map(str, paths))
    if not found and not broken:
        raise no_runs(paths)
    runs = chosen(found, options.only)
    if found and not runs:
        raise UserError(f"None of the runs in {where} has {' '.join(options.only)}.")
    table, examples = _prepared(options, build_table(runs, broken, mix_code=options.mix_code))
    if options.overoptimisation:
        along = importlib.import_module("alignbench.results.shown.overoptimisation")
        text = along.draw(table, form)
    elif options.sameness:
        text = importlib.import_module("alignbench.results.shown.sameness").draw(table, form)
    elif options.ratings:
        text = leaderboard.draw(ratings(table, options.ratings, examples), render.remarks(table), options.ratings, form)
    else:
        primary = primary_of(table, options.primary)
        table = replace(table, notes=(*table.notes, *primary.notes)) if len(table.rows) > 1 else table
        if options.at_kl is not None and (odd := [name for name in options.primary if name in KL]):
            table = replace(table, notes=(*table.notes, f"{odd[0]} is what is matched: it is not tested."))
        if name := _missed(options, table):
            raise UserError(f"--baseline {options.baseline}: {name}")
        compared = differences(table, options.baseline or "", examples, primary=primary.metrics)
        table = replace(table, notes=(*table.notes, *on_shared_seeds(table, compared)))
        claimed: tuple[Difference, ...] = ()
        if not clashes(table, options.at_budget is not None):  # of rows that are shown by force nothing is claimed
            claimed = tests(table, compared, examples, primary.metrics, options.baseline or "")
            table = replace(table, verdict=verdict(claimed))
        table, compared = _of_metrics(table, compared, options.metrics)
        if options.power and not any(d.primary for d in compared):
            table = replace(table, notes=(*table.notes, NO_POWER))
        if options.plots or form == "html":
            report = importlib.import_module("alignbench.results.shown.report")  # it draws, which takes time to import
            if options.plots and not report.save_plots(table, compared, options.plots):
                table = replace(table, notes=(*table.notes, "--plots: this table has nothing to draw."))
            if form == "html":
                report.write(runs, table, compared, options.output)
                return
        shown = table if options.differences else _readable(table, form)
        if form == "json":
            text = export.as_json(shown, compared, claimed)
        else:
            text = _drawn(form, shown, compared, options.output, power=options.power)
    _write(text, options.output)
    if form == "csv":  # it has no place for them
        for line in render.remarks(table):
            print(plain(line), file=sys.stderr)
    if not found:
        raise UserError(f"None of the runs in {where} can be read.")


def _missed(options: argparse.Namespace, table: Table) -> str:
    """Why a baseline has no row at the KL or the seconds that are matched, where a note of the table says so."""
    if options.at_kl is None and options.at_budget is None:
        return ""
    said = (note for note in table.notes if note.startswith(f"{options.baseline} at ") and "not extrapolated" in note)
    here = any(" ".join(row.label) == options.baseline for row in table.rows)
    return "" if here else next(said, "")


def _refuse_together(options: argparse.Namespace) -> None:
    """What is asked of differences has no place where none is shown."""
    instead = [flag for flag in ("overoptimisation", "ratings", "comparisons", "sameness") if getattr(options, flag)]
    useless = [flag for flag in ("baseline", "primary", "metrics", "power") if getattr(options, flag)]
    matching = [flag for flag in ("at_kl", "at_budget") if getattr(options, flag) is not None]
    if instead == ["ratings"] and matching:
        raise UserError(
            f"--ratings asks who wins on each example, and at --{matching[0].replace('_', '-')} a row lies between two settings: it has "
            "no responses of its own. Leave one out."
        )
    instead += [flag.replace("_", "-") for flag in matching] if instead else []
    if len(instead) > 1:
        raise UserError(f"--{instead[0]} and --{instead[1]} are two tables: ask for one.")
    if instead and options.plots:
        raise UserError(f"--{instead[0]} draws no plots: leave --plots out.")
    if options.comparisons and (options.runs or options.only):
        raise UserError("--comparisons reads its file, and no runs: leave the folders and --only out.")
    if instead and useless:
        raise UserError(f"--{useless[0]} is about differences, and --{instead[0]} shows none: leave one out.")


def _prepared(options: argparse.Namespace, table: Table) -> tuple[Table, Examples]:
    """The table that is to be shown, with all that a reader has to know about it, and the scores to compare it by."""
    budgets = options.at_budget is not None
    if options.force:
        table = replace(
            table, notes=(*table.notes, *(f"Not comparable: {clash}." for clash in clashes(table, budgets)))
        )
    else:
        require_comparable(table, budgets, whole=options.verbose)
    table = replace(table, notes=(*table.notes, *caveats(table)))
    matching = options.at_kl is not None or budgets
    many = len(table.rows) > MOST_ROWS and not (options.differences or options.ratings or matching)
    if many:
        table = replace(table, notes=(*table.notes, f"{len(table.rows)} rows: --differences tells what differs."))
    if not matching:
        table = render.with_warnings(table)
    few = len(table.rows) < 2
    examples = Examples({}) if many or few else read_examples(run for row in table.rows for run in row.runs)
    table = replace(table, notes=(*table.notes, *examples.problems))
    if options.at_kl is not None:
        return matched(table, AT_KL, options.at_kl, examples, mix_code=options.mix_code, price=price_of)
    if not budgets:
        return table, examples
    return matched(table, AT_BUDGET, options.at_budget, examples, mix_code=options.mix_code)


def _format_of(output: Path | None) -> str:
    if output is None:
        return "text"
    if output.suffix not in SUFFIXES:
        choices = ", ".join(SUFFIXES)
        raise UserError(f"--output {output}: its ending names no format. Choose one of {choices}, or add --format.")
    return SUFFIXES[output.suffix]


def _of_metrics(
    table: Table, compared: tuple[Difference, ...], asked: Sequence[str]
) -> tuple[Table, tuple[Difference, ...]]:
    """The table and the differences of the metrics and families that were `asked` for, of all where none was."""
    names = [name for part in asked for name in part.split(",") if name]
    if not names:
        return table, compared
    families = {name.partition("/")[0] for name in table.metrics}
    if odd := [name for name in names if name.rstrip("/") not in families and name not in table.metrics]:
        raise unknown_name("metric or family", odd[0], [*families, *table.metrics], where="--metrics")
    wanted = {
        m: d for m, d in table.metrics.items() if m in names or m.partition("/")[0] in {n.rstrip("/") for n in names}
    }
    rows = [
        replace(
            row,
            cells={m: c for m, c in row.cells.items() if m in wanted},
            unanswered={m: n for m, n in row.unanswered.items() if m in wanted},
        )
        for row in table.rows
    ]
    return replace(table, metrics=wanted, rows=tuple(rows)), tuple(d for d in compared if d.metric in wanted)


def _readable(table: Table, form: str) -> Table:
    """Without the rows that no terminal is wide enough for, and said."""
    if form != "text" or len(table.rows) <= MOST_ROWS:
        return table
    note = f"The first {MOST_ROWS} of {len(table.rows)} rows: --only chooses, --output FILE.csv or FILE.md has all."
    return replace(table, rows=table.rows[:MOST_ROWS], notes=(*table.notes, note))


def _drawn(form: str, table: Table, compared: Sequence[Difference], output: Path | None, *, power: bool) -> str:
    if form == "text":
        console = Console() if output is None else Console(file=io.StringIO(), width=120)
        with console.capture() as capture:
            console.print(render.terminal(table, console.width, compared, power=power))
        return capture.get()
    if form == "markdown":
        return render.markdown(table, compared, power=power)
    return {"latex": render.latex, "csv": export.as_csv}[form](table, compared)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(COLOURS.sub("", text), encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {output}: {error.strerror}.") from error
