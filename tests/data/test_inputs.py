"""What people have is read with no option but its path."""

from __future__ import annotations

from pathlib import Path

import pytest
from alignbench_hh.config import HHConfig
from alignbench_hh.source import HHDataSource

from alignbench import Message, Ranking, Seeds, Split
from tests.data.inputs import INPUTS, QUESTIONS, SYSTEM
from tests.data.writing import source, user
from tests.shared_data import shared_data


def pairs(rankings: list[Ranking]) -> set[tuple[str, str, str]]:
    """Prompt, best and worst response of rankings of two."""
    assert all(sorted(ranking.ranks) == [0, 1] for ranking in rankings)
    return {(r.prompt.text, r.responses[r.ranks.index(0)], r.responses[r.ranks.index(1)]) for r in rankings}


@pytest.mark.parametrize("name", INPUTS)
def test_ordinary_inputs_are_read_to_the_same_rankings(tmp_path: Path, name: str) -> None:
    data = source(INPUTS[name](tmp_path, QUESTIONS))
    rankings = list(data.rankings())
    assert pairs(rankings) == set(QUESTIONS) and len(rankings) == len(QUESTIONS)
    system = (Message("system", SYSTEM),) if "dialogues" in name else ()
    assert all(r.prompt.messages == (*system, user(r.prompt.text)) for r in rankings)
    train, held_out = ({p.text for p in data.prompts(split)} for split in Split)
    assert not train & held_out and train | held_out == {prompt for prompt, _, _ in QUESTIONS}
    assert len(held_out) == (4 if "splits" in name else 2)
    good = {prompt: better for prompt, better, _ in QUESTIONS}
    assert {(d.prompt.text, d.response) for d in data.demonstrations()} == {(p, good[p]) for p in train}
    assert data.counts()["read"] == len(QUESTIONS)


def test_message_trees_of_openassistant() -> None:
    """212 prompts with two ranked replies or more, 754 strict pairs: counted by hand in the file."""
    data = source(shared_data("oasst-ranked-trees") / "en_100_tree.jsonl")
    rankings = data.rankings()
    strict = sum(a != b for r in rankings for i, a in enumerate(r.ranks) for b in r.ranks[:i])
    assert (len(rankings), strict) == (212, 754)
    roots = {split: {prompt.messages[0] for prompt in data.prompts(split)} for split in Split}
    assert not roots[Split.TRAIN] & roots[Split.EVALUATION], "a tree is never split"


def test_instructions_with_preferences() -> None:
    counts = source(shared_data("rasbt-instruction") / "instruction-data-with-preference.json").counts()
    assert (counts["read"], counts["pairs"], counts["identical_responses"]) == (1100, 1094, 6)
    assert counts["train"] + counts["held_out"] == 1094


def test_dialogues_of_hh_are_read_as_the_plugin_for_them_reads_them() -> None:
    path = str(shared_data("hh-rlhf") / "helpful-base.test.jsonl.gz")
    theirs = HHDataSource(HHConfig(path=path), seeds=Seeds(0)).rankings()
    ours = source(path).rankings()
    assert {(r.prompt.messages, r.responses) for r in ours} == {(r.prompt.messages, r.responses) for r in theirs}
    assert len(ours) == len(theirs) == 2339
