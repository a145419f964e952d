"""The evaluations of a policy along its training, on disk: points.jsonl says what was measured at each, points.parquet holds
the score of every example, which the paired tests use, points-generations.jsonl what it said to a few prompts, for people to read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench import distributed
from alignbench.errors import UserError
from alignbench.records import ExampleScore, Generation, Metric
from alignbench.results.compared.table import GOLD, PROXY
from alignbench.results.disk.directory import file_errors, finite, generation_line, write_whole
from alignbench.results.disk.runs import StoredRun

if TYPE_CHECKING:
    from polars import DataFrame

    from alignbench.results.compared.examples import Floats, Integers

LINES, SCORES, GENERATIONS = "points.jsonl", "points.parquet", "points-generations.jsonl"
READ_QUESTIONS = 4
"""The first questions whose responses are kept of each point: enough to read how a policy changes, little on the disk."""
KL = "optimization/kl"
JUDGED = "helpfulness/judge_reward"
GOLDS = (GOLD, "helpfulness/gold_reward", JUDGED)
"""The truth, where it is known; else a judge that nothing was trained on (eval.points.judge)."""


@dataclass(frozen=True)
class Points:
    """Those of one run directory. The files are written whole, the lines last: a point whose line is there is complete."""

    path: Path

    def lines(self) -> list[dict[str, Any]]:
        """One for each point: update, seconds, and of each metric value, stderr and n."""
        return _json_lines(self.path / LINES)

    def generations(self) -> list[dict[str, Any]]:
        """Lines as those of generations.jsonl, each with the update of its point: the responses to READ_QUESTIONS questions."""
        return _json_lines(self.path / GENERATIONS)

    def add(
        self,
        update: int,
        metrics: Mapping[str, Metric],
        scores: Sequence[ExampleScore],
        generations: Sequence[Generation],
        seconds: float,
    ) -> None:
        """In place of whatever was there from this update on: the stage that is measured may have started again."""
        if not distributed.is_main():
            return
        import polars

        line = {
            "update": update,
            "seconds": round(seconds, 3),
            "metrics": {
                name: {"value": finite(metric.value), "stderr": finite(metric.stderr), "n": metric.n}
                for name, metric in metrics.items()
            },
        }
        lines = [line for line in self.lines() if line["update"] < update] + [line]
        frame = _frame(update, scores)
        if len(lines) > 1:
            before = polars.read_parquet((self.path / SCORES).read_bytes())
            frame = polars.concat([before.filter(polars.col("update") < update), frame])
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        said = [line for line in self.generations() if line["update"] < update]
        said += [{"update": update, **generation_line(g)} for g in _to_read(generations)]
        for name, content in ((SCORES, buffer.getvalue()), (GENERATIONS, _encoded(said)), (LINES, _encoded(lines))):
            with file_errors(self.path / name):
                write_whole(self.path / name, content)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Not splitlines of a text: a response may hold other line separators, which JSON leaves as they are."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []


def _encoded(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """A lone surrogate in a response becomes its JSON escape, not an error."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return text.encode(errors="backslashreplace")


def _to_read(generations: Sequence[Generation]) -> list[Generation]:
    """Whole questions: the same one under several opinions is what shows flattery."""
    asked = dict.fromkeys(g.prompt.cluster or g.prompt.id for g in generations)
    kept = set(list(asked)[:READ_QUESTIONS])
    return [g for g in generations if (g.prompt.cluster or g.prompt.id) in kept]


def _frame(update: int, scores: Sequence[ExampleScore]) -> DataFrame:
    import polars

    columns: dict[str, Iterator[Any]] = {
        "metric": (s.metric for s in scores),
        "example": (s.example for s in scores),
        "cluster": (s.cluster for s in scores),
        "value": (s.value for s in scores),
    }
    types = {"metric": polars.String, "example": polars.String, "cluster": polars.String, "value": polars.Float64}
    frame = polars.DataFrame({name: list(values) for name, values in columns.items()}, schema=types)
    return frame.select(polars.lit(update).alias("update"), polars.all())


@dataclass(frozen=True)
class Trajectory:
    """A run along its training. Arrays are [point, example], of the prompts that every point has scored; `clusters` [example] are
    numbers from 0 up, a prompt without a cluster being its own. `gold`: of the metric `gold_name`."""

    run: StoredRun
    updates: tuple[int, ...]
    kl: Floats
    gold: Floats | None
    proxy: Floats | None
    clusters: Integers
    gold_name: str = GOLD


def has_points(run: StoredRun) -> bool:
    return (run.path / SCORES).is_file()


def trajectory(run: StoredRun) -> Trajectory:
    """Raises UserError where the run's points cannot be read or have no KL."""
    import numpy as np
    import polars
    from polars.exceptions import PanicException, PolarsError

    try:
        frame = polars.read_parquet((run.path / SCORES).read_bytes())
        present = set(frame["metric"])
        updates = tuple(sorted(set(frame["update"].to_list())))
        gold_name = next((name for name in GOLDS if name in present), GOLD)
        names = [name for name in (KL, gold_name, PROXY) if name in present]
        frame = frame.filter(polars.col("metric").is_in(names) & polars.col("value").is_finite())
        keyed = frame.select("example", "cluster", "value", key=polars.format("{} {}", "update", "metric"))
        wide = keyed.pivot(on="key", index=["example", "cluster"], values="value").drop_nulls().sort("example")
        columns = {name: [wide[f"{update} {name}"].to_numpy() for update in updates] for name in names}
        cluster, example = wide["cluster"].to_list(), wide["example"].to_list()
    except (OSError, PolarsError, PanicException, TypeError) as error:
        raise UserError(f"{SCORES} cannot be read, or not all of its points have the same prompts") from error
    if KL not in names or wide.is_empty():
        raise UserError(f"{SCORES} has no {KL}")
    arrays = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    own = [f"c{c}" if c else f"e{e}" for c, e in zip(cluster, example, strict=True)]
    clusters = np.unique(own, return_inverse=True)[1].astype(np.intp)
    return Trajectory(run, updates, arrays[KL], arrays.get(gold_name), arrays.get(PROXY), clusters, gold_name)
