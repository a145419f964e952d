"""The results table, before it is drawn: runs of one configuration become one row, its seeds a mean and an interval."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignbench.errors import unknown_name
from alignbench.records import Direction, Metric
from alignbench.results.compared.copies import disagree, trained_as, without_copies
from alignbench.results.compared.statistics import interval
from alignbench.results.disk.environment import counts
from alignbench.results.disk.record import FEEDBACK, Identity, Status
from alignbench.results.disk.runs import BrokenRun, StoredRun

COMPONENTS = ("model", "data", "annotator", "reward")
PROXY, GOLD, GAP = "optimization/proxy_reward", "optimization/gold_reward", "optimization/proxy_gold_gap"
"""The gap is proxy less gold: what a policy that exploits its reward model widens (Gao et al. 2022, arXiv 2210.10760)."""
UNANSWERED, PAST_PEAK = "‡", "†"
MOST_NAMED = 3


@dataclass(frozen=True)
class Cell:
    """`low` to `high`: of 95%, over seeds where `over_seeds`, else over evaluation examples. NaN where unknown.

    `missing` of its `asked` examples have no answer: the value is not that of the whole. `past_peak`: of a run that had been
    significantly better along its training."""

    value: float
    low: float
    high: float
    over_seeds: bool
    missing: int = 0
    asked: int = 0
    past_peak: bool = False

    @property
    def half_interval(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Row:
    """One configuration. `label`: the algorithm, then what sets this row apart from others, one `key=value` each.

    `runs` are those that it stands for, one per seed; `repeats` are the directories of these and of all that were left out for them.
    `unanswered` are metrics of which no seed has a value, for no example was answered: how many were asked.
    Costs are means over the runs, None where no run knows them; a speed of 0, as older records have it, is none."""

    label: tuple[str, ...]
    identity: Identity  # of its first seed
    baseline: bool
    seeds: tuple[int, ...]
    seconds: float
    cells: Mapping[str, Cell]
    tokens_per_second: float | None = None
    peak_memory_bytes: float | None = None
    peak_gpu_memory_bytes: float | None = None
    unanswered: Mapping[str, int] = field(default_factory=dict)
    runs: tuple[StoredRun, ...] = ()
    repeats: frozenset[Path] = frozenset()


@dataclass(frozen=True)
class Table:
    """`incomplete` are runs that did not finish, `notes` what a reader has to know: neither is ever averaged in. `verdict`: what the
    rows' comparisons say, a sentence each."""

    rows: tuple[Row, ...]
    metrics: Mapping[str, Direction]
    incomplete: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Group:
    """The finished runs of one configuration, one per seed; `repeats` as Row's."""

    runs: tuple[StoredRun, ...]
    repeats: frozenset[Path] = frozenset()

    @property
    def first(self) -> StoredRun:
        return self.runs[0]

    @property
    def identity(self) -> Identity:
        return self.first.record.identity

    @property
    def baseline(self) -> bool:
        return self.first.record.baseline


def build_table(runs: Sequence[StoredRun], broken: Sequence[BrokenRun] = (), *, mix_code: bool = False) -> Table:
    """One row per configuration and code, SFT models first; with `mix_code` seeds of different code are one row all the same. What is
    unfinished, mixed or broken is said, not averaged."""
    finished = without_copies(_finished(runs))
    groups, notes = _grouped(finished, mix_code)
    labels = _labels(groups)
    rows = [replace(make_row(g.runs, label), repeats=g.repeats) for g, label in zip(groups, labels, strict=True)]
    rows.sort(key=lambda row: (not row.baseline, [_natural(part) for part in row.label]))
    notes += _mixed([run for group in groups for run in group.runs])
    notes += [f"{run.path}: {run.reason}." for run in broken]
    notes += _unanswered(rows)
    notes += [note for group, label in zip(groups, labels, strict=True) for note in of_fewer_seeds(group.runs, label)]
    return Table(
        rows=tuple(rows),
        metrics=_metrics(run for group in groups for run in group.runs),
        incomplete=tuple(_incomplete(run) for run in runs if run.record.status is not Status.FINISHED),
        notes=tuple(notes),
    )


def _finished(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The SFT model of a run that has not finished is a row where nothing else is: one that was trained otherwise, as by a run that was
    given up, must not keep those that did finish from being compared."""
    found = [run for run in runs if run.record.status is Status.FINISHED]
    if all(run.record.baseline for run in found):
        return found
    given_up = {run.path for run in runs if run.record.status is not Status.FINISHED}
    return [run for run in found if not (run.record.baseline and run.path.parent in given_up)]


def baseline_row(row: Row, table: Table, name: str = "") -> Row | None:
    """The row that `row` is compared with: the one labelled `name`, or the SFT model that it started from.

    Of several SFT models its runs' own, or else the one that has most settings in common with it, and never one that was trained
    otherwise."""
    choices = [other for other in table.rows if (" ".join(other.label) == name if name else other.baseline)]
    if not choices and name and any(other.label[0] == name and other.baseline for other in table.rows):
        return baseline_row(row, table)
    if name and not choices:
        raise unknown_name("row", name, [" ".join(other.label) for other in table.rows])
    if name or row.baseline:
        return choices[0] if choices else None
    own = trained_as(row.runs[0])
    twins = [other for other in choices if trained_as(other.runs[0]) == own]
    settings = {key: str(value) for key, value in row.runs[0].settings.items()}

    def in_common(other: Row) -> tuple[int, int]:
        """An SFT model's row lies in the directory of a run that started from it."""
        own = {path.parent for path in other.repeats}
        same = sum(settings.get(key) == str(value) for key, value in other.runs[0].settings.items())
        return sum(run.path in own for run in row.runs), same

    return max(twins, key=in_common, default=None)


def _grouped(runs: Sequence[StoredRun], mix_code: bool) -> tuple[list[_Group], list[str]]:
    """Groups by everything but the seed. A seed counts once: repeats would shrink the interval.

    Of repeats the latest is taken, of copies of an SFT row the latest of those that hold most metrics: a run without a
    reward model cannot tell the proxy reward of its SFT model."""
    by_row: dict[tuple[object, ...], dict[int, list[StoredRun]]] = defaultdict(lambda: defaultdict(list))
    of_code: dict[tuple[object, ...], dict[str, list[StoredRun]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=_made):
        identity, baseline = run.record.identity, run.record.baseline
        plugin = () if baseline else (identity.algo, identity.plugin, identity.plugin_version)
        row = (baseline, *plugin, _version(identity), identity.config_hash)
        of_code[row][identity.code].append(run)
        by_row[*row, "" if mix_code else identity.code][identity.seed].append(run)
    groups, notes = [], [_of_other_code(found, mix_code) for found in of_code.values() if len(found) > 1]
    for seeds in by_row.values():
        chosen = []
        for seed, repeats in sorted(seeds.items()):
            most = max(len(run.record.metrics) for run in repeats)
            shown = [run for run in repeats if not run.record.baseline or len(run.record.metrics) == most][-1]
            chosen.append(shown)
            differ = any(disagree(shown.record.metrics, repeat.record.metrics) for repeat in repeats)
            # Every run brings its own copy of the SFT row: that is worth a word only where the copies disagree.
            if differ or (len(repeats) > 1 and not shown.record.baseline):
                what = "The numbers differ; the" if differ else "The"
                name = shown.record.identity.algo
                notes.append(f"{name}, seed {seed}: run {len(repeats)} times. {what} latest is shown.")
        everywhere = frozenset(run.path for repeats in seeds.values() for run in repeats)
        groups.append(_Group(tuple(map(_with_gap, chosen)), everywhere))
    return groups, notes


def of_fewer_seeds(runs: Sequence[StoredRun], label: tuple[str, ...]) -> list[str]:
    """Metrics of a row that some of its seeds lack: a mean over fewer than stand below the table."""
    known = Counter(name for run in runs for name in run.record.metrics)
    fewer = [f"{name} ({n})" for name, n in known.items() if n < len(runs)]
    more = f" and {len(fewer) - MOST_NAMED} more" if len(fewer) > MOST_NAMED else ""
    return (
        [f"{' '.join(label)}: of fewer than its {len(runs)} seeds are {', '.join(fewer[:MOST_NAMED])}{more}."]
        if fewer
        else []
    )


def _made(run: StoredRun) -> tuple[str, tuple[str, ...]]:
    """The name of a run begins with the time that it was started at, whichever folder it lies in."""
    return (run.path.parent if run.record.baseline else run.path).name, run.path.parts


def _of_other_code(runs: Mapping[str, Sequence[StoredRun]], mixed: bool) -> str:
    """Of runs that differ in the seed and in the source of what made them, by its digest."""
    said = []
    for code, found in runs.items():
        seeds = sorted({run.record.identity.seed for run in found})
        said.append(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} by code {_code(code)}")
    name = next(iter(runs.values()))[0].record.identity
    what = "pooled all the same" if mixed else "not pooled (compare --mix-code does it)"
    return f"{name.algo_label or name.algo}: {'; '.join(said)}: {what}."


def _code(code: str) -> str:
    return code[:8] or "unknown"


def _with_gap(run: StoredRun) -> StoredRun:
    """With the proxy-gold gap beside its two rewards. Its standard error takes both rewards of each example to know."""
    metrics, silent = run.record.metrics, run.record.unanswered
    if PROXY not in metrics or GOLD not in metrics:
        if (unknown := {PROXY, GOLD} & silent.keys()) and {PROXY, GOLD} <= {*metrics, *silent}:
            lacking = {**silent, GAP: max(silent[name] for name in unknown)}
            return replace(run, record=replace(run.record, unanswered=lacking))
        return run
    proxy, gold = metrics[PROXY], metrics[GOLD]
    unanswered = max(proxy.missing, gold.missing)
    gap = Metric(proxy.value - gold.value, math.nan, min(proxy.n, gold.n), Direction.NEITHER, missing=unanswered)
    return replace(run, record=replace(run.record, metrics={**metrics, GAP: gap}))


def make_row(runs: Sequence[StoredRun], label: tuple[str, ...]) -> Row:
    """The runs of one configuration, one per seed, as a row."""
    records = [run.record for run in runs]
    names = dict.fromkeys(name for record in records for name in record.metrics)
    unanswered = sum((Counter(record.unanswered) for record in records), Counter[str]())
    cells = {}
    for name in names:
        metrics = [record.metrics[name] for record in records if name in record.metrics]
        low, high = interval(metrics)
        missing = sum(metric.missing for metric in metrics) + unanswered.pop(name, 0)
        asked = missing + sum(metric.n for metric in metrics)
        value = math.fsum(metric.value for metric in metrics) / len(metrics)
        cells[name] = Cell(value, low, high, len(metrics) > 1, missing, asked)
    seconds = math.fsum(s for record in records for s in record.cost.seconds.values()) / len(records)
    seeds = tuple(record.identity.seed for record in records)
    return Row(
        label,
        records[0].identity,
        records[0].baseline,
        seeds,
        seconds,
        cells,
        tokens_per_second=_mean(record.cost.tokens_per_second or None for record in records),
        peak_memory_bytes=_mean([record.cost.peak_memory_bytes for record in records]),
        peak_gpu_memory_bytes=_mean([record.cost.peak_gpu_memory_bytes for record in records]),
        unanswered=dict(unanswered),
        runs=tuple(runs),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _labels(groups: Sequence[_Group]) -> list[tuple[str, ...]]:
    """Each row's algorithm and the settings that set it apart.

    A component's settings are compared only among rows that use it: `algo.kl_coef` says nothing against DPO."""
    identities = list(enumerate(group.identity for group in groups))
    differing = [
        *(
            _differing({i: (chosen, None) for i, identity in identities if (chosen := getattr(identity, kind))}, kind)
            for kind in COMPONENTS
        ),
        *(_differing(_candidates(groups, key), key.removeprefix("algo.")) for key in _keys(groups)),
        _differing({i: (_version(identity), None) for i, identity in identities}, "alignbench"),
    ]
    labels = []
    for i, group in enumerate(groups):
        parts = [found[i] for found in differing if i in found]
        labels.append((group.identity.algo_label or group.identity.algo, *parts))
    for tie_break in _TIE_BREAKS:
        said: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for label, group in zip(labels, groups, strict=True):
            said[label].add(tie_break(group.identity))
        labels = [
            (*label, tie_break(group.identity)) if len(said[label]) > 1 else label
            for label, group in zip(labels, groups, strict=True)
        ]
    return labels


_TIE_BREAKS: tuple[Callable[[Identity], str], ...] = (
    lambda who: f"{who.plugin} {who.plugin_version}",
    lambda who: who.config_hash,
    lambda who: f"code={_code(who.code)}",
)


_ABSENT = object()


def _version(identity: Identity) -> str | None:
    return identity.packages.get("alignbench")


def _keys(groups: Sequence[_Group]) -> list[str]:
    """Settings that are not the same everywhere: of a hundred a few, and only they are looked at row by row."""
    keys = dict.fromkeys(key for group in groups for key in group.first.settings)
    shown = [key for key in keys if key not in ("algo", *COMPONENTS) and counts(key)]
    settings = [group.first.settings for group in groups]
    return [key for key in shown if any(s.get(key, _ABSENT) != settings[0].get(key, _ABSENT) for s in settings)]


def _candidates(groups: Sequence[_Group], key: str) -> dict[int, tuple[Any, object]]:
    """Rows that the setting applies to: its value, and the component among whose rows it is compared."""
    kind = key.partition(".")[0]
    found = {}
    for i, group in enumerate(groups):
        component = getattr(group.identity, kind) if kind in ("algo", *COMPONENTS) else "any"
        if key in group.first.settings and component and not (group.baseline and kind == "algo"):
            found[i] = (group.first.settings[key], component)
    return found


def _differing(candidates: Mapping[int, tuple[Any, object]], name: str) -> dict[int, str]:
    """`name=value` for the rows whose peers do not all have the same value."""
    values: dict[object, set[str]] = defaultdict(set)
    for value, component in candidates.values():
        values[component].add(_text(value))
    return {i: f"{name}={_text(v)}" for i, (v, component) in candidates.items() if len(values[component]) > 1}


def _text(value: Any) -> str:
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else f"…{text[-39:]}"


def _metrics(runs: Iterable[StoredRun]) -> dict[str, Direction]:
    """All metrics in the order of the run that has most of them, families kept together."""
    found: dict[str, dict[str, Direction]] = defaultdict(dict)
    different = {tuple(run.record.metrics): run for run in runs}.values()
    for run in sorted(different, key=lambda run: -len(run.record.metrics)):
        for name, metric in run.record.metrics.items():
            found[name.partition("/")[0]].setdefault(name, metric.direction)
    return {name: direction for family in found.values() for name, direction in family.items()}


def _incomplete(run: StoredRun) -> str:
    record = run.record
    hint = " (or killed)" if record.status is Status.RUNNING else ""
    return f"{run.path.name}: {record.status.value}{hint}" + (f", {record.error}" if record.error else "")


def _mixed(runs: Sequence[StoredRun]) -> list[str]:
    """One line on what was not the same everywhere, beside the configuration."""
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        identity = run.record.identity
        found["git commit"].add((identity.git_commit or "none")[:12])
        for name, value in {**identity.packages, **identity.hardware}.items():
            found[name].add(value)
        if "device" in run.settings:
            found["device"].add(str(run.settings["device"]))
        for name, count in run.record.counts.items():
            if name.startswith(f"{FEEDBACK}/"):  # each seed samples its own
                continue
            found[f"number of {name}"].add(str(count))
    mixed = [f"{name} ({', '.join(sorted(values))})" for name, values in found.items() if len(values) > 1]
    return [f"Not the same in all runs: {'; '.join(mixed)}."] if mixed else []


def _unanswered(rows: Sequence[Row]) -> list[str]:
    found = [(row, name, cell.missing, cell.asked) for row in rows for name, cell in row.cells.items() if cell.missing]
    found += [(row, name, asked, asked) for row in rows for name, asked in row.unanswered.items()]
    return [
        f"{UNANSWERED} {name} of {' '.join(row.label)}: {missing} of {asked} examples have no answer; not compared."
        for row, name, missing, asked in found
    ]


def _natural(text: str) -> list[tuple[int, float, str]]:
    """Sorts `kl_coef=0.02` before `kl_coef=0.2`, and 9 before 10."""
    pieces = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return [(0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(pieces) if p]
