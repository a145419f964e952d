import gzip
import json
from pathlib import Path

import pytest
from alignbench_hh.config import HHConfig
from alignbench_hh.source import HHDataSource

from alignbench import Seeds, Split, UserError
from tests.shared_data import shared_data


def row(question: str, chosen: str = "yes", rejected: str = "no") -> dict[str, str]:
    start = f"\n\nHuman: {question}\n\nAssistant: "
    return {"chosen": start + chosen, "rejected": start + rejected}


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(r) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def source(path: Path, seed: int = 0, **options: object) -> HHDataSource:
    return HHDataSource(HHConfig(path=str(path), **options), seeds=Seeds(seed))  # type: ignore[arg-type]


def ids(data: HHDataSource, split: Split) -> list[str]:
    return [prompt.id for prompt in data.prompts(split)]


def test_one_file_is_split_by_prompt(tmp_path: Path) -> None:
    """Prompts asked twice end up on one side only, and every ranking belongs to a prompt of one side."""
    path = write(tmp_path / "x.jsonl", [row(f"q{i % 20}", f"yes{i}") for i in range(40)])
    data = source(path, held_out_rows=9)
    train, evaluation = ids(data, Split.TRAIN), ids(data, Split.EVALUATION)
    assert not set(train) & set(evaluation)
    assert len(evaluation) == len(set(evaluation)) == 5  # four prompts with both rows, one cut in two
    assert len(train) == len(set(train)) == 15
    held_out = [r for r in data.rankings() if r.prompt.id in set(evaluation)]
    assert len(held_out) == 9 and len(data.rankings()) == 39
    counts = data.counts()
    assert (counts["read"], counts["repeated_prompt"], counts["unused"]) == (40, 20, 1)


def test_the_split_depends_on_its_own_seed_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(f"q{i}") for i in range(60)])
    base = source(path, held_out_rows=20)
    evaluation = ids(base, Split.EVALUATION)
    assert ids(source(path, seed=1, held_out_rows=20), Split.EVALUATION) == evaluation
    fewer = source(path, held_out_rows=20, max_rows=5)
    assert ids(fewer, Split.EVALUATION) == evaluation
    assert ids(fewer, Split.TRAIN) == ids(base, Split.TRAIN)[:5]
    assert fewer.counts()["unused"] == 35
    assert ids(source(path, held_out_rows=20, split_seed=1), Split.EVALUATION) != evaluation


@pytest.mark.parametrize("layout", ["helpful-base/{}.jsonl.gz", "helpful-base.{}.jsonl.gz", "helpful-base.{}.jsonl"])
def test_train_and_test_files_keep_their_roles(tmp_path: Path, layout: str) -> None:
    write(tmp_path / layout.format("train"), [row(f"train {i}") for i in range(10)] + [row("test 0", "sure")])
    write(tmp_path / layout.format("test"), [row(f"test {i}") for i in range(4)])
    data = source(tmp_path)
    assert {p.text for p in data.prompts(Split.EVALUATION)} == {f"test {i}" for i in range(4)}
    assert {p.text for p in data.prompts(Split.TRAIN)} == {f"train {i}" for i in range(10)}  # without "test 0"
    assert data.counts()["unused"] == 1


def test_the_folder_of_the_subset_itself_will_do(tmp_path: Path) -> None:
    write(tmp_path / "helpful-base" / "train.jsonl.gz", [row(f"q{i}") for i in range(5)])
    assert len(source(tmp_path / "helpful-base", held_out_rows=2).prompts(Split.TRAIN)) == 3
    with pytest.raises(UserError, match="harmless-base"):
        source(tmp_path / "helpful-base", subset="harmless-base")


def test_demonstrations_are_the_preferred_replies_of_training_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(f"q{i}", f"good {i}", f"bad {i}") for i in range(10)])
    data = source(path, held_out_rows=4)
    assert [d.prompt.id for d in data.demonstrations()] == ids(data, Split.TRAIN)
    assert all(d.response == "good " + d.prompt.text[1:] for d in data.demonstrations())
    assert all(r.ranks == (0, 1) and r.responses[0].startswith("good") for r in data.rankings())
    assert data.judge(data.demonstrations()[0].prompt, "anything", finished=True) is None


def test_every_row_is_counted_once(tmp_path: Path) -> None:
    rows = [
        *(row(f"q{i}") for i in range(6)),
        row("q0"),
        row("q0", "sure"),
        row("same", "a", "a"),
        row("empty", "a", " "),
        row("one two three four five six"),
        row("q", "a " * 9),
        {"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: x"},
        {"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a\n\nAssistant: x"},
    ]
    counts = source(
        write(tmp_path / "x.jsonl", rows), held_out_rows=3, max_rows=2, max_prompt_words=5, max_response_words=8
    ).counts()
    assert counts["read"] == len(rows) == 14
    once = {"identical_replies", "empty_reply", "duplicate_row", "long_prompt", "long_response"}
    once |= {"diverging_dialogues", "no_assistant_reply", "repeated_prompt"}
    assert {name for name, count in counts.items() if count == 1} - {"unused"} == once
    assert counts["kept"] == 7 == counts["train"] + counts["held_out"] + counts["unused"]
    assert counts["read"] == counts["kept"] + len(once - {"repeated_prompt"})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{not json", "not JSON"),
        ("[" * 100_000, "no row of HH-RLHF .*recursion"),
        ('{"chosen": ' + "1" * 5000 + "}", "no row of HH-RLHF .*digits"),
        ("[1]", "not list"),
        ('{"chosen": "a"}', "'rejected' is missing"),
        ('{"chosen": "a", "rejected": 3}', "'rejected' must be text, not int"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row("q")) + "\n\n" + line + "\n")
    with pytest.raises(UserError, match=rf"bad\.jsonl, line 3: .*{problem}"):
        source(path)


def test_a_truncated_or_false_gzip_file_is_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "x.jsonl.gz", [row(f"q{i}", str(hash(str(i)))) for i in range(2000)])
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"cut\.jsonl\.gz, after line \d+: not a whole gzip file"):
        source(cut)
    cut.write_text(json.dumps(row("q")))
    with pytest.raises(UserError, match="after line 0: not a whole gzip file"):
        source(cut)
    cut.with_suffix("").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match="not UTF-8"):
        source(cut.with_suffix(""))


def test_a_missing_path_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or folder"):
        source(tmp_path / "nowhere")
    write(tmp_path / "other.jsonl", [row("q")])
    with pytest.raises(UserError, match=r"Looked for helpful-base/train\.jsonl\.gz.*the folder has other\.jsonl"):
        source(tmp_path)


def test_too_few_rows_or_a_wrong_option_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(f"q{i}") for i in range(4)])
    with pytest.raises(UserError, match=r"of 4 rows read .* 4 are held out and 0 are left"):
        source(path, held_out_rows=4)
    with pytest.raises(UserError, match=r"set aside: long_response 4"):
        source(write(tmp_path / "y.jsonl", [row(f"q{i}", "a b") for i in range(4)]), max_response_words=1)
    with pytest.raises(UserError, match=r"data\.max_rows"):
        source(path, max_rows=-1)


def test_without_a_path_an_unreachable_hub_points_to_local_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"data\.path=<folder>"):
        HHDataSource(HHConfig(), seeds=Seeds(0))
    with pytest.raises(UserError, match=r"Did you mean 'helpful-base'"):
        HHDataSource(HHConfig(subset="helpful-bas"), seeds=Seeds(0))


@pytest.mark.parametrize(
    ("subset", "read", "identical", "empty", "diverging"),
    [("helpful-base", 2354, 2, 4, 9), ("harmless-base", 2312, 0, 4, 5)],
)
def test_the_real_test_files(subset: str, read: int, identical: int, empty: int, diverging: int) -> None:
    """The dirty rows are those that were counted in these files by other means."""
    expected = {
        "read": read,
        "kept": read - identical - empty - diverging,
        "identical_replies": identical,
        "empty_reply": empty,
        "diverging_dialogues": diverging,
    }
    data = source(shared_data("hh-rlhf"), subset=subset)
    assert {name: data.counts()[name] for name in expected} == expected
    assert data.counts()["held_out"] == 500
    assert not set(ids(data, Split.TRAIN)) & set(ids(data, Split.EVALUATION))
    for ranking in data.rankings():
        roles = [m.role for m in ranking.prompt.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert all(m.content.strip() for m in ranking.prompt.messages) and all(r.strip() for r in ranking.responses)
