"""Layouts of rows that are chosen by name: those that come along, and one of another plugin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from alignbench_data.formats import FORMS
from alignbench_data.formats.own import read
from alignbench_data.reasons import Reason, Unusable

from alignbench import Demonstration, Format, Message, Prompt, Ranking, Split, UserError, select
from alignbench.plugins import Kind, registry
from tests.core import harness
from tests.data.test_docs import rows as of_page
from tests.data.writing import ROWS, lines, source

LABELLED = [{"prompt": f"p {i}", "response": f"r {i}", "label": i % 2} for i in range(20)]


@pytest.fixture
def dashes() -> Iterator[None]:
    """A plugin that brings `data.format=dashes`."""
    with harness.installed():
        yield


def written(tmp_path: Path, *texts: str) -> Path:
    return lines(tmp_path / "x.jsonl", [{"line": text} for text in texts])


def answered(count: int) -> list[str]:
    return [f"q {i} -- good {i} -- bad {i} -- worse {i}" for i in range(count)]


# Those that come along


def test_each_form_is_registered_and_named_on_the_page() -> None:
    registered = [component for component in registry().of(Kind.FORMAT) if component.distribution == "alignbench"]
    assert {component.load() for component in registered} == {type(form) for form in FORMS}
    assert len(registered) == len(FORMS)
    names = {component.load().name: component.name for component in registered}
    assert [row[3].strip("` ") for row in of_page("Forms of rows")] == [names[form.name] for form in FORMS]


def test_a_chosen_form_reads_as_it_would_be_recognised_and_takes_columns_by_name(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", ROWS)
    assert source(path, format="pairs").rankings() == source(path).rankings()
    renamed = lines(
        tmp_path / "y.jsonl", [{"ask": r["prompt"], "good": r["chosen"], "bad": r["rejected"]} for r in ROWS]
    )
    columns = {"prompt": "ask", "chosen": "good", "rejected": "bad"}
    assert source(renamed, format="pairs", columns=columns).rankings() == source(path).rankings()


def test_a_chosen_form_goes_before_the_one_that_would_be_recognised(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", LABELLED)
    assert len(source(path).labelled()) == 20
    forced = source(path, format="demonstrations")
    assert (len(forced.labelled()), forced.counts()["demonstrations"]) == (0, 18)


def test_a_row_of_another_form_is_set_aside(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [*ROWS, LABELLED[0]])
    counts = source(path, format="pairs").counts()
    assert (counts["pairs"], counts["unknown_form"]) == (len(ROWS), 1)
    with pytest.raises(
        UserError, match=r"no row of data.format=labels, which needs .*label.* more than data.max_bad_share"
    ):
        source(lines(tmp_path / "y.jsonl", ROWS), format="labels")


def test_a_form_reads_a_row_by_itself() -> None:
    pairs = select("format", "pairs", {}, where="here").build()
    (found,) = pairs.read({"Prompt": "Q", "chosen": "yes", "rejected": "no"})
    assert (found.prompt.text, found.responses, found.ranks) == ("Q", ("yes", "no"), (0, 1))
    for row, word in (
        ({"prompt": "Q", "chosen": "yes"}, "rejected"),
        ({"prompt": "Q", "chosen": "a", "rejected": "a"}, "same"),
    ):
        with pytest.raises(UserError, match=word):
            pairs.read(row)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "pairz"}, ["Unknown format 'pairz'", "data.format", "Did you mean 'pairs'?", "labels"]),
        ({"format_options": {"x": 1}}, ["data.format=<name>"]),
        ({"format": "pairs", "format_options": {"x": 1}}, ["data.format_options", "'x'"]),
    ],
)
def test_a_choice_that_there_is_not(options: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        source(lines(tmp_path / "x.jsonl", ROWS), **options)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


# One of another plugin


@pytest.mark.usefixtures("dashes")
def test_rows_of_its_own_are_read_split_and_named_by_their_words(tmp_path: Path) -> None:
    data = source(written(tmp_path, *answered(40)), format="dashes")
    plain = source(
        lines(tmp_path / "y.jsonl", [{"prompt": f"q {i}", "chosen": "a", "rejected": "b"} for i in range(40)])
    )
    for split in Split:
        assert {prompt.id for prompt in data.prompts(split)} == {prompt.id for prompt in plain.prompts(split)}
    by_text = {ranking.prompt.text: ranking for ranking in data.rankings()}
    assert len(by_text) == 40
    assert by_text["q 7"].responses == ("good 7", "bad 7", "worse 7")
    assert by_text["q 7"].ranks == (0, 1, 2), "whatever number they begin at"
    assert data.description().forms == {"dashes": 40}
    assert all(one.response.startswith("good") for one in data.demonstrations())


@pytest.mark.usefixtures("dashes")
@pytest.mark.parametrize(
    ("gives", "kind"), [("labels", "labelled"), ("prompts", "prompts"), ("demonstrations", "demonstrations")]
)
def test_what_a_row_says_may_be_of_any_kind(gives: str, kind: str, tmp_path: Path) -> None:
    data = source(written(tmp_path, *answered(10)), format="dashes", format_options={"gives": gives})
    found = {
        "labelled": len(data.labelled()),
        "prompts": len(data.prompts(Split.TRAIN)),
        "demonstrations": len(data.demonstrations()),
    }
    assert found[kind] == {"labels": 30, "prompts": 9, "demonstrations": 9}[gives]
    assert not data.rankings()


@pytest.mark.usefixtures("dashes")
def test_its_bad_rows_are_set_aside_counted_and_judged(tmp_path: Path) -> None:
    texts = ["broken -- a", "skip", "q -- ", " -- a -- b", *answered(40)]
    counts = source(written(tmp_path, *texts), format="dashes").counts()
    wanted = {"read": 44, "dashes": 40, "malformed": 1, "nothing_ranked": 1, "empty_response": 1, "no_prompt": 1}
    assert {name: counts[name] for name in wanted} == wanted
    refusals = (
        ({"gives": "text"}, "data.format=dashes gives a str, which is no record"),
        ({"mark": ""}, "data.format=dashes: ValueError: empty separator"),
    )
    for options, words in refusals:
        with pytest.raises(UserError, match=words) as caught:
            source(written(tmp_path, *answered(40)), format="dashes", format_options=options)
        assert "line 1" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.usefixtures("dashes")
@pytest.mark.parametrize(
    "option", [{"columns": {"prompt": "line"}}, {"rating": "x"}, {"winner_values": {"1": "a"}}, {"system": "s"}]
)
def test_options_that_it_is_not_told_are_refused(option: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"data.{next(iter(option))} is for the formats of data=preferences itself"):
        source(written(tmp_path, *answered(5)), format="dashes", **option)


@pytest.mark.usefixtures("dashes")
def test_what_stands_beside_is_read_as_it_is_recognised(tmp_path: Path) -> None:
    beside = lines(tmp_path / "d.jsonl", [{"prompt": f"d {i}", "response": f"r {i}"} for i in range(10)])
    data = source(written(tmp_path, *answered(10)), format="dashes", demonstrations_path=str(beside))
    assert {one.response for one in data.demonstrations()} == {f"r {i}" for i in range(10)}


PROMPT = Prompt("", (Message("user", "q"),))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (Ranking(PROMPT, ("a", "b"), (0, math.nan)), "nan as a rank or a score"),  # type: ignore[arg-type]
        (Ranking(PROMPT, ("a", "b"), (0, None)), "TypeError"),  # type: ignore[arg-type]
        (Ranking(PROMPT, ("a", "b"), (0, 1), scores=(1.0,)), "1 scores of 2 responses"),
        (Ranking(PROMPT, ("a", "b"), (0, 1), finished=(True,)), "1 finished of 2 responses"),
        (Ranking(PROMPT, ("a", "b"), (0, 1), scores=("x", "y")), "ValueError"),  # type: ignore[arg-type]
        (Ranking("q", ("a", "b"), (0, 1)), "AttributeError"),  # type: ignore[arg-type]
        (Demonstration(Prompt("", ({"role": "user", "content": "q"},)), "a"), "AttributeError"),  # type: ignore[arg-type]
        (Demonstration(Prompt("", None), "a"), "TypeError"),  # type: ignore[arg-type]
    ],
)
def test_a_record_that_is_none_sets_its_row_aside(record: Any, words: str) -> None:
    class Gives(Format):
        def read(self, row: Mapping[str, Any]) -> list[Any]:
            return [record]

    with pytest.raises(Unusable, match=words) as refused:
        read(Gives(), "gives", {})
    assert refused.value.reason is Reason.MALFORMED


def test_the_text_of_parts_is_what_is_kept() -> None:
    class Gives(Format):
        def read(self, row: Mapping[str, Any]) -> list[Any]:
            return [Demonstration(PROMPT, [{"type": "text", "text": "said"}])]  # type: ignore[arg-type]

    (found,) = read(Gives(), "gives", {})
    assert isinstance(found, Demonstration) and found.response == "said"
