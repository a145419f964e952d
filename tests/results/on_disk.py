"""Run directories for tests, written as a run writes them."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from alignbench import Direction, ExampleScore, Metric, MetricSpec
from alignbench.commands.cli import run_command
from alignbench.results.compared.statistics import summarise
from alignbench.results.compared.table import Row, Table, build_table
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.environment import config_hash
from alignbench.results.disk.record import Cost, Identity, RunRecord, Status
from alignbench.results.disk.runs import find_runs

HIGHER, NEITHER = Direction.HIGHER, Direction.NEITHER
_number = itertools.count()


def compare(arguments: Sequence[str]) -> int:
    """`alignbench compare` with these arguments: its exit code."""
    return run_command(["compare", *arguments])


def measured(value: float, stderr: float, n: int, direction: Direction, **more) -> Metric:
    """A metric of n examples, each its own cluster, with an interval of twice the standard error to each side."""
    return Metric(value, stderr, n, direction, clusters=n, low=value - 2 * stderr, high=value + 2 * stderr, **more)


def write(folder: Path, settings: dict, value: float = 1.0, *, baseline: bool = False, **changes) -> RunDirectory:
    """A run of `settings` with one metric, `helpfulness/accuracy`, unless `metrics` are given."""
    seed, algo = settings.get("seed", 0), "sft" if baseline else settings.get("algo", {}).get("name", "ppo")
    fields = {
        "algo": algo, "plugin": "alignbench", "plugin_version": "0.1.0", "model": "tiny", "data": "world",
        "annotator": "mild", "reward": None, "seed": seed, "git_commit": "c0ffee", "packages": {}, "hardware": {},
        "config_hash": config_hash(settings, leave_out=("algo",) if baseline else ()), "code": "",
    }  # fmt: skip
    identity = Identity(**{k: changes.pop(k, v) for k, v in fields.items()}, algo_label=changes.pop("algo_label", ""))
    record = RunRecord("run", Status.FINISHED, identity, Cost({"sft": 10.0, "algo": 20.0}), baseline=baseline)
    metrics = {"helpfulness/accuracy": measured(value, 0.05, 100, HIGHER)}
    path = folder / f"run-{next(_number):03}"
    path.mkdir(parents=True)
    directory = RunDirectory(path)
    directory.write_config(json.dumps(settings))  # JSON is YAML
    directory.write_record(dataclasses.replace(record, **{"metrics": metrics, **changes}))
    return directory


def write_with_baseline(
    folder: Path, settings: dict, value: float, sft_value: float = 0.5, code: str = ""
) -> RunDirectory:
    run = write(folder, settings, value, code=code)
    sft = write(folder, settings, sft_value, baseline=True, code=code and f"sft{code}")
    sft.path.rename(run.path / "sft")
    return run


def table_of(folder: Path) -> Table:
    return build_table(*find_runs([folder]))


def row(table: Table, *label: str) -> Row:
    (found,) = [r for r in table.rows if r.label == label]
    return found


def ppo(kl: float = 0.1, seed: int = 0, **more) -> dict:
    return {"algo": {"name": "ppo", "kl_coef": kl}, "eval": {"prompts": 600}, "seed": seed, **more}


def dpo(seed: int = 0) -> dict:
    return {"algo": {"name": "dpo", "beta": 0.1}, "eval": {"prompts": 600}, "seed": seed}


def write_scores(run: RunDirectory, metric: str, values: Sequence[float], clusters: Sequence[str] = ()) -> None:
    """Adds examples to the run, and the metric that they make to its record."""
    import polars

    path, scores = run.path / "examples.parquet", [
        ExampleScore(metric, f"e{i}", v, clusters[i] if clusters else "") for i, v in enumerate(values)
    ]  # fmt: skip
    old = [ExampleScore(**row) for row in polars.read_parquet(path).to_dicts()] if path.exists() else []
    run.write_examples([*old, *scores])
    record = RunRecord.from_json((run.path / "result.json").read_text())
    found = summarise(scores, [MetricSpec(metric, HIGHER)])
    run.write_record(dataclasses.replace(record, metrics={**record.metrics, **found}))
