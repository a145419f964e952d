"""Packs finished runs into results/records/<table>, small enough to be committed:

    python results/keep.py TABLE RUNS... [--primary]

Of each run its record, its configuration, the scores of its evaluation examples (of all metrics, or with --primary of those that are
tested, the two rewards and the KL, to three decimals) and, where it was evaluated along its training, its points and, without --primary, what it said
there; no models, no other responses. The folders stay run directories: `alignbench compare results/records/TABLE` prints the table. The SFT model's row, of which
every run has a copy, is kept once. Paths of this machine are taken out. What is kept already stays, and is skipped, as is a
cell that was made twice.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars
from omegaconf import OmegaConf

from alignbench.errors import UserError
from alignbench.paths import given_path
from alignbench.results.compared.primary import PRIMARY
from alignbench.results.compared.table import GOLD, PROXY
from alignbench.results.compared.training_points import GENERATIONS, KL, LINES, SCORES
from alignbench.results.disk.directory import BASELINE, CONFIG, EXAMPLES, RESULT
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun, find_runs

RECORDS = Path(__file__).resolve().parent / "records"
TABLE = re.compile(r"[a-z][a-z0-9_]*")
DECIMALS = 3
"""Of an example's score, with --primary: half of the bytes are the digits after them, and no table shows those."""


def pack(run: StoredRun, target: Path, *, primary: bool) -> None:
    """The run's files, those of its SFT model aside. The record comes last: where it is, all is."""
    target.mkdir(parents=True, exist_ok=True)
    (target / CONFIG).write_text(_without_paths((run.path / CONFIG).read_text(encoding="utf-8")), encoding="utf-8")
    wanted = _tested(run) if primary else None
    for name in (EXAMPLES, SCORES):
        if (run.path / name).is_file():
            (target / name).write_bytes(_packed((run.path / name).read_bytes(), wanted))
    for name in (LINES, *(() if primary else (GENERATIONS,))):
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, target / name)
    record = json.loads((run.path / RESULT).read_text(encoding="utf-8"))
    (target / RESULT).write_text(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def _tested(run: StoredRun) -> set[str]:
    named = run.settings.get("eval.primary") or PRIMARY
    return {GOLD, PROXY, KL} | {name for entry in named for name in str(entry).split("|")}


def _packed(content: bytes, wanted: set[str] | None) -> bytes:
    """The same rows, as small as Parquet can have them."""
    frame = polars.read_parquet(content)
    if wanted is not None:
        frame = frame.filter(polars.col("metric").is_in(sorted(wanted))).with_columns(
            polars.col("value").round(DECIMALS)
        )
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=22, statistics=False)
    return min(buffer.getvalue(), content, key=len) if wanted is None else buffer.getvalue()


def _without_paths(yaml: str) -> str:
    """A path of this machine becomes its last part: another machine has the data elsewhere, and neither is anybody's business."""
    settings = OmegaConf.create(yaml)
    where = {"results_dir": "results/runs", "cache_dir": ""}
    for key, value in where.items():
        if key in settings:
            OmegaConf.update(settings, key, value)
    plain = OmegaConf.to_container(settings)
    return OmegaConf.to_yaml(OmegaConf.create(_shortened(plain)))  # type: ignore[arg-type]


def _shortened(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def once(baselines: Iterable[StoredRun]) -> list[StoredRun]:
    """Of the copies of an SFT model's row, the one that a table shows: the latest of those with most metrics."""
    return list({_row(run): run for run in sorted(baselines, key=lambda run: run.path.parts)}.values())


def _row(run: StoredRun) -> tuple[object, ...]:
    who = run.record.identity
    values = tuple(sorted((name, metric.value) for name, metric in run.record.metrics.items()))
    return (who.seed, who.config_hash, who.code, who.annotator, who.reward, values)


def _cell(run: StoredRun) -> tuple[object, ...]:
    """Runs that are one cell, made several times: two sweeps at once both made it, say."""
    who = run.record.identity
    return (who.algo, who.config_hash, who.code, who.seed)


def keep(table: str, sources: Sequence[Path], *, primary: bool, records: Path = RECORDS) -> tuple[int, list[StoredRun]]:
    """How many runs are new in `records`/`table`, and the runs that are not finished and were left where they are."""
    found, broken = find_runs(sources)
    for run in broken:
        print(f"{run.path} is left out: {run.reason}.", file=sys.stderr)
    finished = [run for run in found if run.record.status is Status.FINISHED]
    kept = find_runs([records / table])[0] if (records / table).is_dir() else []
    there = {_cell(run): run.path.name for run in kept if not run.record.baseline}
    wanted = []
    for run in (run for run in finished if not run.record.baseline):
        if there.setdefault(_cell(run), run.path.name) == run.path.name:
            wanted.append(run)
    owners = {run.path for run in wanted}  # the SFT model's row of a run that has not finished is nowhere found
    rows = {_row(run) for run in kept if run.record.baseline}
    baselines = (run for run in finished if run.record.baseline and run.path.parent in owners)
    wanted += once(run for run in baselines if _row(run) not in rows)
    new = 0
    for run in wanted:
        owner = run.path.parent.name if run.record.baseline else run.path.name
        target = records / table / owner / (BASELINE if run.record.baseline else "")
        if (target / RESULT).is_file():
            continue
        pack(run, target, primary=primary)
        new += not run.record.baseline
    return new, [run for run in found if run not in finished]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", help="the folder in results/records")
    parser.add_argument("runs", nargs="+", type=given_path, help="run directories, or folders of them")
    parser.add_argument("--primary", action="store_true", help="keep the scores of the metrics that are tested alone")
    options = parser.parse_args(argv)
    if not TABLE.fullmatch(options.table):
        parser.error(f"{options.table!r} names no table: lower-case letters, digits and _, as in world.")
    try:
        new, unfinished = keep(options.table, options.runs, primary=options.primary)
    except UserError as error:
        parser.error(str(error))
    if not new:
        print("Nothing was packed: no finished run was there that is not kept already.")
    size = sum(file.stat().st_size for file in (RECORDS / options.table).rglob("*") if file.is_file())
    print(f"{new} new runs in {RECORDS / options.table}, {size / 2**20:.2f} MiB in all.")
    for run in unfinished:
        print(f"{run.path.name} is {run.record.status.value}: left where it is.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
