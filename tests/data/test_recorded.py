import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from alignbench_data.config import RecordedConfig
from alignbench_data.recorded import RecordedAnnotator, read_rankings
from hypothesis import given
from hypothesis import strategies as st

from alignbench import DataSource, Message, Prompt, Ranking, Seeds, Split, UserError

TRAIN, EVALUATION = Prompt("t1", (Message("user", "train?"),)), Prompt("e1", (Message("user", "test?"),), cluster="c")


class Data(DataSource):
    def __init__(self, rankings: Sequence[Ranking] = ()) -> None:
        self._rankings = rankings

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return [TRAIN] if split is Split.TRAIN else [EVALUATION]

    def rankings(self) -> Sequence[Ranking]:
        return self._rankings


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def annotator(path: object = "", data: DataSource | None = None) -> RecordedAnnotator:
    return RecordedAnnotator(RecordedConfig(str(path)), data=data or Data(), seeds=Seeds(0))


def test_a_file_by_hand_and_a_file_by_a_run_are_read(tmp_path: Path) -> None:
    by_hand = {"prompt": "Say hi", "responses": ["hi", "no", "hello"], "ranks": [1, 3, 1]}
    by_run = {
        "id": "w7",
        "messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Q"}],
        "responses": ["a", ""],
        "ranks": [1, 0],
        "finished": [True, False],
        "annotator": "mild",
    }
    first, second = read_rankings(write(tmp_path / "r.jsonl", by_hand, by_run))
    assert first.prompt.messages == (Message("user", "Say hi"),) and first.prompt.id
    assert (first.responses, first.ranks, first.finished) == (("hi", "no", "hello"), (0, 1, 0), ())
    assert (second.prompt.id, second.ranks, second.finished) == ("w7", (1, 0), (True, False))


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=6))
def test_ranks_keep_their_order_and_start_at_zero(tmp_path_factory: pytest.TempPathFactory, ranks: list[int]) -> None:
    path = tmp_path_factory.mktemp("r") / "r.jsonl"
    (ranking,) = read_rankings(write(path, {"prompt": "p", "responses": ["x"] * len(ranks), "ranks": ranks}))
    assert min(ranking.ranks) == 0 and max(ranking.ranks) == len(set(ranks)) - 1
    for i, a in enumerate(ranks):
        for j, b in enumerate(ranks):
            assert (a < b) == (ranking.ranks[i] < ranking.ranks[j])


GOOD = {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ranks": None}, "'ranks' must be a list of whole numbers"),
        ({"ranks": [0, 1.5]}, "whole numbers"),
        ({"ranks": [0, True]}, "whole numbers"),
        ({"ranks": [0]}, "2 responses but 1 ranks"),
        ({"responses": ["a"], "ranks": [0]}, "at least two responses"),
        ({"responses": "ab"}, "'responses' must be a list of texts"),
        ({"responses": ["a", 3]}, "list of texts"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": 3}, "'prompt' must be text or a list of messages, not a number"),
        ({"messages": [{"role": "user", "content": "p"}]}, "either 'prompt' or 'messages'"),
        ({"prompt": ..., "messages": []}, "at least one message"),
        ({"prompt": ..., "messages": [{"role": "assistant", "content": "p"}]}, "the last message must be the user's"),
        ({"prompt": ..., "messages": [{"role": "narrator", "content": "p"}]}, "system, user, assistant"),
        ({"prompt": ..., "messages": ["p"]}, "each message needs"),
        ({"prompt": ...}, "either 'prompt' or 'messages'"),
        ({"responses": ...}, "'responses' is missing"),
        ({"finished": [True]}, "1 in 'finished'"),
        ({"id": ["x"]}, "'id' must be text"),
        ({"prompt": "Half \ud83d?"}, r"'\\ud83d' is half of a surrogate pair"),
        ({"responses": ["a", "\udc00"]}, r"'\\udc00' is half of a surrogate pair"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    row = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    with pytest.raises(UserError, match=rf"r\.jsonl, line 2: .*{problem}"):
        read_rankings(write(tmp_path / "r.jsonl", GOOD, row))


def test_a_file_that_holds_nothing_readable(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    deep, digits = b"[" * 100_000, b'{"id": ' + b"1" * 5000 + b"}"
    bad = {deep: "not JSON .*recursion", digits: "line 1: no row: .*digits"}
    bad |= {
        b"\n": "is empty",
        b"{": "line 1: not JSON",
        b"\xff": "not UTF-8",
        b"[]": "no ranking",
        b"[3]": "row 1: an object is needed",
    }
    for content, problem in bad.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=problem):
            read_rankings(path)
    with pytest.raises(UserError, match="No such file"):
        read_rankings(tmp_path / "nowhere.jsonl")


def test_without_a_path_the_rankings_are_those_of_the_data() -> None:
    rankings = [Ranking(TRAIN, ("a", "b"), (0, 1))]
    recorded = annotator(data=Data(rankings))
    assert recorded.recorded() == rankings and not recorded.samples_responses
    assert annotator().recorded() == [], "the run says what to choose"


def test_rankings_of_a_file_join_the_prompts_of_the_data(tmp_path: Path) -> None:
    """An evaluation prompt is recognised by its words, so that its ranking is held out."""
    rows = [{**GOOD, "prompt": "test?"}, {**GOOD, "prompt": "train?", "id": "t1"}, {**GOOD, "prompt": "new"}]
    first, second, third = annotator(write(tmp_path / "r.jsonl", *rows)).recorded()
    assert first.prompt is EVALUATION and second.prompt is TRAIN and third.prompt.text == "new"
    with pytest.raises(UserError, match="'e1', which is another prompt"):
        annotator(write(tmp_path / "r.jsonl", {**GOOD, "id": "e1"}))
