"""Which records are held out and which are trained on: whole prompts, in an order that a seed draws."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from alignbench import Demonstration, Labelled, Prompt, Ranking, Seeds, functional
from alignbench_data.content import sameness
from alignbench_data.formats.form import Rated, Record


def asked(record: Record) -> Prompt:
    """The prompt that a record is about."""
    return record if isinstance(record, Prompt) else record.prompt


class Pool:
    """Records by prompt. With `most` it holds that many rows at most: those of the prompts that come first in the order, so that
    what is picked is the same as if all had been kept."""

    def __init__(self, seeds: Seeds, counts: Counter[str], most: int = 0, without: Iterable[str] = ()) -> None:
        self._salt, self._counts, self._most = seeds.integer("order"), counts, most
        self._without = frozenset(without)
        self._groups: dict[str, dict[int, Record]] = {}
        self._last: list[tuple[int, str]] = []  # a heap, the prompt that comes last on top
        self.held = 0
        self._limit = 2**64
        self.rows = 0  # those that differ; of prompts that are not kept, all

    def add(self, record: Record) -> None:
        key = sameness(asked(record))
        if key in self._without:
            self._counts["of_held_out_prompt"] += 1
            return
        place = self._place(key)
        if place >= self._limit:
            self._counts["unused"] += 1
            self.rows += 1
            return
        if key not in self._groups:
            self._groups[key] = {}
            heapq.heappush(self._last, (-place, key))
        group, content = self._groups[key], hash(_content(record))
        if content in group:
            self._counts["duplicate_row"] += 1
            return
        group[content] = record
        self.held += 1
        self.rows += 1
        self._shrink()

    def _place(self, key: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._salt}:{key}".encode()).digest()[:8], "big")

    def _shrink(self) -> None:
        while self._most and self.held - len(self._groups[self._last[0][1]]) >= self._most:
            place, key = heapq.heappop(self._last)
            dropped = len(self._groups.pop(key))
            self._limit = -place
            self.held -= dropped
            self._counts["unused"] += dropped

    @property
    def prompts(self) -> int:
        return len(self._groups)

    def groups(self) -> Iterator[tuple[str, list[Record]]]:
        """In the order that the seed draws."""
        for key in sorted(self._groups, key=self._place):
            yield key, list(self._groups[key].values())


def _content(record: Record) -> tuple[object, ...]:
    """What makes two rows the same."""
    of = asked(record).messages
    match record:
        case Ranking():
            return ("ranking", of, record.responses, record.ranks, record.annotator)
        case Labelled():
            return ("labelled", of, record.response, record.good)
        case Demonstration():
            return ("demonstration", of, record.response)
        case Rated():
            return ("rated", of, record.response, record.score)
    return ("prompt", of)


def whole(records: Iterable[Record]) -> list[Record]:
    """The records, rated responses to one prompt made a ranking. One alone is a demonstration."""
    kept: list[Record] = []
    rated: dict[str, list[Rated]] = {}
    for record in records:
        if isinstance(record, Rated):
            rated.setdefault(record.prompt.id, []).append(record)
        else:
            kept.append(record)
    for several in rated.values():
        responses, scores = tuple(one.response for one in several), tuple(one.score for one in several)
        if len(several) == 1:
            kept.append(Demonstration(several[0].prompt, responses[0]))
        else:
            kept.append(Ranking(several[0].prompt, responses, functional.ranks_of(scores), scores=scores))
    return kept


def first_rows(groups: Iterable[tuple[str, list[Record]]], rows: int, *, cut: bool) -> dict[str, list[Record]]:
    """Groups until there are `rows` rows (0: all); `cut`: the last one may be cut, so that there are no more."""
    taken: dict[str, list[Record]] = {}
    count = 0
    for key, records in groups:
        if rows and count >= rows:
            break
        taken[key] = records[: rows - count] if rows and cut else records
        count += len(taken[key])
    return taken


def rows_of(groups: Mapping[str, list[Record]]) -> list[Record]:
    return [record for records in groups.values() for record in records]
