"""Every form of row that is known, and what is read out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignbench import Constraint, Message, Ranking, Reference, Split, UserError
from tests.data.writing import Rows, lines, said, source, table, user


def read(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> Any:
    """The data of the rows, with enough others of the same form to split: none is held out of the rows asked for."""
    return source(lines(tmp_path / "x.jsonl", list(rows)), **options)


def rankings(tmp_path: Path, row: dict[str, Any], **options: Any) -> list[Ranking]:
    """The rankings of a row; a second prompt of the same form is read beside it."""
    other = {key: _another(value) for key, value in row.items()}
    data = read(tmp_path, row, other, max_bad_share=0.0, **options)
    return [ranking for ranking in data.rankings() if not ranking.prompt.text.startswith("other ")]


def _another(value: Any) -> Any:
    """The same with another prompt: every "Q" becomes "other Q"."""
    if isinstance(value, str):
        return value.replace("Q", "other Q")
    if isinstance(value, list):
        return [_another(part) for part in value]
    return {key: _another(part) for key, part in value.items()} if isinstance(value, dict) else value


ARC = {"text": ["x", "y"]}
Q, YES, NO = said("user", "Q"), said("assistant", "yes"), said("assistant", "no")
DIALOGUE = "\n\nHuman: Q\n\nAssistant: a\n\nHuman: Q2\n\nAssistant:"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "yes", "rejected": "no"},
        {"Prompt": "Q", "Chosen": "yes", "Rejected": "no"},
        {"question": "Q", "chosen": "yes", "rejected": "no"},
        {"prompt": "Q", "chosen": [YES], "rejected": [NO]},
        {"prompt": [Q], "chosen": [YES], "rejected": [NO]},
        {"prompt": [Q], "chosen": [Q, YES], "rejected": [Q, NO]},
        {"prompt": "Q", "chosen": [Q, YES], "rejected": [Q, NO], "messages": [Q, YES]},
        {"chosen": [Q, YES], "rejected": [Q, NO]},
        {"prompt": "Q", "chosen": "Q\nyes", "rejected": "Q\nno"},
        {"chosen": "Q yes", "rejected": "Q no"},
        {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "yes"}, "rejected": {"from": "gpt", "value": "no"}},
        {"prompt": "\n\nHuman: Q\n\nAssistant:", "chosen": " yes", "rejected": " no"},
        {"prompt": "Q", "responses": ["no", "yes"], "scores": [1, 3.5]},
        {"prompt": "Q", "completions": ["no", "yes"], "ratings": ["1", "2"]},
        {"messages": [Q], "responses": ["no", "yes"], "ranks": [2, 1]},
        {"prompt": "Q", "responses": [{"text": "no", "score": 1}, {"text": "yes", "score": 2}]},
        {"prompt": "Q", "response_a": "no", "response_b": "yes", "winner": "model_b"},
        {"prompt": "Q", "response_0": "no", "response_1": "yes", "better_response_id": 1},
        {"prompt": "Q", "response_1": "no", "response_2": "yes", "winner": 2},
        {"prompt": "Q", "response_a": "no", "response_b": "yes", "model_a": "x", "model_b": "y", "winner": "y"},
        {"prompt": "Q", "response1": "no", "response2": "yes", "overall_preference": 2},
        {"conversation_a": [Q, NO], "conversation_b": [Q, YES], "winner": "B"},
        {"prompt": '["Q"]', "response_a": '["no"]', "response_b": '["yes"]', "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
    ],
)  # fmt: skip
def test_one_pair_in_many_forms(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = rankings(tmp_path, row)
    assert found.prompt.messages == (user("Q"),)
    assert {r.strip(): rank for r, rank in zip(found.responses, found.ranks, strict=True)} == {"yes": 0, "no": 1}


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": DIALOGUE + " yes", "rejected": DIALOGUE + " no"},
        {"prompt": DIALOGUE, "chosen": "yes", "rejected": "no"},
        {"chosen": [Q, said("assistant", "a"), said("user", "Q2"), YES], "rejected": [Q, said("assistant", "a"), said("user", "Q2"), NO]},
        {"prompt": [Q, said("assistant", "a"), said("user", "Q2")], "chosen": "yes", "rejected": "no"},
    ],
)  # fmt: skip
def test_several_turns_stay_several_turns(tmp_path: Path, row: dict[str, Any]) -> None:
    (found, *_) = [r for r in rankings(tmp_path, row) if r.prompt.messages[0].content == "Q"]
    assert found.prompt.messages == (user("Q"), Message("assistant", "a"), user("Q2"))
    assert found.responses == ("yes", "no")


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"system": "Be kind.", "prompt": "Q", "chosen": "yes", "rejected": "no"}, {}),
        ({"prompt": "Q", "chosen": "yes", "rejected": "no"}, {"system": "Be kind."}),
        ({"prompt": [said("system", "Be kind."), Q], "chosen": [YES], "rejected": [NO]}, {"system": "Other."}),
        ({"chosen": "Be kind.\n\nHuman: Q\n\nAssistant: yes", "rejected": "Be kind.\n\nHuman: Q\n\nAssistant: no"}, {}),
        ({"chosen": "System: Be kind.\n\nHuman: Q\n\nAssistant: yes", "rejected": "System: Be kind.\n\nHuman: Q\n\nAssistant: no"}, {}),
    ],
)  # fmt: skip
def test_system_messages(tmp_path: Path, row: dict[str, Any], options: dict[str, Any]) -> None:
    (found,) = rankings(tmp_path, row, **options)
    assert found.prompt.messages == (Message("system", "Be kind."), user("Q"))


def test_ties_stay_ties_and_scores_stay_scores(tmp_path: Path) -> None:
    (found,) = rankings(tmp_path, {"prompt": "Q", "responses": list("abcd"), "scores": [2, 7, 7, -1]})
    assert (found.ranks, found.scores) == ((1, 0, 0, 2), (2.0, 7.0, 7.0, -1.0))
    (found,) = rankings(tmp_path, {"prompt": "Q", "responses": list("abc"), "ranks": [5, 3, 3]})
    assert (found.ranks, found.scores) == ((1, 0, 0), ())
    both = {"prompt": "Q", "responses": list("abc"), "ranks": [1, 2, 3], "scores": [3, 2, 1]}
    (found,) = rankings(tmp_path, both)
    assert (found.ranks, found.scores) == ((0, 1, 2), (3.0, 2.0, 1.0))
    (found,) = rankings(tmp_path, {**both, "scores": [3, None, 1]})
    assert (found.responses, found.ranks, found.scores) == (("a", "b", "c"), (0, 1, 2), ())
    for tie in ("tie", "tie (bothbad)", "both_bad"):
        (found,) = rankings(tmp_path, {"prompt": "Q", "response_a": "a", "response_b": "b", "winner": tie})
        assert found.ranks == (0, 0)


@pytest.mark.parametrize(
    ("more", "scores"),
    [
        ({"score_chosen": 8.5, "score_rejected": 6}, (8.5, 6.0)),
        ({"margin": 1.5}, (1.5, 0.0)),
        ({"score_chosen": "N/A", "score_rejected": 6, "margin": "large"}, ()),
        ({"score_chosen": 3, "score_rejected": 6}, ()),  # they say the contrary
        ({}, ()),
    ],
)
def test_margins(tmp_path: Path, more: dict[str, Any], scores: tuple[float, ...]) -> None:
    (found,) = rankings(tmp_path, {"prompt": "Q", "chosen": "yes", "rejected": "no", **more})
    assert found.scores == scores


def test_several_annotators_of_a_pair_stay_apart(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q", "response_a": "a", "response_b": "b", "winner": winner, "judge": who}
        for who, winner in (("ann", "a"), ("bob", "b"), ("cy", "tie"), ("ann", "a"))
    ]
    data = read(tmp_path, *rows, {**rows[0], "prompt": "other Q"})
    found = {(r.annotator, r.ranks) for r in data.rankings() if r.prompt.text == "Q"}
    assert found == {("ann", (0, 1)), ("bob", (1, 0)), ("cy", (0, 0))}
    assert (data.counts()["annotators"], data.counts()["duplicate_row"]) == (3, 1)


def test_a_signed_preference_of_one_or_of_several(tmp_path: Path) -> None:
    row = {"prompt": "Q", "response1": "a", "response2": "b", "overall_preference": -2}
    (found,) = rankings(tmp_path, row)
    assert (found.ranks, found.scores) == ((0, 1), (2.0, 0.0))
    each = {**row, "individual_preference": [{"score": -3}, {"score": 0}, {"score": 1}]}
    found = rankings(tmp_path, each, columns={"preference": "individual_preference"})
    assert [(r.annotator, r.ranks) for r in found] == [
        ("annotator 1", (0, 1)),
        ("annotator 2", (0, 0)),
        ("annotator 3", (1, 0)),
    ]


def _completion(text: str, overall: float, **aspects: object) -> dict[str, Any]:
    return {"response": text, "overall_score": overall, "annotations": {k: {"Rating": v} for k, v in aspects.items()}}


ULTRA = {
    "instruction": "Q",
    "completions": [
        _completion("a", 9, helpfulness="2", honesty="4"),
        _completion("b", 5, helpfulness="5", honesty="2"),
        _completion("c", 1, helpfulness="N/A", honesty="5"),
    ],
}


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        ({}, {"a": 3.0, "b": 3.5}),  # the mean of the ratings; c lacks one
        ({"rating": "helpfulness"}, {"a": 2.0, "b": 5.0}),
        ({"rating": "overall_score"}, {"a": 9.0, "b": 5.0, "c": 1.0}),
        ({"rating_weights": {"helpfulness": 1.0, "honesty": 2.0}}, {"a": 10.0, "b": 9.0}),
    ],
)
def test_named_ratings_of_completions(tmp_path: Path, options: dict[str, Any], scores: dict[str, float]) -> None:
    (found,) = rankings(tmp_path, ULTRA, **options)
    assert dict(zip(found.responses, found.scores, strict=True)) == scores
    assert [found.responses[found.ranks.index(i)] for i in range(len(scores))] == sorted(
        scores, key=lambda r: -scores[r]
    )


HELP: Rows = [
    {"prompt": p, "response": r, "helpfulness": h, "verbosity": v}
    for p in ("Q", "other Q")
    for r, h, v in (("a", 3, 0), ("b", 4, 4), ("c", 3, 1))
]


def test_ratings_in_a_row_each_make_one_ranking(tmp_path: Path) -> None:
    data = read(tmp_path, *HELP, rating="helpfulness")
    found = {r.prompt.text: (r.responses, r.ranks) for r in data.rankings()}
    assert found == dict.fromkeys(("Q", "other Q"), (("a", "b", "c"), (1, 0, 1)))
    data = read(tmp_path, *HELP, rating_weights={"helpfulness": 1.0, "verbosity": -1.0})
    assert {r.scores for r in data.rankings()} == {(3.0, 0.0, 2.0)}
    with pytest.raises(
        UserError, match=r"x\.jsonl, line 1: several ratings \(helpfulness, verbosity\): choose one by data\.rating"
    ):
        read(tmp_path, *HELP)
    with pytest.raises(UserError, match=r"no rating 'honesty' \(ratings: helpfulness, verbosity\)"):
        read(tmp_path, *HELP, rating="honesty")


def test_a_verdict_on_each_pair_of_several(tmp_path: Path) -> None:
    """1 the first is better, 2 the second, 0 neither; pairs in the order (1,2), (1,3), (2,3)."""
    row = {"q": "Q", "p 1": "a", "p 2": "b", "p 3": "c", "preference": [1, 2, 0]}
    options = {"columns": {"prompt": "q", "responses": ["p 1", "p 2", "p 3"], "pairwise": "preference"}}
    found = rankings(tmp_path, row, **options)
    assert [(r.responses, r.ranks) for r in found] == [
        (("a", "b"), (0, 1)),
        (("a", "c"), (1, 0)),
        (("b", "c"), (0, 0)),
    ]


def test_several_chosen_and_rejected(tmp_path: Path) -> None:
    (found,) = rankings(tmp_path, {"prompt": "Q", "chosen": ["a"], "rejected": ["b", "c", "d"]})
    assert (found.responses, found.ranks) == (("a", "b", "c", "d"), (0, 1, 1, 1))


@pytest.mark.parametrize(
    ("given", "good"),
    [(True, True), (1, True), ("good", True), ("False", False), (0, False), (-1, False), ("undesirable", False)],
)
@pytest.mark.parametrize("messages", [False, True])
def test_labels_of_single_responses(tmp_path: Path, given: object, good: bool, messages: bool) -> None:
    rows = [
        {"messages": [said("user", p), YES], "label": given} if messages else {"prompt": p, "completion": "yes", "label": given}
        for p in ("Q", "other Q")
    ]  # fmt: skip
    data = read(tmp_path, *rows)
    assert [(r.response, r.good) for r in data.labelled()] == [("yes", good)] * 2
    assert not data.rankings() and len(data.demonstrations()) == good


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [Q, YES]},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "yes"}]},
        {"prompt": "Q", "completion": "yes"},
        {"prompt": [Q], "completion": [YES]},
        {"instruction": "Q", "input": "", "output": "yes"},
        {"input": "Q", "output": "yes"},
        {"text": "### Human: Q### Assistant: yes"},
        {"text": "Human: Q\n\nAssistant: yes"},
        {"question": "Q", "answer": "yes"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, YES]},
    ],
)
def test_demonstrations(tmp_path: Path, row: dict[str, Any]) -> None:
    data = read(tmp_path, row, {key: _another(value) for key, value in row.items()})
    assert len(data.demonstrations()) == 1 and not data.rankings()
    (shown,) = data.demonstrations()
    assert shown.prompt.messages[0].content in ("Q", "other Q") and shown.response == "yes"


def test_an_input_goes_with_its_instruction(tmp_path: Path) -> None:
    data = read(tmp_path, *({"instruction": "Add.", "input": f"1 + {i}", "output": f"{1 + i}"} for i in range(2)))
    assert data.demonstrations()[0].prompt.text in ("Add.\n\n1 + 0", "Add.\n\n1 + 1")


@pytest.mark.parametrize("asked", [{"prompt": "Q"}, {"prompt": [Q]}])
def test_an_input_may_be_a_list_of_texts(tmp_path: Path, asked: dict[str, Any]) -> None:
    row = {**asked, "input": ["a", "b"]}
    data = read(tmp_path, row, {**row, "prompt": "other Q"}, max_bad_share=0.0)
    assert {p.text for split in Split for p in data.prompts(split)} == {"Q\n\na\nb", "other Q\n\na\nb"}
    data = read(
        tmp_path, {"input": ["Q", "b"]}, {"input": "[1]"}, {"input": '["x"]'}, {**asked, "input": []}, max_bad_share=0.0
    )
    assert {p.text for split in Split for p in data.prompts(split)} == {"Q\nb", "[1]", '["x"]', "Q"}
    with pytest.raises(UserError, match=r"x\.jsonl, line 1: 'input' must be text, not a list"):
        read(tmp_path, {**asked, "input": ["a", 1]}, row)


def test_prompts_alone(tmp_path: Path) -> None:
    data = read(tmp_path, {"prompt": "Q"}, {"prompt": "other Q"})
    assert {prompt.text for split in Split for prompt in data.prompts(split)} == {"Q", "other Q"}
    (tmp_path / "x.txt").write_text("Q\n\nother Q\n")
    assert {p.text for split in Split for p in source(tmp_path / "x.txt").prompts(split)} == {"Q", "other Q"}


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ({"preferred_model": "x"}, r"closest is comparisons, which lacks winner or preference: name it by data\.columns\.winner="),
        ({"preference": 1}, r"name it by data\.columns\.winner=preference\. Columns"),
        ({"the_winner": "a"}, r"name it by data\.columns\.winner=the_winner\. Columns"),
        ({"label": "A=B"}, "closest is comparisons"),
        ({"preferred_model": "x", "text": "T"}, "closest is comparisons"),
        ({"preferred_model": "x", "answer": "4"}, "closest is comparisons"),
        ({}, "closest is comparisons"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("first", "second"), [("response_a", "response_b"), ("human_ref_A", "human_ref_B")])
@pytest.mark.parametrize("asked", ["prompt", "history", "input", "unnamed"])
def test_two_responses_without_a_known_verdict_are_no_prompt(
    tmp_path: Path, verdict: dict[str, Any], said: str, first: str, second: str, asked: str
) -> None:
    rows = [{asked: f"Q{i}", first: "yes", second: "no", **verdict} for i in range(2)]
    with pytest.raises(UserError, match=r"x\.jsonl, line 1: these columns make no form that is known; .*" + said):
        read(tmp_path, *rows)


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"question": "Q", "answer": "#### 4"}, Reference("#### 4")),
        ({"problem": "Q", "solution": "so 4", "answer": 4}, Reference("4")),
        ({"question": "Q", "choices": ["x", "y"], "answer": 1}, Reference("B", ("x", "y"))),
        ({"question": "Q", "choices": ["x", "y"], "answer": 0}, Reference("A", ("x", "y"))),
        ({"question": "Q", "choices": ["0", "1", "4"], "answer": 1}, Reference("B", ("0", "1", "4"))),
        ({"question": "Q", "choices": ["B", "A"], "answer": 1}, Reference("A", ("B", "A"))),  # its text: a letter would name the other
        ({"question": "Q", "choices": [1, 2, 3], "answer": 1}, Reference("1", ("1", "2", "3"))),  # a number among numbers
        *(({"question": "Q", "choices": ["x", "y"], "answer": given}, Reference(str(given), ("x", "y"))) for given in (2, -1, True, 1.0, "1", "y", "B")),
        ({"question": "Q", "choices": ARC | {"label": ["A", "B"]}, "answerKey": "B"}, Reference("B", ("x", "y"))),
        ({"question": "Q", "choices": ARC | {"label": ["1", "2"]}, "answerKey": "2"}, Reference("B", ("x", "y"))),
        ({"question": "Q", "choices": ARC | {"label": ["1", "2"]}, "answer_key": 1}, Reference("A", ("x", "y"))),
        ({"question": "Q", "choices": ARC | {"label": ["1", "2"]}, "answerKey": "C"}, Reference("C", ("x", "y"))),
        ({"question": "Q", "choices": {"2": "x", "1": "y"}, "answer": "1"}, Reference("B", ("x", "y"))),
        ({"question": "Q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}, Reference("", ("x", "y"))),
        ({"prompt": "Q", "instruction_id_list": ["a:b", "c"], "kwargs": [{"n": 3, "m": None}, None]}, Reference(constraints=(Constraint("a:b", {"n": 3}), Constraint("c")))),
        ({"prompt": "Q", "constraints": [{"name": "a", "arguments": {"n": 1}}]}, Reference(constraints=(Constraint("a", {"n": 1}),))),
        ({"prompt": "Q", "test_list": ["assert f(1)", "assert f(2)"]}, Reference(tests="assert f(1)\nassert f(2)")),
        ({"prompt": "Q"}, None),
    ],
)  # fmt: skip
def test_references(tmp_path: Path, row: dict[str, Any], reference: Reference | None) -> None:
    data = read(tmp_path, row, {**row, next(iter(row)): "other Q"})
    prompts = [prompt for split in Split for prompt in data.prompts(split)]
    assert [prompt.reference for prompt in prompts] == [reference] * 2


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"test_list": '["assert f(1) == 2"]'}, Reference(tests="assert f(1) == 2")),
        ({"tests": ' ["assert f(1)", "assert f(2)"]\n'}, Reference(tests="assert f(1)\nassert f(2)")),
        ({"tests": "[]"}, None),
        ({"tests": "'\\d'.split(f())"}, Reference(tests="'\\d'.split(f())")),
        ({"options": '["x", "y"]', "answer": '["x"]'}, Reference('["x"]', ("x", "y"))),
        ({"choices": '{"text": ["x", "y"], "label": ["A", "B"]}'}, Reference(choices=("x", "y"))),
        ({"choices": '{"A": "x", "B": "y"}'}, Reference(choices=("x", "y"))),
        ({"choices": "", "constraints": "", "tests": "", "answer": "4"}, Reference("4")),
        ({"constraints": '["a", "b"]', "kwargs": '[{"n": 3, "m": null}, null]'}, Reference(constraints=(Constraint("a", {"n": 3}), Constraint("b")))),
        ({"constraints": ["a"], "kwargs": ['{"n": 3}']}, Reference(constraints=(Constraint("a", {"n": 3}),))),
        ({"constraints": '["a"]', "kwargs": ""}, Reference(constraints=(Constraint("a"),))),
        ({"constraints": '[{"name": "a", "arguments": {"n": 1}}]'}, Reference(constraints=(Constraint("a", {"n": 1}),))),
        ({"constraints": ['{"name": "a", "arguments": "{\\"n\\": 1}"}']}, Reference(constraints=(Constraint("a", {"n": 1}),))),
    ],
)  # fmt: skip
def test_references_written_as_json(tmp_path: Path, row: dict[str, Any], reference: Reference | None) -> None:
    """As CSV holds them, and sets whose lists are texts."""
    rows = [{"prompt": f"Q{i}", **row} for i in range(2)]
    data = read(tmp_path, *rows)
    assert [prompt.reference for split in Split for prompt in data.prompts(split)] == [reference] * 2
    if not any(isinstance(value, list) for value in row.values()):
        data = source(table(tmp_path / "x.csv", rows))
        assert [prompt.reference for split in Split for prompt in data.prompts(split)] == [reference] * 2


@pytest.mark.parametrize(
    "tests",
    [
        "['assert f(1) == 2']",
        '{"inputs": ["1"], "outputs": ["2"]}',
        "[1, 2]",
        "\n['assert f(1)'\n 'assert f(2)']",
        "1",
        "'yes'",
        "True",
        "true",
        [{"input": "1", "output": "2"}],
        [1],
    ],
)
def test_tests_that_every_program_passes_are_none(tmp_path: Path, tests: object) -> None:
    """A literal is a statement of Python that asserts nothing."""
    row = {"prompt": "Q", "tests": tests}
    data = read(tmp_path, row, {"prompt": "other Q", "tests": "assert f(1) == [2]"})
    found = {prompt.text: prompt.reference for split in Split for prompt in data.prompts(split)}
    assert found == {"Q": None, "other Q": Reference(tests="assert f(1) == [2]")}
    with pytest.raises(UserError, match=r"x\.jsonl, line 1: 'tests' must be Python"):
        read(tmp_path, row, {**row, "prompt": "other Q"}, columns={"tests": "tests"})


@pytest.mark.parametrize("arguments", ["n=3", 3, ["n=3"], [3], {"n": 3}])
def test_arguments_that_are_none_are_not_left_out(tmp_path: Path, arguments: object) -> None:
    row = {"prompt": "Q", "instruction_id_list": ["a"], "kwargs": arguments}
    columns = {"constraints": "instruction_id_list"}
    with pytest.raises(UserError, match=r"x\.jsonl, line 1: .*'kwargs'"):
        read(tmp_path, row, {**row, "prompt": "other Q"}, columns=columns)


def test_a_column_that_only_sounds_like_a_reference_costs_no_row(tmp_path: Path) -> None:
    odd = {"constraints": "be brief", "options": 3, "choices": {"a": [1]}, "tests": True, "answer": "\ud800"}
    row = {"prompt": "Q", "chosen": "yes", "rejected": "no", **odd}
    (found,) = rankings(tmp_path, row)
    assert found.prompt.reference is None
    for role, column in (
        ("constraints", "constraints"),
        ("tests", "tests"),
        ("choices", "options"),
        ("answer", "answer"),
        ("margin", "answer"),
    ):
        with pytest.raises(UserError, match=rf"x\.jsonl, line 1: '{column}'"):
            rankings(tmp_path, row, columns={role: column})


def test_subsets(tmp_path: Path) -> None:
    data = read(tmp_path, *({"prompt": f"Q{i}", "category": f"c{i}"} for i in range(3)))
    assert {(p.text, p.subset) for split in Split for p in data.prompts(split)} == {
        (f"Q{i}", f"c{i}") for i in range(3)
    }


FLAT: Rows = [
    {"message_id": "3", "parent_id": "1", "role": "assistant", "text": "worse", "rank": 1, "lang": "en"},
    {"message_id": "1", "parent_id": None, "role": "prompter", "text": "Q", "rank": None, "lang": "en"},
    {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "better", "rank": 0, "lang": "en"},
    {"message_id": "4", "parent_id": "2", "role": "prompter", "text": "And?", "rank": None, "lang": "en"},
    {"message_id": "5", "parent_id": "4", "role": "assistant", "text": "So.", "rank": None, "lang": "en"},
    {
        "message_id": "6",
        "parent_id": "1",
        "role": "assistant",
        "text": "spam",
        "rank": 2,
        "lang": "en",
        "deleted": True,
    },
    {"message_id": "7", "parent_id": "lost", "role": "assistant", "text": "alone", "rank": 0, "lang": "en"},
    {"message_id": "8", "parent_id": None, "role": "prompter", "text": "Frage", "rank": None, "lang": "de"},
    {"message_id": "9", "parent_id": "8", "role": "assistant", "text": "Ja", "rank": 0, "lang": "de"},
]


def test_trees_of_which_each_message_is_a_row(tmp_path: Path) -> None:
    data = read(tmp_path, *FLAT)
    (found,) = data.rankings()
    assert (found.prompt.text, set(zip(found.responses, found.ranks, strict=True))) == (
        "Q",
        {("better", 0), ("worse", 1)},
    )
    deep = (user("Q"), Message("assistant", "better"), user("And?"))
    assert deep in {p.messages for split in Split for p in data.prompts(split)}
    assert data.counts()["message trees"] == 2
    with pytest.raises(UserError, match="two prompts at least"):
        read(tmp_path, *FLAT, where={"lang": "de"})


def test_a_verdict_on_the_first_turn_says_nothing_of_the_second(tmp_path: Path) -> None:
    def talk(first: str, second: str) -> list[dict[str, str]]:
        return [Q, said("assistant", first), said("user", "more"), said("assistant", second)]

    row = {"conversation_a": talk("yes", "x"), "conversation_b": talk("no", "y"), "winner": "model_a", "turn": 1}
    (found,) = rankings(tmp_path, row)
    assert (found.prompt.messages, found.responses) == ((user("Q"),), ("yes", "no"))
    good = [
        {"conversation_a": [said("user", f"{i}"), YES], "conversation_b": [said("user", f"{i}"), NO], "winner": "a"}
        for i in range(3)
    ]
    data = read(tmp_path, *good, {**row, "turn": 2})
    assert data.counts()["diverging_dialogues"] == 1


def test_what_a_winner_is_called_can_be_said(tmp_path: Path) -> None:
    row = {"history": "Q", "human_ref_A": "yes", "human_ref_B": "no", "labels": 1}
    options = {"columns": {"winner": "labels"}, "winner_values": {"1": "a", "0": "b"}}
    (found,) = rankings(tmp_path, row, **options)
    assert (found.responses, found.ranks) == (("yes", "no"), (0, 1))
    with pytest.raises(UserError, match=r"'labels' is '1', which names no winner: .*data\.winner_values\.1=a"):
        rankings(tmp_path, row, columns={"winner": "labels"})
    with pytest.raises(UserError, match="Unknown winner 'A'.*data.winner_values.1"):
        rankings(tmp_path, row, winner_values={"1": "A"})


def test_columns_of_any_name(tmp_path: Path) -> None:
    rows = [{"ask": f"Q{i}", "re": {"text": {"up": f"a{i}", "down": f"b{i}"}}} for i in range(3)]
    columns = {"prompt": "ask", "chosen": "re.text.up", "rejected": "re.text.down"}
    data = read(tmp_path, *rows, columns=columns)
    assert {(r.prompt.text, *r.responses) for r in data.rankings()} == {(f"Q{i}", f"a{i}", f"b{i}") for i in range(3)}
    assert data.description().columns == columns


def test_a_column_that_was_assigned_plays_no_other_role(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "response": "yes", "label": "good"} for i in range(3)]
    data = read(tmp_path, *rows, columns={"subset": "label"})
    assert (data.description().forms, len(data.labelled())) == ({"demonstrations": 3}, 0)
    assert {p.subset for split in Split for p in data.prompts(split)} == {"good"}
    assert data.description().columns == {"prompt": "prompt", "response": "response", "subset": "label"}
    data = read(tmp_path, *rows, columns={"subset": "label", "label": "label"})
    assert len(data.labelled()) == 3, "but where it is named for both"
    assert {p.subset for split in Split for p in data.prompts(split)} == {"good"}
    rows = [
        {"prompt": f"Q{i}", "response_a": "no", "response_b": "yes", "order": [2, 1], "winner": "a"} for i in range(3)
    ]
    data = read(tmp_path, *rows, columns={"responses": ["response_a", "response_b"], "ranks": "order"})
    assert {(r.responses, r.ranks) for r in data.rankings()} == {(("no", "yes"), (1, 0))}
    rows = [{"prompt": f"Q{i}", "response": {"text": "yes", "of": "m"}, "a.b": "s"} for i in range(3)]
    data = read(tmp_path, *rows, columns={"subset": "a.b", "annotator": "response.of"})
    assert data.description().forms == {"prompts": 3}, "a part of a column is of it"
    with pytest.raises(UserError, match="these columns make no form that is known"):
        read(tmp_path, *rows, columns={"subset": "prompt"})


def test_lists_and_messages_in_a_table_are_read_as_such(tmp_path: Path) -> None:
    import json

    rows = [{"prompt": f"[{i}]", "responses": json.dumps(["a", "b"]), "scores": "[1, 2]"} for i in range(3)]
    data = source(table(tmp_path / "x.csv", rows))
    assert {(r.prompt.text, r.ranks) for r in data.rankings()} == {(f"[{i}]", (1, 0)) for i in range(3)}
    rows = [
        {"chosen": json.dumps([said("user", f"{i}"), YES]), "rejected": json.dumps([said("user", f"{i}"), NO])}
        for i in range(3)
    ]
    assert {r.responses for r in source(table(tmp_path / "x.csv", rows)).rankings()} == {("yes", "no")}
    rows = [{"prompt": f"{i}", "chosen": "[1, 2]", "rejected": "NA"} for i in range(3)]
    assert {r.responses for r in source(table(tmp_path / "x.csv", rows)).rankings()} == {("[1, 2]", "NA")}, (
        "as they stand"
    )


@pytest.mark.parametrize(
    ("asked", "replies", "kept"),
    [
        ("Hi", ("Hiking is fun.", "Hills are high."), None),
        ("Hi", ("Hi! How can I help?", "Hi. What is it?"), None),
        ("Hi", ("Hi there, friend!", "Hi you."), None),
        ("Hi", ("Hi\n\nHello!", "Hi\nNo."), ("Hello!", "No.")),
        ("Hi\n", ("Hi\nHello!", "Hi\nNo."), ("Hello!", "No.")),
        ("Hi", ("Hi\nHello!", "Hi there!"), None),
        ("Q: 2 + 2? A:", ("Q: 2 + 2? A: 4", "Q: 2 + 2? A: 5"), ("4", "5")),
        ("What is the largest planet?", ("What is the largest planet? Jupiter.", "What is the largest planet? Mars."), ("Jupiter.", "Mars.")),
        ("Write a poem about the sea", ("Write a poem about the seaside", "Write a poem about the seas"), None),
        ("", ("\nyes", "\nno"), None),
    ],
)  # fmt: skip
def test_the_prompt_is_taken_off_replies_that_repeat_it_and_off_no_others(
    tmp_path: Path, asked: str, replies: tuple[str, str], kept: tuple[str, str] | None
) -> None:
    row = {"prompt": asked, "chosen": replies[0], "rejected": replies[1]}
    others = [{"prompt": f"Q{i}", "chosen": "yes", "rejected": "no"} for i in range(2)]
    data = read(tmp_path, row, *others, max_bad_share=1.0)
    found = [
        ranking
        for ranking in data.rankings()
        if not ranking.prompt.text.startswith("Q") or ranking.prompt.text == asked
    ]
    assert [ranking.responses for ranking in found] == ([kept or replies] if asked else [])
    assert all(ranking.prompt.messages == (user(asked),) for ranking in found)


PAIR = {"prompt": "Q", "chosen": "Say yes", "rejected": "Say no"}
DIALOGUE_PAIR = {role: f"\n\nHuman: Q\n\nAssistant: {reply}" for role, reply in (("chosen", "yes"), ("rejected", "no"))}
COMPARED = {"prompt": "Q", "response_a": "yes", "response_b": "no", "winner": "a"}


@pytest.mark.parametrize(
    ("good", "change", "reason", "said"),
    [
        (PAIR, {"prompt": None}, "no_prompt", "'prompt' is empty"),
        (PAIR, {"prompt": ""}, "no_prompt", "the prompt is empty"),
        (PAIR, {"prompt": ...}, "no_prompt", "'prompt' is missing, which other rows have"),
        ({"question": "Q", "output": "yes"}, {"question": None}, "no_prompt", "'question' is empty"),
        ({"prompt": "Q", "text": "yes"}, {"prompt": None}, "no_prompt", "'prompt' is empty"),
        ({"prompt": "Q"}, {"prompt": None}, "no_prompt", "'prompt' is empty"),
        ({"prompt": "Q", "responses": ["a", "b"], "scores": [1, 2]}, {"prompt": None}, "no_prompt", "'prompt' is empty"),
        (DIALOGUE_PAIR, {"rejected": "\n\nHuman: Q\n\nNo."}, "no_assistant_reply", "'rejected' is no dialogue"),
        (DIALOGUE_PAIR, {"rejected": "No."}, "no_assistant_reply", "'rejected' is no dialogue"),
        (DIALOGUE_PAIR, {"chosen": "\n\nHuman: Q Assistant: yes"}, "no_assistant_reply", "'chosen' is no dialogue"),
        (DIALOGUE_PAIR, {"chosen": "\n\nHuman: Q yes", "rejected": "\n\nHuman: Q no"}, "no_assistant_reply", "is no dialogue"),
        (PAIR, {"rejected": None}, "empty_response", "'rejected' is empty"),
        (PAIR, {"chosen": None}, "empty_response", "'chosen' is empty"),
        (PAIR | {"output": "yes"}, {"chosen": None}, "empty_response", "'chosen' is empty"),
        (COMPARED, {"response_b": None}, "empty_response", "'response_b' is empty"),
        (COMPARED, {"winner": None}, "no_verdict", "no winner is given"),
        (COMPARED, {"winner": " "}, "no_verdict", "'winner' is empty"),
        ({"prompt": "Q", "response_1": "a", "response_2": "b", "overall_preference": 1}, {"overall_preference": ""}, "no_verdict", "is empty"),
        ({"prompt": "Q", "response_1": "a", "response_2": "b", "label": 1}, {"label": None}, "no_verdict", "'label' is empty"),
        ({"prompt": "Q", "response": "yes", "label": True}, {"label": None}, "no_verdict", "'label' is empty"),
        ({"prompt": "Q", "response": "yes", "label": True}, {"label": ""}, "no_verdict", "'label' is empty"),
        ({"messages": [Q, YES], "label": True}, {"label": None}, "no_verdict", "'label' is empty"),
        ({"prompt": "Q", "response": "yes", "label": True}, {"response": None}, "empty_response", "is empty"),
        ({"messages": [Q, YES], "label": True}, {"messages": None}, "empty_response", "is empty"),
    ],
)  # fmt: skip
def test_a_row_whose_column_is_empty_is_of_no_other_form(
    tmp_path: Path, good: dict[str, Any], change: dict[str, Any], reason: str, said: str
) -> None:
    rows = [{key: _numbered(value, i) for key, value in good.items()} for i in range(3)]
    odd = {key: value for key, value in {**good, **change}.items() if value is not ...}
    data = read(tmp_path, *rows, odd, max_bad_share=1.0)
    assert data.counts() | {"read": 4, reason: 1} == data.counts()
    assert sum(data.description().forms.values()) == 3, "it is read as nothing"
    assert said in data.description().set_aside[reason]
    plain = not any(value is ... for value in change.values()) and all(isinstance(v, (str, int)) for v in good.values())
    if plain and len(good) > 1:
        blank = {key: "" if value is None else value for key, value in odd.items()}
        assert source(table(tmp_path / "x.csv", [*rows, blank]), max_bad_share=1.0).counts().get(reason) == 1, (
            "CSV has no null"
        )


def _numbered(value: Any, number: int) -> Any:
    """The same with a prompt of its own."""
    if isinstance(value, str):
        return value.replace("Q", f"Q{number}")
    if isinstance(value, list):
        return [_numbered(part, number) for part in value]
    return {key: _numbered(part, number) for key, part in value.items()} if isinstance(value, dict) else value


def test_columns_that_a_form_does_not_read_are_not_among_those_it_reads(tmp_path: Path) -> None:
    rows = [{"instruction": f"Q{i}", "input": "", "output": "x", "chosen": "yes", "rejected": "no"} for i in range(3)]
    said = read(tmp_path, *rows).description()
    assert said.columns == {"prompt": "instruction", "input": "input", "chosen": "chosen", "rejected": "rejected"}
    assert said.notes == ("Not read of this form: output (response).",)
    said = read(tmp_path, *rows, columns={"subset": "output", "response": "output"}).description()
    assert said.columns["subset"] == "output" and said.notes == (), "a column that was named for a role is there"
