"""Makes one cell of a committed table again, at its recorded size, and holds it against that table:

    python results/again.py exact                                   # the first run of results/records/exact
    python results/again.py exact --only algo=ppo --seed 7          # a seed that is not in the table: within its row's interval?
    python results/again.py preferences --only algo=sft ...         # the SFT model that the table starts from, and nothing after it
    python results/again.py hacking data.path=<folder of HH-RLHF>   # a path of this machine, which records do not hold

Of each metric that is tested: what was recorded for this seed, what came out now, and where that lies in the row's spread. The same
seed, code, versions and processor give the same digits. With other ones, or with another seed, a run is one more draw from what the
row's seeds were drawn from: it lies within the 95% prediction interval (mean ± t s sqrt(1 + 1/n) over n seeds) in 19 of 20 cases.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from scipy.special import stdtrit
from yaml import YAMLError  # type: ignore[import-untyped]

from alignbench.app.compose import register_configs, typed
from alignbench.app.ready import check_ready
from alignbench.app.target import labels, settings_of
from alignbench.errors import AlignbenchError, UserError, unknown_name
from alignbench.paths import given_path
from alignbench.results.compared.comparable import chosen
from alignbench.results.compared.primary import primary_of
from alignbench.results.compared.table import build_table
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun, find_runs

RECORDS = Path(__file__).resolve().parent / "records"


def predicted(values: Sequence[float]) -> tuple[float, float]:
    """Where one more draw lies with 95%; without bounds where there are not two to tell a spread from."""
    if len(values) < 2:
        return -math.inf, math.inf
    n, mean = len(values), math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * spread * math.sqrt(1 + 1 / n)
    return mean - half, mean + half


def judged(now: StoredRun, recorded: Sequence[StoredRun], metrics: Sequence[str]) -> tuple[list[str], bool]:
    """A line for each metric, and whether all lie where they should. `recorded` are the seeds of the row."""
    lines, good = [], True
    for metric in metrics:
        if metric not in now.record.metrics:
            continue
        value = now.record.metrics[metric].value
        known = {
            run.record.identity.seed: run.record.metrics[metric].value
            for run in recorded
            if metric in run.record.metrics
        }
        low, high = predicted(list(known.values()))
        before = known.get(now.record.identity.seed)
        same = before is not None and math.isclose(value, before, rel_tol=1e-9, abs_tol=1e-12)
        within = same or low <= value <= high
        good &= within
        what = "the same" if same else "within" if within else "OUTSIDE"
        told = f"{before:.4g}" if before is not None else "another seed"
        lines.append(
            f"{metric}: recorded {told}, now {value:.4g}; {what} [{low:.4g}, {high:.4g}] of {len(known)} seeds"
        )
    return lines, good and bool(lines)


def again(run: StoredRun, overrides: Sequence[str], seed: int | None, results_dir: Path) -> Path:
    """Carries the run out anew, from its configuration, and returns its directory. An SFT model's row: as the run that is no more
    than SFT."""
    from alignbench.pipeline.run import run as carry_out

    register_configs()
    settings = settings_of(run.path)
    if run.record.baseline:
        OmegaConf.update(settings, "algo", settings.sft, merge=False)
    OmegaConf.update(settings, "results_dir", str(results_dir))
    OmegaConf.update(settings, "resume", "never")
    for override in [*overrides, *([] if seed is None else [f"seed={seed}"])]:
        key, equals, _ = override.partition("=")
        try:
            if not equals or OmegaConf.select(settings, key, default=None) is None:
                raise UserError(f"{override}: write KEY=VALUE, of a key that the run's config.yaml has.")
            settings.merge_with_dotlist([override])
        except (OmegaConfBaseException, YAMLError) as error:
            raise UserError(f"{override}: {' '.join(str(error).split())}") from error
    config = typed(settings, labels(run.record.identity))
    check_ready(config)
    return carry_out(config)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", help="a folder in results/records")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that this machine has otherwise")
    parser.add_argument("--only", action="append", default=[], metavar="KEY=VALUE", help="a run with this; repeat it")
    parser.add_argument("--seed", type=int, help="another seed than the recorded one")
    parser.add_argument("--results-dir", type=given_path, default=Path("results/runs/again"))
    options = parser.parse_intermixed_args(argv)
    try:
        tables = sorted(path.name for path in RECORDS.iterdir() if path.is_dir())
        if options.table is None:
            raise UserError(f"Name a table. Choices: {', '.join(tables)}.")
        if options.table not in tables:
            raise unknown_name("table", options.table, tables)
        found, _ = find_runs([RECORDS / options.table])
        finished = [run for run in found if run.record.status is Status.FINISHED]
        wanted = sorted(chosen(finished, options.only), key=lambda run: run.record.baseline)
        if not wanted:
            raise UserError(f"results/records/{options.table} has no run with {' '.join(options.only) or 'a record'}.")
        table = build_table([run for run in finished if run.record.baseline is wanted[0].record.baseline])
        run, row = next((run, row) for run in wanted for row in table.rows if run.path in row.repeats)
        name = run.path.relative_to(RECORDS / options.table)
        print(
            f"Making {' '.join(row.label)} again, from {name}; its seeds are {', '.join(map(str, row.seeds))}",
            flush=True,
        )
        made, _ = find_runs([again(run, options.overrides, options.seed, options.results_dir)])
        lines, good = judged(made[0], row.runs, primary_of(table).metrics)
    except AlignbenchError as error:
        print(f"again: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("again: interrupted", file=sys.stderr)
        return 130
    print(*lines, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
