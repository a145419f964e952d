"""Which check reads which row, and the reward and the annotator that are made of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from alignbench_verify.annotator import ReferenceAnnotator
from alignbench_verify.checks.registry import suited
from alignbench_verify.config import ReferenceConfig, VerifyConfig
from alignbench_verify.reward import VerifyReward
from alignbench_verify.verifier import Answer

from alignbench import Constraint, Prompt, Reference, Samples, Seeds, UserError
from alignbench.app.compose import load_config
from tests import tiny
from tests.verify.rows import Rows, passes, row, verifier


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ({"answer": "42"}, "number"),
        ({"answer": "$1,000.50"}, "number"),
        ({"answer": "She has 3 left.\n#### 3"}, "number"),
        ({"answer": r"\frac{1}{2}"}, "math"),
        ({"answer": "x^2"}, "math"),
        ({"answer": "Paris"}, "exact"),
        ({"answer": "4 July 1776"}, "exact"),
        ({"answer": "B", "choices": ("red", "blue")}, "choice"),
        ({"answer": "42", "choices": ("41", "42")}, "choice"),
        ({"tests": "assert True", "answer": "def f(): ..."}, "python"),
        ({"constraints": (Constraint("punctuation:no_comma"),)}, "constraints"),
        ({"choices": ("red", "blue")}, None),
        ({"answer": "3", "choices": ("red", "blue")}, None),
        ({"answer": "violet", "choices": ("red", "blue")}, None),
        ({"answer": r"\frac{1}{2}", "choices": ("red", "blue")}, None),
        ({}, None),
    ],
)
def test_auto_follows_the_reference(reference: dict[str, object], name: str | None) -> None:
    assert suited(Reference(**reference)) == name  # type: ignore[arg-type]


def test_rows_are_each_checked_by_their_own() -> None:
    check = verifier()
    asked = [Answer(row(answer="85"), "85", True), Answer(row(answer="Paris"), "paris", True)]
    assert check.passed(asked) == [{"auto": True}, {"auto": True}]


def test_each_check_is_a_part_of_the_score() -> None:
    """A check that reads nothing of a row gives it 0, as one that fails does."""
    prompts = [row(answer="85"), row(answer="85"), row(answer="Paris")]
    config = VerifyConfig(checks={"number": 2.0, "exact": -0.5})
    source, samples = built(config, prompts, ["85", "it is 85", "paris"], [True] * 3)
    parts = source.score_parts(samples)
    assert (parts.names, parts.weights) == (("number", "exact"), (2.0, -0.5))
    assert parts.values.tolist() == [[1, 1], [1, 0], [0, 1]]
    assert source.score(samples).tolist() == [1.5, 2.0, -0.5]


def built(
    config: VerifyConfig, prompts: list[Prompt], texts: list[str], finished: list[bool]
) -> tuple[VerifyReward, Samples]:
    policy = tiny.scratch()
    samples = policy.encode(tiny.PROMPTS[: len(texts)], texts, finished=finished)
    samples = dataclasses.replace(samples, prompts=tuple(prompts), texts=tuple(texts))
    return VerifyReward(config, policy=policy, data=Rows(*prompts), seeds=Seeds(0)), samples


def score(config: VerifyConfig, prompts: list[Prompt], texts: list[str], finished: list[bool]) -> torch.Tensor:
    source, samples = built(config, prompts, texts, finished)
    scores = source.score(samples)
    assert scores.dtype == torch.float32
    assert source.report()["checked"] == len(texts)
    return scores


def test_weights_add_up() -> None:
    asked = [row(answer="Paris")] * 3
    config = VerifyConfig(checks={"exact": 1.0, "regex": 0.25}, pattern=r"^[A-Z]")
    assert score(config, asked, ["Paris", "paris", "Rome"], [True] * 3).tolist() == [1.25, 1.0, 0.25]


def test_a_check_that_a_row_has_nothing_for_adds_nothing() -> None:
    asked = [row(answer="Paris"), row(answer="7")]
    config = VerifyConfig(checks={"exact": 1.0, "number": 2.0})
    assert score(config, asked, ["Paris", "7"], [True] * 2).tolist() == [1.0, 3.0]


def test_what_was_cut_off_is_wrong_unless_it_is_asked_for() -> None:
    asked, texts, finished = [row(answer="85")] * 2, ["85", "85"], [True, False]
    assert score(VerifyConfig(), asked, texts, finished).tolist() == [1.0, 0.0]
    assert score(VerifyConfig(unfinished=True), asked, texts, finished).tolist() == [1.0, 1.0]


def test_the_report_counts() -> None:
    check = verifier()
    check.passed([Answer(row(answer="85"), "85", True), Answer(row(answer="85"), "8", False)])
    assert check.report() == {"checked": 2.0, "unfinished": 1.0, "ended": 0.0}


@pytest.mark.parametrize(
    ("names", "prompts", "told"),
    [
        (
            ["auto"],
            [row("a")],
            r"1 of 1 train prompts do not bring what auto reads \(a reference\), as 'a' \('.+'\): .*data=arithmetic",
        ),
        (
            ["number"],
            [row("a", answer="7"), row("b", answer="Paris")],
            "1 of 2 train prompts do not bring what number reads .*'b'",
        ),
        (["choice"], [row("a", answer="C", choices=("x", "y"))], "choices and which of them is right"),
        (["python", "constraints"], [row("a", answer="7")], "unit tests or constraints"),
    ],
)
def test_data_without_references_is_refused_in_one_line(names: list[str], prompts: list[Prompt], told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        VerifyReward.check_data(VerifyConfig(checks=dict.fromkeys(names, 1.0)), Rows(*prompts))
    assert str(refused.value).startswith("reward=verify: ") and "\n" not in str(refused.value)
    with pytest.raises(UserError, match="annotator=reference: "):
        ReferenceAnnotator(ReferenceConfig(checks=names), data=Rows(*prompts), seeds=Seeds(0))


def test_a_pattern_of_the_users_serves_rows_without_answers() -> None:
    assert passes(verifier("regex", pattern="^yes"), row("a"), "yes", "no") == [True, False]


def test_a_schema_in_a_file(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "schema.json"
    file.write_text('{"type": "integer"}')
    assert passes(verifier("json_schema", schema=str(file)), row("a"), "1", '"1"') == [True, False]
    assert verifier("json_schema", schema=str(file)).fingerprint() == '{"type": "integer"}'
    with pytest.raises(UserError, match="cannot be read"):
        verifier("json_schema", schema=str(file) + "x")


def test_checks_that_are_named_take_the_place_of_auto() -> None:
    config = load_config(["experiment=arithmetic", "reward.checks={number:2.0}"]).reward.config
    assert config.weights == {"number": 2.0}
    assert load_config(["experiment=arithmetic"]).reward.config.weights == {"auto": 1.0}


def test_an_unknown_check_lists_the_choices() -> None:
    with pytest.raises(UserError, match="numbr.*number"):
        verifier("numbr")


def test_the_annotator_ranks_what_is_right_first() -> None:
    asked = row("a", answer="85")
    judge = ReferenceAnnotator(ReferenceConfig(), data=Rows(asked), seeds=Seeds(0))
    assert judge.rank(asked, ["84", "85", "85", "85"], finished=[True, True, True, False]) == (1, 0, 0, 1)
    assert judge.rank(asked, ["84", "83"], finished=[True, True]) == (0, 0)
    assert judge.preference(asked, "85", "84") == 1.0
    assert judge.preference(asked, "84", "85") == 0.0
    assert judge.preference(asked, "85", "85") == judge.preference(asked, "1", "2") == 0.5
