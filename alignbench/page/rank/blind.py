"""Two checkpoints, compared by people who do not know which is which: a project of pairs, and the row that comes of it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.errors import UserError
from alignbench.page.rank.agreement import preferred
from alignbench.page.rank.items import Item
from alignbench.page.rank.store import Answer, Project
from alignbench.records import Direction, ExampleScore, Message, Metric, MetricSpec
from alignbench.results.compared.statistics import summarise
from alignbench.results.disk.directory import CONFIG, GENERATIONS, RESULT, RunDirectory, file_errors
from alignbench.results.disk.environment import config_hash
from alignbench.results.disk.record import RunRecord, Status
from alignbench.seeds import Seeds

WIN_RATE = MetricSpec("helpfulness/human_win_rate", Direction.HIGHER, "preferred by people, ties half", share=True)
FIRST, SECOND, EQUAL = "run", "over", "equal"
"""Where a project keeps, of its `about`, whose responses come first in an item, whose second, and the prompts to which both gave the
same response."""


@dataclass(frozen=True)
class Pairs:
    """`equal`: prompts (and their clusters) to which both gave the same response. Nobody has to be asked: they tie."""

    items: tuple[Item, ...]
    equal: tuple[tuple[str, str], ...]


def pairs(first: Path, second: Path, *, prompts: int, seeds: Seeds) -> Pairs:
    """The first response of each run to each prompt that both answered; `prompts` of them, drawn, or all for 0."""
    mine, theirs = _responses(first), _responses(second)
    shared = [key for key in mine if key in theirs and mine[key].messages == theirs[key].messages]
    if not shared:
        raise UserError(f"{first} and {second} answered no prompt in common: evaluate both on the same data.")
    if prompts:
        shared = sorted(seeds.python("prompts").sample(shared, min(prompts, len(shared))), key=shared.index)
    items, equal = [], []
    for key in shared:
        a, b = mine[key], theirs[key]
        if a.text == b.text:
            equal.append((key, a.cluster))
            continue
        items.append(Item(key, a.messages, (a.text, b.text), (a.finished, b.finished), cluster=a.cluster))
    if not items:
        raise UserError(f"{first} and {second} gave the same response to every prompt: there is nothing to compare.")
    return Pairs(tuple(items), tuple(equal))


@dataclass(frozen=True)
class _Response:
    messages: tuple[Message, ...]
    text: str
    finished: bool
    cluster: str


def _response(row: Mapping[str, Any]) -> _Response:
    messages = tuple(Message(message["role"], message["content"]) for message in row["messages"])
    return _Response(messages, row["response"], row["finished"], row["cluster"])


def _responses(run: Path) -> dict[str, _Response]:
    """The first to each prompt."""
    path = run / GENERATIONS
    try:
        with path.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        return {row["prompt"]: _response(row) for row in rows if row["index"] == 0}
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): name a finished run, or the sft folder in one."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}).") from error


def scores(
    items: Mapping[int, Item], answers: Iterable[Answer], equal: Iterable[tuple[str, str]]
) -> list[ExampleScore]:
    """Of each prompt, the share of people who prefer the first run's response. What could not be judged by anybody is left out."""
    said: dict[int, list[float]] = defaultdict(list)
    for answer in answers:
        if answer.judgement.ranks:
            said[answer.item].append(preferred(answer.judgement.ranks, 0, 1))
    found = [
        ExampleScore(WIN_RATE.name, items[number].prompt, statistics.fmean(values), items[number].cluster)
        for number, values in sorted(said.items())
    ]
    return found + [ExampleScore(WIN_RATE.name, prompt, 0.5, cluster) for prompt, cluster in equal] if found else []


def win_rate(project: Project) -> tuple[Metric, list[ExampleScore]] | None:
    """None while nobody has judged anything."""
    equal = json.loads((project.settings.about or {}).get(EQUAL, "[]"))
    found = scores(project.items(), project.answers(), [(prompt, cluster) for prompt, cluster in equal])
    return (summarise(found, [WIN_RATE])[WIN_RATE.name], found) if found else None


def write_row(project: Project, results: Path) -> Path:
    """A row of its own beside that of the run that was judged, as an evaluation of it makes one: results are never edited. Later
    answers make a later row."""
    about = project.settings.about or {}
    if project.settings.kind != "ab":
        raise UserError(f"{project.name} ranks one model's responses: a win rate is of a project that `rank ab` made.")
    measured = win_rate(project)
    if measured is None:
        raise UserError(f"Nobody has judged anything in the project {project.name} yet.")
    metric, found = measured
    run, over = Path(about[FIRST]), Path(about[SECOND])
    mine, theirs = _record(run), _record(over)
    who = dataclasses.replace(
        mine.identity,
        algo_label=f"{_label(mine)} over {_label(theirs)}, by people",
        config_hash=config_hash({"people": [mine.identity.config_hash, theirs.identity.config_hash]}),
    )
    directory = RunDirectory.create(
        results, algo=who.algo_label, model=who.model, data=who.data, seed=who.seed, config_hash=who.config_hash
    )
    with file_errors(run):
        directory.write_config((run / CONFIG).read_text(encoding="utf-8"))
    directory.write_examples(found)
    people = len({answer.annotator for answer in project.answers()})
    directory.write_record(
        RunRecord(
            run_id=directory.run_id,
            status=Status.FINISHED,
            identity=who,
            metrics={WIN_RATE.name: metric},
            counts={"people": people, "answers": len(project.answers())},
            reused={"model": mine.run_id},
        )
    )
    return directory.path


def _record(run: Path) -> RunRecord:
    try:
        return RunRecord.from_json((run / RESULT).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{run / RESULT} cannot be read ({error.strerror}): the run must be where it was.") from error


def _label(record: RunRecord) -> str:
    return record.identity.algo_label or record.identity.algo
