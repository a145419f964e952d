"""Benchmarks of reward models, where their rows say more than other data of their form: which lists belong together, how responses are
styled, which of two is right."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from alignbench import Ranking
from alignbench_data.columns import Fields, unpacked
from alignbench_data.content import is_conversation, prompt, prompt_messages, reply
from alignbench_data.formats.form import Form, Record, Settings
from alignbench_data.formats.pairs import of_several
from alignbench_data.reasons import Reason, Unusable

_TIES = re.compile(r"(?:ref|tied):(\S+)")
_STYLES = 3
_VERDICTS = {"A>B": (0, 1), "B>A": (1, 0), "1": (0, 1), "2": (1, 0), "1.0": (0, 1), "2.0": (1, 0)}


def _lists(fields: Fields) -> tuple[Sequence[object], Sequence[object]] | None:
    """Right and wrong responses, where a row has lists of both."""
    right, wrong = (unpacked(fields.get(role)) for role in ("chosen", "rejected"))
    several = isinstance(right, list) and isinstance(wrong, list) and not is_conversation(right)
    return (right, wrong) if several and not is_conversation(wrong) else None


def _reward_bench_2(fields: Fields, settings: Settings) -> list[Ranking]:
    """Right and wrong responses to a prompt (arXiv 2506.01937). Two rows of its ties subset ask one question: the number behind their
    id's colon joins them."""
    found = _several(fields, settings)
    if fields.get("subset") == "Ties" and (number := _TIES.fullmatch(str(fields.row.get("id")))):
        found = dataclasses.replace(found, prompt=dataclasses.replace(found.prompt, cluster=f"ties/{number[1]}"))
    return [found]


def _several(fields: Fields, settings: Settings) -> Ranking:
    lists = _lists(fields)
    assert lists is not None, "it was recognised by them"
    return of_several(fields, settings, *lists)


def _rm_bench(fields: Fields, settings: Settings) -> list[Ranking]:
    """A right and a wrong response, each concise, then detailed, then detailed in Markdown (arXiv 2410.16184)."""
    return [dataclasses.replace(_several(fields, settings), styles=(*range(_STYLES), *range(_STYLES)))]


def _is_rm_bench(fields: Fields, settings: Settings) -> bool:
    lists = _lists(fields)
    return lists is not None and "domain" in fields.row and all(len(side) == _STYLES for side in lists)


def _pair(fields: Fields, settings: Settings) -> list[Ranking]:
    """Two responses and a label that says which is right: LLMBar (1 or 2, arXiv 2310.07641), JudgeBench (A>B or B>A, arXiv 2410.12784)."""
    ranks = _VERDICTS[str(fields.get("label")).strip()]
    responses = tuple(reply(fields.get(role), fields.name(role)) for role in ("response_a", "response_b"))
    if responses[0] == responses[1]:
        raise Unusable(Reason.IDENTICAL, "the two responses are the same")
    return [Ranking(prompt(fields, prompt_messages(fields), keep_id=settings.keep_ids), responses, ranks)]


def _has_label(fields: Fields, settings: Settings) -> bool:
    """A number says which only where the columns are numbered."""
    said = str(fields.get("label")).strip()
    numbered = [fields.name(role)[-1:] for role in ("response_a", "response_b")] == ["1", "2"]
    return said in _VERDICTS and (numbered or ">" in said) and "winner" not in fields.columns


class RewardBench2(Form):
    name = "RewardBench 2"
    needs = (("chosen",), ("rejected",))

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _reward_bench_2(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _lists(fields) is not None and "num_correct" in fields.row


class RMBench(Form):
    name = "RM-Bench"
    needs = (("chosen",), ("rejected",))

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _rm_bench(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _is_rm_bench(fields, settings)


class LabelledPairs(Form):
    name = "labelled pairs"
    needs = (("response_a",), ("response_b",), ("label",))

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _pair(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _has_label(fields, settings)
