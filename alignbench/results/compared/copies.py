"""Which runs measured the same SFT model: every run brings a row of its own of the one that it started from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from alignbench.records import Metric
from alignbench.results.disk.environment import counts
from alignbench.results.disk.runs import StoredRun

SFT_PARTS = ("pretrain", "sft", "model", "data", "eval")  # what an SFT model and its responses depend on


def without_copies(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Leaves out SFT rows of runs without a reward where runs with one bring the same SFT models: beside DPO they cannot tell the proxy
    reward, beside PPO they can. Copies that disagree stay, and stand apart; so do all seeds of a row of which one has no copy."""
    if len({bool(run.record.identity.reward) for run in runs if run.record.baseline}) < 2:
        return list(runs)
    models: dict[tuple[int, str], tuple[object, ...]] = {}

    def model(run: StoredRun) -> tuple[object, ...]:
        identity = run.record.identity
        key = identity.seed, identity.config_hash
        if key not in models:  # runs that differ in the algorithm alone share it
            models[key] = (identity.seed, *trained_as(run))
        return models[key]

    scored: dict[tuple[object, ...], list[StoredRun]] = defaultdict(list)
    for run in runs:
        if run.record.baseline and run.record.identity.reward:
            scored[model(run)].append(run)

    def copied(run: StoredRun) -> bool:
        twins = scored[model(run)] if run.record.baseline and not run.record.identity.reward else []
        return any(not disagree(run.record.metrics, twin.record.metrics) for twin in twins)

    def of_row(run: StoredRun) -> tuple[str, str]:
        return run.record.identity.config_hash, run.record.identity.code

    alone = {of_row(run) for run in runs if not copied(run)}
    return [run for run in runs if of_row(run) in alone]


def trained_as(run: StoredRun) -> list[tuple[str, str]]:
    settings = run.settings.items()
    return sorted((key, str(value)) for key, value in settings if key.partition(".")[0] in SFT_PARTS and counts(key))


def disagree(one: Mapping[str, Metric], other: Mapping[str, Metric]) -> bool:
    return any(one[name].value != other[name].value for name in one.keys() & other.keys())
