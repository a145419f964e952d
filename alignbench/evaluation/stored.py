"""An evaluation on disk: written as a run's own files, read back without asking the model again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench.contracts import Evaluation
from alignbench.errors import UserError
from alignbench.evaluation.suite import Evaluated
from alignbench.records import ExampleScore, Generation, Message, Opinion, Prompt, Ranking, Verdict
from alignbench.results.compared.statistics import summarise
from alignbench.results.disk.directory import EXAMPLES, GENERATIONS, RANKINGS, RunDirectory

FILES = (GENERATIONS, EXAMPLES)


def save(evaluated: Evaluated, folder: Path) -> None:
    """The files that every metric can be computed from again."""
    directory = RunDirectory(folder)
    directory.write_generations([*evaluated.generations, *evaluated.extra])
    directory.write_examples(evaluated.scores)


def load(folder: Path, questions: Sequence[Prompt], samples: int, evaluations: Sequence[Evaluation]) -> Evaluated:
    """What was saved: `samples` shared generations to each question come first. Their prompts get back what the data source
    knows of them; prompts of an evaluation's own have only what a reader may see."""
    known = {prompt.id: prompt for prompt in questions}
    with (folder / GENERATIONS).open(encoding="utf-8") as file:
        found = tuple(_generation(json.loads(line), known) for line in file)
    shared = len(questions) * samples
    scores = tuple(_scores(folder / EXAMPLES))
    specs = [spec for evaluation in evaluations for spec in evaluation.specs()]
    return Evaluated(found[:shared], found[shared:], scores, summarise(scores, specs))


def rankings(
    folder: Path, known: Iterable[Prompt], *, annotator: str | None
) -> tuple[tuple[Ranking, ...], tuple[Ranking, ...]]:
    """Those that a run learnt from and those that it held out, none where it has no rankings. A prompt of the data, whose prompts are
    `known`, gets back what the data knows of it. `annotator`: the run's, under whose name stand those that name nobody."""
    path, prompts = folder / RANKINGS, {prompt.id: prompt for prompt in known}
    sides: tuple[list[Ranking], list[Ranking]] = ([], [])
    if path.is_file():
        # Not splitlines(): a response may hold other line separators, which JSON leaves as they are.
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                row = json.loads(line)
                sides[row["split"] == "held_out"].append(_ranking(row, prompts, annotator))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}, line {number}, is no ranking as a run writes it ({error}).") from error
    return tuple(sides[0]), tuple(sides[1])


def _ranking(row: Mapping[str, Any], known: Mapping[str, Prompt], annotator: str | None) -> Ranking:
    messages = tuple(Message(m["role"], m["content"]) for m in row["messages"])
    prompt = Prompt(row["id"], messages)
    if (own := known.get(prompt.id)) and own.messages == messages:
        prompt = own
    responses, ranks, finished = (tuple(row[key]) for key in ("responses", "ranks", "finished"))
    who = row["annotator"]
    return Ranking(prompt, responses, ranks, finished, annotator="" if who == annotator else who)


def _generation(line: Mapping[str, Any], known: Mapping[str, Prompt]) -> Generation:
    prompt = known.get(line["prompt"]) or Prompt(
        line["prompt"],
        tuple(Message(**message) for message in line["messages"]),
        Opinion(line["opinion"]) if line["opinion"] else None,
        line["cluster"],
    )
    return Generation(
        prompt=prompt,
        index=line["index"],
        response=line["response"],
        tokens=line["tokens"],
        finished=line["finished"],
        logprob=_number(line["logprob"]),
        ref_logprob=_number(line["ref_logprob"]),
        entropy=_number(line["entropy"]),
        proxy_reward=line["proxy_reward"],
        verdict=(
            None if line["gold_reward"] is None else Verdict(line["gold_reward"], line["correct"], line["agrees"])
        ),
    )


def _number(value: float | None) -> float:
    """JSON has no NaN: it was written as null."""
    return math.nan if value is None else value


def _scores(path: Path) -> Iterator[ExampleScore]:
    import polars

    for row in polars.read_parquet(path).iter_rows(named=True):
        yield ExampleScore(row["metric"], row["example"], row["value"], row["cluster"])
