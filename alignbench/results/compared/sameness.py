"""How alike the responses of two rows are: the same prompts, another algorithm.

Alignment narrows what one model says, and it may narrow what different models say to the same thing (Jiang et al. 2025, arXiv
2510.22954, measure both, by embeddings). Here two texts are as alike as BLEU says, each against the other, or the same or not.

Of a prompt, with k(x, y) how alike two texts are: `between` is the mean k of a response of one row and one of the other, `within`
that of two responses of one row, and `apart` = (within of one + within of the other) / 2 - between. Two rows that are one
distribution are 0 apart on average, whatever their diversity; for a kernel k it is half the unbiased estimate of the squared
maximum mean discrepancy (Gretton et al. 2012, JMLR 13, 723-773).

Runs are evaluated under the same chances: response i of one and response i of another share theirs, and are alike for that alone.
So no two responses of the same index are compared.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alignbench.errors import UserError, reason_of
from alignbench.records import Direction, ExampleScore, Metric, MetricSpec
from alignbench.results.compared.statistics import summarise
from alignbench.results.compared.table import Table
from alignbench.results.disk.directory import GENERATIONS
from alignbench.results.disk.runs import StoredRun

PROMPTS = 150
"""The prompts compared, the same ones for every pair of rows: BLEU is slow."""
MOST_ROWS = 12


@dataclass(frozen=True)
class Alike:
    """Two rows. Metrics are means over prompts, with their intervals: `same` and `between` of pairs across the rows, `within` of
    those inside each."""

    rows: tuple[str, str]
    same: Metric
    between: Metric
    within: tuple[Metric, Metric]
    apart: Metric


@dataclass(frozen=True)
class _Answers:
    """To one prompt, which `messages` tell from another of its name: by the number of the response."""

    messages: str
    cluster: str
    texts: Mapping[int, str]


_Run = Mapping[str, _Answers]


def sameness(table: Table) -> tuple[list[Alike], list[str]]:
    """The seeds of each row that has several, every pair of rows, and a line on each that cannot be compared. Raises UserError where none
    can."""
    if len(table.rows) > MOST_ROWS:
        raise UserError(
            f"--sameness compares every pair of at most {MOST_ROWS} rows, and here are {len(table.rows)}: choose with --only, "
            "or name the runs."
        )
    answers = {" ".join(row.label): [_read(run) for run in row.runs] for row in table.rows}
    compared = {
        **{(name, f"{name}, other seeds"): _seeds(runs) for name, runs in answers.items() if len(runs) > 1},
        **{
            (one, other): list(itertools.product(answers[one], answers[other]))
            for one, other in itertools.combinations(answers, 2)
        },
    }
    found, problems = [], []
    for names, couples in compared.items():
        if pair := _alike(names, couples):
            found.append(pair)
        else:
            problems.append(
                f"{names[0]} and {names[1]} have no prompt that both answered twice or more (eval.samples=2)."
            )
    if problems and not found and not any((run.path / GENERATIONS).is_file() for row in table.rows for run in row.runs):
        raise UserError(f"--sameness reads the responses ({GENERATIONS}), and none of these runs has kept any.")
    if not found:
        raise UserError(f"--sameness: {problems[0] if problems else 'there are not two rows to compare.'}")
    return found, problems


def alike(one: str, other: str) -> float:
    """BLEU of each text against the other, the mean of both: 1 for the same text, 0 for texts that share no word."""
    return 1.0 if one == other else _alike_in_order(*sorted((one, other)))


@functools.lru_cache(maxsize=1 << 16)
def _alike_in_order(one: str, other: str) -> float:
    if not one or not other:
        return 0.0
    score = _bleu().sentence_score
    both: float = score(one, [other]).score + score(other, [one]).score
    return min(both, 200.0) / 200


@functools.cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


def _alike(names: tuple[str, str], couples: Sequence[tuple[_Run, _Run]]) -> Alike | None:
    """Of runs of one row, each with one of the other."""
    scores: list[ExampleScore] = []
    sides = [list({id(couple[side]): couple[side] for couple in couples}.values()) for side in (0, 1)]
    for prompt in _common([*sides[0], *sides[1]])[:PROMPTS]:
        pairs = [pair for one, other in couples for pair in _across(one[prompt].texts, other[prompt].texts)]
        inside = [
            fmean(alike(*pair) for run in runs for pair in _across(run[prompt].texts, run[prompt].texts))
            for runs in sides
        ]
        between = fmean(itertools.starmap(alike, pairs))
        values = {
            "same": fmean(a == b for a, b in pairs),
            "between": between,
            "one": inside[0],
            "other": inside[1],
            "apart": fmean(inside) - between,
        }
        cluster = sides[0][0][prompt].cluster
        scores += [ExampleScore(name, prompt, value, cluster) for name, value in values.items()]
    if not scores:
        return None
    names_of = ("same", "between", "one", "other", "apart")
    found = summarise(scores, [MetricSpec(name, Direction.NEITHER) for name in names_of])
    return Alike(names, found["same"], found["between"], (found["one"], found["other"]), found["apart"])


def _seeds(runs: Sequence[_Run]) -> list[tuple[_Run, _Run]]:
    """Every two in both orders, so that both sides are all of them."""
    return list(itertools.permutations(runs, 2))


def _across(mine: Mapping[int, str], theirs: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """Pairs of responses that share no chance."""
    return ((a, b) for (i, a), (j, b) in itertools.product(mine.items(), theirs.items()) if i != j)


def _common(runs: Sequence[_Run]) -> list[str]:
    """Prompts that all runs answered at least twice, in an order that nobody chose."""
    shared = [
        name
        for name in (runs[0] if runs else {})
        if all(name in run and len(run[name].texts) > 1 for run in runs)
        and len({run[name].messages for run in runs}) == 1
    ]
    return sorted(shared, key=lambda name: hashlib.sha256(name.encode(errors="replace")).digest())


def _read(run: StoredRun) -> _Run:
    """The responses to the data's prompts, of which log-probabilities were taken; where there are none, those to questionnaires."""
    lines = list(_lines(run))
    measured = [line for line in lines if line.get("logprob") is not None]
    found: dict[str, _Answers] = {}
    for line in measured or lines:
        messages = json.dumps(line["messages"])
        answers = found.setdefault(line["prompt"], _Answers(messages, str(line.get("cluster") or ""), {}))
        answers.texts.setdefault(int(line["index"]), line["response"])  # type: ignore[attr-defined]
    return found


def _lines(run: StoredRun) -> Iterator[dict[str, Any]]:
    path = run.path / GENERATIONS
    number = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, 1):  # noqa: B007 (named in the error)
                line = json.loads(text)
                if not isinstance(line["prompt"], str) or not isinstance(line["response"], str):
                    raise TypeError("no prompt and response")
                yield line
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}, line {number}: not a generation ({reason_of(error)}).") from error
