"""What is held out, what is trained on, and that no prompt is on both sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from alignbench_data.source import PreferencesData

from alignbench import Split, UserError
from tests.data.writing import Rows, lines, parquet, said, source


def pairs(start: int, stop: int, *, of: int = 1) -> Rows:
    """Pairs, `of` of them to each prompt."""
    return [{"prompt": f"q {i // of}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(start, stop)]


def texts(data: PreferencesData, split: Split) -> list[str]:
    return [prompt.text for prompt in data.prompts(split)]


def both(data: PreferencesData) -> tuple[list[str], list[str]]:
    return texts(data, Split.TRAIN), texts(data, Split.EVALUATION)


def test_a_share_of_whole_prompts_is_held_out(tmp_path: Path) -> None:
    data = source(lines(tmp_path / "x.jsonl", pairs(0, 200, of=3)), held_out_share=0.2)
    train, held_out = both(data)
    assert not set(train) & set(held_out) and len(train) + len(held_out) == 67
    sizes = Counter(r.prompt.text in held_out for r in data.rankings())
    assert 40 <= sizes[True] <= 42 and sizes[False] == 200 - sizes[True]
    assert {d.prompt.text for d in data.demonstrations()} == set(train)
    most = source(lines(tmp_path / "x.jsonl", pairs(0, 200, of=3)), held_out_share=0.2, held_out_rows=9)
    assert set(texts(most, Split.EVALUATION)) <= set(held_out) and len(texts(most, Split.EVALUATION)) in (3, 4)


def test_held_out_rows_are_the_same_whatever_is_trained_on(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", pairs(0, 300, of=2))
    train, held_out = both(source(path))
    for rows in (1, 7, 100):
        fewer = source(path, max_rows=rows)
        assert texts(fewer, Split.EVALUATION) == held_out
        assert len(fewer.demonstrations()) == rows and texts(fewer, Split.TRAIN) == train[: (rows + 1) // 2]
    assert texts(source(path, split_seed=1), Split.EVALUATION) != held_out
    shuffled = lines(tmp_path / "y.jsonl", pairs(0, 300, of=2)[::-1])
    assert both(source(shuffled)) == (train, held_out), "the order of the file says nothing"


def test_what_is_not_picked_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With max_rows the pool stays small, and what it ends with is the same."""
    from alignbench_data import splitting

    held: list[int] = []
    shrink = splitting.Pool._shrink

    def watched(pool: splitting.Pool) -> None:
        shrink(pool)
        held.append(pool.held)

    monkeypatch.setattr(splitting.Pool, "_shrink", watched)
    path = parquet(tmp_path / "x.parquet", [*pairs(0, 2000, of=2), *pairs(0, 500, of=2)])
    options = {"held_out_share": 0.5, "held_out_rows": 20}
    whole = source(path, **options)
    assert max(held) == 2000
    held.clear()
    few = source(path, max_rows=30, **options)
    assert max(held) <= 52
    assert texts(few, Split.EVALUATION) == texts(whole, Split.EVALUATION)
    assert [d.response for d in few.demonstrations()] == [d.response for d in whole.demonstrations()][:30]


def test_every_record_is_accounted_for(tmp_path: Path) -> None:
    rows = [*pairs(0, 100), *pairs(0, 10), {"prompt": "x", "chosen": "a", "rejected": "a"}]
    for options in ({}, {"max_rows": 20}, {"max_rows": 20, "held_out_rows": 5, "held_out_share": 0.9}):
        counts = source(lines(tmp_path / "x.jsonl", rows), **options).counts()
        assert counts["read"] == 111 == counts["pairs"] + counts["identical_responses"]
        duplicates = counts.get("duplicate_row", 0)
        assert counts["train"] + counts["held_out"] + counts["unused"] + duplicates == 110


SAME: list[Any] = [
    "What is  it?",
    " what is it?\n",
    "WHAT IS IT?",
    [said("user", "What is it?")],
    "Ｗhat is it?",  # a full-width letter
]


def test_prompts_with_the_same_words_are_on_one_side(tmp_path: Path) -> None:
    for seed in range(5):
        rows = [*pairs(0, 20), *({"prompt": p, "chosen": "a", "rejected": "b"} for p in SAME)]
        train, held_out = both(source(lines(tmp_path / "x.jsonl", rows), held_out_share=0.5, split_seed=seed))
        assert len({text in train for text in (*train, *held_out) if "it" in text.lower()}) == 1


def test_a_conversation_is_another_prompt_than_its_last_question(tmp_path: Path) -> None:
    talk = [said("user", "a"), said("assistant", "b"), said("user", "q")]
    rows = [
        {"prompt": p, "chosen": "x", "rejected": "y"}
        for p in ("q", talk, [*talk[:1], said("assistant", "c"), *talk[2:]])
    ]
    data = source(lines(tmp_path / "x.jsonl", rows))
    assert len({prompt.id for split in Split for prompt in data.prompts(split)}) == 3


def test_splits_by_the_names_of_files(tmp_path: Path) -> None:
    lines(tmp_path / "data" / "train-00000-of-00002.jsonl", pairs(0, 10))
    lines(tmp_path / "data" / "train-00001-of-00002.jsonl", pairs(10, 20))
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [*pairs(20, 25), *pairs(0, 2)])
    train, held_out = both(source(tmp_path))
    assert set(held_out) == {f"q {i}" for i in (*range(20, 25), 0, 1)} and set(train) == {
        f"q {i}" for i in range(2, 20)
    }
    assert source(tmp_path).counts()["of_held_out_prompt"] == 2
    assert len(texts(source(tmp_path, held_out_rows=3), Split.EVALUATION)) == 3


@pytest.mark.parametrize("names", [("train.jsonl", "validation.jsonl"), ("a.train.jsonl", "a.test.jsonl"), ("x/train.jsonl", "x/dev.jsonl"), ("train_1.jsonl", "eval_1.jsonl")])  # fmt: skip
def test_names_of_a_held_out_split(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, rows in zip(names, (pairs(0, 8), pairs(8, 12)), strict=True):
        lines(tmp_path / name, rows)
    assert set(texts(source(tmp_path), Split.EVALUATION)) == {f"q {i}" for i in range(8, 12)}


def test_a_split_that_is_chosen(tmp_path: Path) -> None:
    for i, name in enumerate(("train_sft", "train_prefs", "test_sft", "test_prefs")):
        lines(tmp_path / f"{name}.jsonl", pairs(10 * i, 10 * i + 10))
    with pytest.raises(
        UserError, match=r"Several splits could be meant: choose data\.train_split= of train_prefs, train_sft"
    ):
        source(tmp_path)
    train, held_out = both(source(tmp_path, train_split="train_prefs"))
    assert (set(train), set(held_out)) == ({f"q {i}" for i in range(10, 20)}, {f"q {i}" for i in range(30, 40)})
    _, held_out = both(source(tmp_path, train_split="train_prefs", test_split="test_sft"))
    assert set(held_out) == {f"q {i}" for i in range(20, 30)}
    with pytest.raises(UserError, match="Unknown split 'tset' in data.test_split.*Choices: test_prefs"):
        source(tmp_path, train_split="train_sft", test_split="tset")


def test_subsets_of_a_folder(tmp_path: Path) -> None:
    for i, name in enumerate(("helpful/train", "harmless/train")):
        lines(tmp_path / f"{name}.jsonl", pairs(10 * i, 10 * i + 10))
    assert len(source(tmp_path).rankings()) == 20
    assert {r.prompt.text for r in source(tmp_path, subset="helpful").rankings()} == {f"q {i}" for i in range(10)}
    with pytest.raises(
        UserError, match=r"Unknown subset 'helpfull'.*Did you mean 'helpful'\? Choices: harmless, helpful"
    ):
        source(tmp_path, subset="helpfull")


def test_held_out_rows_in_a_file_of_their_own(tmp_path: Path) -> None:
    path, test = lines(tmp_path / "x.jsonl", pairs(0, 20)), lines(tmp_path / "y.jsonl", pairs(15, 25))
    train, held_out = both(source(path, test_path=str(test)))
    assert (set(train), set(held_out)) == ({f"q {i}" for i in range(15)}, {f"q {i}" for i in range(15, 25)})
    for i, name in enumerate(("one", "two")):
        lines(tmp_path / "more" / f"{name}.jsonl", pairs(30 + i, 31 + i))
    assert texts(source(path, test_path=str(tmp_path / "more"), test_split="two"), Split.EVALUATION) == ["q 31"]


def test_demonstrations_and_prompts_from_sets_of_their_own(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [{**row, "rating": 3} for row in pairs(0, 20)])
    shown = lines(tmp_path / "d.jsonl", [{"instruction": f"q {i}", "output": f"shown {i}"} for i in range(10, 40)])
    asked = tmp_path / "p.txt"
    asked.write_text("".join(f"q {i}\n" for i in range(5, 30)))
    data = source(path, demonstrations_path=str(shown), prompts_path=str(asked), held_out_share=0.5)
    train, held_out = both(data)
    assert set(held_out) <= {f"q {i}" for i in range(20)} and len(held_out) == 10
    assert set(train) == {f"q {i}" for i in range(5, 30)} - set(held_out)
    assert {d.response for d in data.demonstrations()} == {
        f"shown {i}" for i in range(10, 40) if f"q {i}" not in held_out
    }
    assert {r.prompt.text for r in data.rankings()} == {f"q {i}" for i in range(20)}
    assert data.counts()["beside_read"] == 55


def test_prompts_and_demonstrations_without_preferences(tmp_path: Path) -> None:
    asked = lines(tmp_path / "p.jsonl", [{"prompt": f"q {i}", "answer": str(i)} for i in range(20)])
    shown = lines(tmp_path / "d.jsonl", [{"prompt": f"d {i}", "completion": f"shown {i}"} for i in range(20)])
    data = source("", prompts_path=str(asked), demonstrations_path=str(shown))
    assert len(data.prompts(Split.TRAIN)) == 18 and len(data.prompts(Split.EVALUATION)) == 2
    assert all(p.reference and p.text.startswith("q") for split in Split for p in data.prompts(split))
    assert {d.response for d in data.demonstrations()} == {f"shown {i}" for i in range(20)}
    alone = source("", demonstrations_path=str(shown))
    assert len(alone.demonstrations()) == 18 and not alone.rankings()


def test_too_little_to_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"x\.jsonl: of 3 rows read .* 0 are held out and 3 are left .* two prompts at least"
    ):
        source(lines(tmp_path / "x.jsonl", pairs(0, 3, of=3)))


def test_what_is_not_read_of_a_folder_is_said_and_not_listed(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}", "chosen": "a", "rejected": "b"} for i in range(20)]
    for name in ("train", "extra", "more", "test"):
        lines(tmp_path / f"{name}.jsonl", [{**row, "prompt": f"{name} {row['prompt']}"} for row in rows])
    said = source(tmp_path).description()
    assert said.files == (f"{tmp_path}/test.jsonl", f"{tmp_path}/train.jsonl")
    (note,) = said.notes
    assert f"{tmp_path}/extra.jsonl, {tmp_path}/more.jsonl." in note and "data.train_split=" in note
    said = source(tmp_path, train_split="extra", test_path=tmp_path / "test.jsonl").description()
    assert said.files == (f"{tmp_path}/extra.jsonl", f"{tmp_path}/test.jsonl")
    assert "more.jsonl" in said.notes[0] and "train.jsonl" in said.notes[0] and "extra.jsonl" not in said.notes[0]
    alone = lines(tmp_path / "other" / "x.jsonl", rows)
    said = source(alone, prompts_path=str(tmp_path)).description()
    assert said.files == (str(alone), f"{tmp_path}/train.jsonl") and "data.prompts_path" in said.notes[0]
    assert source(alone).description().notes == ()


def test_settings_that_a_file_does_not_know_are_said(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}", "chosen": "a", "rejected": "b"} for i in range(20)]
    path = lines(tmp_path / "part" / "x.jsonl", rows)

    def notes(path: Path, **options: object) -> str:
        return " ".join(source(path, **options).description().notes)

    assert f"data.subset=part is not used: data.path={path} is here" in notes(path, subset="part")
    assert "data.revision=abc is not used" in notes(path, revision="abc")
    assert notes(tmp_path, subset="part") == "", "a folder has parts"
    assert "data.revision=abc is not used" in notes(tmp_path, revision="abc")
    assert "data.rating=honesty is not used: no row" in notes(path, rating="honesty")
    assert "data.rating_weights={'honesty': 1.0} is not used" in notes(path, rating_weights={"honesty": 1.0})
    assert "data.winner_values={'1': 'a'} is not used" in notes(path, winner_values={"1": "a"})
    rated = [{"prompt": f"q {i}", "responses": ["a", "b"], "scores": [1, 2]} for i in range(20)]
    assert "data.rating=honesty is not used" in notes(lines(tmp_path / "r.jsonl", rated), rating="honesty")
    named = [{**row, "scores": [{"honesty": 1}, {"honesty": 2}]} for row in rated]
    assert notes(lines(tmp_path / "n.jsonl", named), rating="honesty") == ""
    helped = [{"prompt": f"q {i % 9}", "response": f"{i}", "helpfulness": i, "verbosity": 1} for i in range(20)]
    assert notes(lines(tmp_path / "h.jsonl", helped), rating="helpfulness") == ""
