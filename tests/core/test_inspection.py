"""`alignbench data`: what it says of files whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench import Demonstration, Labelled, Prompt, Ranking
from alignbench.commands.data import text
from alignbench.pipeline.data.inspection import inspect, near_duplicates, suspicious
from tests import tiny
from tests.core.harness import Command, People, PeopleConfig


def write(path: Path, rows: Sequence[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def ranked(prompt: str, better: str, worse: str, annotator: str = "") -> Ranking:
    return Ranking(tiny.prompt(prompt), (better, worse), (0, 1), annotator=annotator)


def lines(rankings: Sequence[Ranking] = (), labelled: Sequence[Labelled] = ()) -> str:
    return "\n".join(suspicious(rankings, labelled, [], [], []))


def test_it_says_how_a_file_is_read_and_what_is_set_aside(command: Command, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(30)]
    rows[3]["chosen"] = rows[3]["rejected"]
    done = command("data", write(tmp_path / "x.jsonl", rows))
    assert done.code == 0
    for said in (
        "Read as: 29 pairs",
        "1 identical_responses",
        "x.jsonl, line 4",
        "user: What is ",
        "> rank 1: It is ",
    ):
        assert said in done.out
    assert "29 prompts, words: median 3, at most 3" in done.out


def test_json_has_all_of_it(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"prompt": f"q {i}", "chosen": "a", "rejected": "b"} for i in range(10)])
    found = json.loads(command("data", path, "--json", "--rows", "1").out)
    assert found["records"]["rankings"] == 10 and len(found["rows"]) == 1
    assert found["lengths"][0]["bins"] == {"8": 10} and found["description"]["forms"] == {"pairs": 10}


@pytest.mark.parametrize(
    "path", ["absent.jsonl", "a'b.jsonl", "x=y.jsonl", "a,b.jsonl", "$x{}.jsonl", "~nouser/x", "x\0y"]
)
def test_a_path_that_is_not_there_is_one_line(command: Command, path: str) -> None:
    done = command("data", f"/nowhere/{path}" if path[0] != "~" else path)
    assert done.code == 2 and len(done.errors) == 1 and "Traceback" not in done.err


def test_a_name_that_hydra_would_read_otherwise_is_read_as_it_is(command: Command, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a 'b', c={}.jsonl", [{"prompt": f"q {i}", "chosen": "a", "rejected": "b"} for i in range(9)]
    )
    assert "9 pairs" in command("data", path).out


def test_with_a_model_rows_are_as_it_reads_them_and_cuts_are_marked() -> None:
    policy = tiny.scratch()  # see its limits: prompts of 8 tokens, responses of 6
    long = " ".join("abcdefgh" * 3)
    source = People(PeopleConfig(), seeds=None)  # type: ignore[arg-type]
    found = inspect(source, policy, rows=1)
    assert "<bot>" in found.rows[0].prompt, "the template is applied"
    prompts, responses = found.lengths
    assert (prompts.unit, prompts.limit, responses.limit) == (
        "tokens",
        policy.max_prompt_tokens,
        policy.max_response_tokens,
    )
    from alignbench.pipeline.data.inspection import _row

    row = _row(Demonstration(tiny.prompt(long), long), policy)
    assert f"set aside: {policy.prompt_tokens(tiny.prompt(long))} tokens" in row.prompt
    assert f"{25 - policy.max_response_tokens} of 25 tokens are left out" in row.responses[0]


def test_the_longer_response_that_wins_is_said_with_its_share() -> None:
    pairs = [ranked(str(i), "a b c d", "a") if i < 16 else ranked(str(i), "a", "a b c d") for i in range(20)]
    assert "longer one in 80% of 20 pairs, by 2 words" in lines(pairs)
    even = [ranked(str(i), "a b", "a") if i % 2 else ranked(str(i), "a", "a b") for i in range(20)]
    assert "length alone" not in lines(even)


def test_contradictions_one_sided_labels_and_templates_are_said() -> None:
    assert "1 pairs of responses are ranked one way" in lines([ranked("p", "a", "b", "x"), ranked("p", "b", "a", "y")])
    assert "All 3 labelled responses are called good" in lines((), [Labelled(tiny.prompt("p"), t, True) for t in "abc"])
    assert "<|im_end|> in 1" in lines([ranked("p", "a <|im_end|> b <|im_end|>", "b")])
    assert lines([ranked("p", "a < b | c", "b")]) == ""


def test_near_duplicates_are_found_by_their_words_and_others_are_not() -> None:
    words = [
        "how",
        "do",
        "I",
        "bake",
        "a",
        "loaf",
        "of",
        "bread",
        "at",
        "home",
        "without",
        "any",
        "yeast",
        "in",
        "the",
        "house",
        "today",
        "please",
    ]

    def asked(text: Sequence[str]) -> Prompt:
        return tiny.prompt(" ".join(text))

    assert near_duplicates([asked([*words, "now"])], [asked(words)]) == 1
    assert near_duplicates([asked(words[:9])], [asked(words)]) == 0
    assert near_duplicates([asked(["Hi"])], [asked(["hi!"]), asked(["ho"])]) == 1


def test_agreement_of_named_annotators_is_shown(command: Command, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"q {i}",
            "responses": ["a", "b"],
            "ranks": [1, 2] if name == "x" or i % 2 else [2, 1],
            "annotator": name,
        }
        for i in range(20)
        for name in "xy"
    ]
    assert (
        "2 annotators share 20 pairs: 50% of verdicts are alike"
        in command("data", write(tmp_path / "x.jsonl", rows)).out
    )


def test_no_control_character_of_a_row_reaches_the_terminal(tmp_path: Path) -> None:
    source = People(PeopleConfig(), seeds=None)  # type: ignore[arg-type]
    source.asked[4] = tiny.prompt("c \x1b[31m red")
    assert "\x1b" not in "\n".join(text(inspect(source, None)))


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=4),
    st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=4),
)
def test_near_duplicates_are_those_of_the_definition(train: list[list[str]], held_out: list[list[str]]) -> None:
    def shingles(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}

    def alike(one: list[str], other: list[str]) -> bool:
        a, b = shingles(one), shingles(other)
        return len(a & b) >= 0.8 * len(a | b)

    asked = [[tiny.prompt(" ".join(words)) for words in part] for part in (train, held_out)]
    assert near_duplicates(*asked) == sum(any(alike(mine, theirs) for theirs in train) for mine in held_out)


def test_so_many_examples_are_shown(command: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"prompt": f"q {i}", "chosen": "a", "rejected": "b"} for i in range(5)])
    for rows, shown in (("0", 0), ("2", 2), ("1" + "0" * 30, 5)):
        assert command("data", path, "--rows", rows).out.count("Example ") >= shown
        assert f"Example {shown + 1}," not in command("data", path, "--rows", rows).out or shown == 5
    for rows in ("-1", "many", "1.5", ""):
        done = command("data", path, f"--rows={rows}")
        assert done.code == 2 and done.errors == [
            f"alignbench: error: --rows={rows}: a whole number is needed, 0 or more."
        ]


def test_a_file_with_an_equals_sign_in_its_name(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a=b.jsonl", [{"prompt": f"q {i}", "chosen": "a", "rejected": "b"} for i in range(9)])
    assert "9 pairs" in command("data", "a=b.jsonl").out
    assert "Unknown key 'a'" in command("data", "a=c.jsonl").err


def test_what_is_not_read_is_shown(command: Command, tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}", "output": "c", "chosen": "a", "rejected": "b"} for i in range(9)]
    path = write(tmp_path / "x.jsonl", rows)
    out = command("data", path, "data.subset=main").out
    assert "Columns: prompt (prompt), chosen (chosen), rejected (rejected)\n" in out
    assert "Not read of this form: output (response)." in out and "data.subset=main is not used" in out


def test_nothing_but_ties_is_said() -> None:
    ties = [Ranking(tiny.prompt(f"{i}"), ("a", "b"), (0, 0)) for i in range(3)]
    assert "All 3 rankings are ties" in lines(ties)
    assert "are ties" not in lines([*ties, ranked("p", "a", "b")])
