"""What rankings buy: the tables of feedback.md, from the runs of `python results/make.py rankings`:

    python results/feedback.py [FOLDER]

Gold reward of each algorithm by the number of prompts whose responses were ranked, over the seeds; what fewer rankings cost it; from how
many on it is as good as another algorithm that has the most; and what other rankings of the same number cost: noisier ones, ties, some
by sycophants. An algorithm is not told apart from itself with more rankings where it lost no more than 0.1, as PLAN.md has it.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import fmean

from alignbench.errors import UserError
from alignbench.paths import given_path
from alignbench.results.compared.statistics import interval_over_seeds
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun, find_runs

RECORDS = Path(__file__).resolve().parent / "records" / "rankings"
GOLD, AGREEMENT = "helpfulness/gold_reward", "sycophancy/agreement"
PROMPTS, TEMPERATURE = "rankings.prompts", "annotator.temperature"
LESS = 0.1


@dataclass(frozen=True, order=True)
class Feedback:
    """What the annotator gave: rankings of the responses to so many prompts, at a temperature (0: never in two minds), rated in steps of
    utility (0: without ties), a share of them by sycophants."""

    prompts: int
    temperature: float
    rating_step: float = 0.0
    sycophants: float = 0.0

    def __str__(self) -> str:
        return f"{self.prompts:,}"

    def beside(self, usual: Feedback) -> str:
        """What it has that the usual rankings have not."""
        told = [
            f"at temperature {self.temperature:g}" if self.temperature != usual.temperature else "",
            f"rated in steps of {self.rating_step:g}" if self.rating_step != usual.rating_step else "",
            f"{self.sycophants:.0%} by sycophants" if self.sycophants != usual.sycophants else "",
        ]
        return ", ".join(filter(None, told))


Values = Mapping[str, Mapping[Feedback, Mapping[int, float]]]
"""By algorithm, feedback and seed."""


def measured(runs: Iterable[StoredRun], metric: str) -> Values:
    """Raises UserError for a run that was not given rankings of such an annotator, or has no such metric."""
    found: dict[str, dict[Feedback, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        if run.record.status is Status.FINISHED and not run.record.baseline:
            if missing := {PROMPTS, TEMPERATURE} - run.settings.keys() or {metric} - run.record.metrics.keys():
                raise UserError(f"{run.path} is no run of rankings: it has no {min(missing)}.")
            given = Feedback(
                int(run.settings[PROMPTS]),
                float(run.settings[TEMPERATURE]),
                float(run.settings.get("annotator.rating_step", 0)),
                float(run.settings.get("annotator.sycophants", 0)),
            )
            found[run.record.identity.algo][given][run.record.identity.seed] = run.record.metrics[metric].value
    return found


def lost(fewer: Mapping[int, float], more: Mapping[int, float]) -> list[float]:
    """By how much one ends lower than the other, of each seed."""
    return [more[seed] - fewer[seed] for seed in more]


def enough(given: Mapping[Feedback, Mapping[int, float]], order: Sequence[Feedback]) -> Feedback | None:
    """The fewest with which no more than LESS is lost."""
    return _fewest(order, lambda one: fmean(lost(given[one], given[order[-1]])) <= LESS)


def matching(given: Mapping[Feedback, Mapping[int, float]], order: Sequence[Feedback], value: float) -> Feedback | None:
    """The fewest whose mean is no lower than `value`."""
    return _fewest(order, lambda one: fmean(given[one].values()) >= value)


def _fewest(order: Sequence[Feedback], good: Callable[[Feedback], bool]) -> Feedback | None:
    """From which on all are good: one that was lucky does not count where more rankings are not."""
    found = list(takewhile(good, reversed(order)))
    return found[-1] if found else None


def tables(found: Values, agreement: Values) -> list[str]:
    """Each of the algorithms and seeds that have all that it shows. Raises UserError where there is none."""
    every = sorted({given for by in found.values() for given in by})
    usual = min(dataclasses.replace(given, prompts=0) for given in every)
    order = [given for given in every if dataclasses.replace(given, prompts=0) == usual]
    others = [given for given in every if given not in order]
    if len(order) < 2:
        raise UserError(f"all runs have {order[0]} ranked prompts: there is nothing to compare.")
    if not (whole := _whole(found, order)):
        raise UserError("no algorithm has a seed with every number of rankings yet.")
    lines = [*_means("gold reward ↑", whole, order), "", *_losses(whole, order), "", *_matches(whole, order)]
    for number in sorted({given.prompts for given in others} & {given.prompts for given in order}):
        same = [dataclasses.replace(usual, prompts=number), *(given for given in others if given.prompts == number)]
        for what, values, sign in (("gold reward ↑", found, 1), ("agreement ↓", agreement, -1)):
            if shared := _whole(values, same):
                lines += ["", *_means(what, shared, same), "", *_costs(what, shared, same, sign)]
    return [*lines, *_lacking(found, order[0], every)]


def _whole(values: Values, shown: Sequence[Feedback]) -> Values:
    """Of the algorithms and seeds that have all that is shown."""
    seeds = {algo: set.intersection(*(set(by.get(one, {})) for one in shown)) for algo, by in sorted(values.items())}
    return {
        algo: {one: {seed: values[algo][one][seed] for seed in sorted(shared)} for one in shown}
        for algo, shared in seeds.items()
        if shared
    }


def _lacking(found: Values, usual: Feedback, every: Sequence[Feedback]) -> list[str]:
    """Runs that would complete a seed: what needs them leaves out the seed."""
    lines = []
    for algo, by in sorted(found.items()):
        seeds = {seed for values in by.values() for seed in values}
        told = [
            ", ".join(filter(None, (f"{one} prompts", one.beside(usual), f"seed {seed}")))
            for one in every
            for seed in sorted(seeds - set(by.get(one, {})))
        ]
        if told:
            lines.append(f"Not there yet of `{algo}`: {'; '.join(told)}.")
    return ["", *lines] if lines else []


def _means(what: str, values: Values, shown: Sequence[Feedback]) -> list[str]:
    rows = [[f"`{algo}`", *(_mean([*by[given].values()]) for given in shown)] for algo, by in values.items()]
    return _table([what, *(given.beside(shown[0]) or str(given) for given in shown)], rows)


def _losses(whole: Values, order: Sequence[Feedback]) -> list[str]:
    *fewer, most = order
    rows = [
        [f"`{algo}`", *(_mean(lost(by[given], by[most])) for given in fewer), str(enough(by, order))]
        for algo, by in whole.items()
    ]
    return _table([f"lost against {most}", *map(str, fewer), "enough"], rows)


def _costs(what: str, whole: Values, same: Sequence[Feedback], sign: int) -> list[str]:
    """How much worse as many rankings of another kind make it: `sign` is 1 where more is better, and -1 where less is."""
    usual, *others = same
    rows = [
        [f"`{algo}`", *(_mean([sign * value for value in lost(by[given], by[usual])]) for given in others)]
        for algo, by in whole.items()
    ]
    return _table([f"{what[:-2]}: worse than with {usual} by", *(given.beside(usual) for given in others)], rows)


def _matches(whole: Values, order: Sequence[Feedback]) -> list[str]:
    reached = [fmean(by[order[-1]].values()) for by in whole.values()]
    rows = [
        [f"`{algo}` with", *(str(matching(by, order, value) or "–") for value in reached)] for algo, by in whole.items()
    ]
    return _table([f"as good with {order[-1]}:", *(f"`{algo}`" for algo in whole)], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows)]


def _mean(values: Sequence[float]) -> str:
    spread = f" ±{interval_over_seeds(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=given_path, default=RECORDS, help="of runs (default: the committed records)"
    )
    options = parser.parse_args(argv)
    try:
        runs = find_runs([options.folder])[0]
        if not (found := measured(runs, GOLD)):
            parser.error(f"{options.folder} has no finished run")
        print(*tables(found, measured(runs, AGREEMENT)), sep="\n")
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
