"""The scores of evaluation examples, from the examples.parquet of many runs: what differences are computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.errors import UserError
from alignbench.results.compared.table import GAP, GOLD, PROXY
from alignbench.results.disk.directory import EXAMPLES

if TYPE_CHECKING:
    import numpy as np
    from polars import DataFrame

    from alignbench.results.disk.runs import StoredRun

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Integers = np.ndarray[Any, np.dtype[np.intp]]

RUN = "run"
COLUMNS = ("metric", "example", "cluster", "value")


@dataclass(frozen=True)
class Scores:
    """One metric. `values` [run, example], NaN where a run has no such example; `clusters` [example]: numbers from 0 up,
    an example without a cluster being its own; `rows`: where each run's directory stands in `values`. `mixed` are runs that were
    not made: means of two, whose scores of single examples spread less than those of a run."""

    rows: Mapping[Path, int]
    values: Floats
    clusters: Integers
    mixed: frozenset[Path] = frozenset()

    def of(self, runs: Iterable[StoredRun]) -> list[int]:
        """The rows of these runs; without those that have no scores."""
        return [self.rows[run.path] for run in runs if run.path in self.rows]


@dataclass(frozen=True)
class Examples:
    """The scores of each metric, and one line on each run that has none."""

    scores: Mapping[str, Scores]
    problems: tuple[str, ...] = ()


def read_examples(runs: Iterable[StoredRun]) -> Examples:
    """Reads what can be read: a run without a sound examples.parquet is named in `problems`."""
    import polars  # a third of a second to import, which a table of one row need not wait for

    frames: list[DataFrame] = []
    paths: list[Path] = []
    problems: list[str] = []
    for run in runs:
        try:
            frame = _read(run.path / EXAMPLES)
        except UserError as error:
            problems.append(f"{run.path}: {error}; it is left out of all differences.")
            continue
        frames.append(frame.with_columns(polars.lit(len(paths)).alias(RUN)))
        paths.append(run.path)
    return Examples(dict(_by_metric(polars.concat(frames), paths)) if frames else {}, tuple(problems))


def _read(path: Path) -> DataFrame:
    import polars
    from polars.exceptions import PanicException, PolarsError

    if not path.is_file():
        raise UserError(f"no {path.name}")
    try:
        # From memory: a mapped file that somebody cuts off kills the process.
        frame = polars.read_parquet(path.read_bytes(), columns=list(COLUMNS))
        frame = frame.cast({"metric": polars.String, "example": polars.String, "cluster": polars.String})
        frame = frame.cast({"value": polars.Float64}).with_columns(polars.col("cluster").fill_null(""))
    except (OSError, PolarsError, PanicException) as error:
        raise UserError(f"{path.name} cannot be read, perhaps cut off") from error
    if frame.null_count().sum_horizontal().item() or frame["value"].is_infinite().any():
        raise UserError(f"{path.name} has values that are missing or not finite")
    frame = frame.filter(polars.col("value").is_not_nan())  # asked for, and not answered
    if frame.select("metric", "example").is_duplicated().any():
        raise UserError(f"{path.name} has two scores of one metric for one example")
    return polars.concat([frame, _gaps(frame)])


def _gaps(frame: DataFrame) -> DataFrame:
    """The proxy-gold gap of each example that has both rewards."""
    import polars

    proxy, gold = (frame.filter(polars.col("metric") == name) for name in (PROXY, GOLD))
    both = proxy.join(gold.select("example", gold="value"), on="example")
    return both.select(polars.lit(GAP).alias("metric"), "example", "cluster", polars.col("value") - polars.col("gold"))


def _by_metric(frame: DataFrame, paths: list[Path]) -> Iterator[tuple[str, Scores]]:
    import numpy as np
    import polars

    own_or_shared = polars.when(polars.col("cluster") == "").then("e" + polars.col("example"))
    frame = frame.with_columns(own_or_shared.otherwise("c" + polars.col("cluster")).alias("cluster"))
    for part in frame.partition_by("metric", maintain_order=True):
        examples = (part["example"].rank("dense") - 1).to_numpy().astype(np.intp)
        present, run = np.unique(part[RUN].to_numpy(), return_inverse=True)
        values = np.full((len(present), examples.max() + 1), np.nan)
        values[run, examples] = part["value"].to_numpy()
        clusters = np.empty(values.shape[1], dtype=np.intp)
        clusters[examples] = (part["cluster"].rank("dense") - 1).to_numpy()
        # Of an example that two runs put into different clusters the last counts: numbered anew, without holes.
        clusters = np.unique(clusters, return_inverse=True)[1]
        yield part["metric"][0], Scores({paths[i]: row for row, i in enumerate(present)}, values, clusters)
