"""A language model ranks responses, against a server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alignbench_rewards.ai_feedback import JudgeAnnotator
from alignbench_rewards.config import JudgeAnnotatorConfig

from alignbench import Seeds, UserError
from alignbench.app.compose import load_config
from tests import tiny
from tests.core.harness import SMALL, command, lines, records
from tests.rewards.server import KEY, VARIABLE, Answer, Stub, stub
from tests.rewards.test_judge import NoData, by_length, shown


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def build(server: Stub | str = "http://127.0.0.1:9/v1", **settings: Any) -> JudgeAnnotator:
    known = {"model": "referee", "key_variable": VARIABLE, "backoff": 0.001, "retries": 0, "reasks": 0, "cache": False}
    url = server if isinstance(server, str) else server.url
    return JudgeAnnotator(JudgeAnnotatorConfig(url=url, **(known | settings)), data=NoData(), seeds=Seeds(0))


def test_it_ranks_by_the_pairs_that_a_response_wins() -> None:
    """Of four responses the longer is better, and the two in the middle are alike: six pairs, each in both orders."""
    with stub(by_length) as server:
        annotator = build(server)
        texts = ("a b", "a b c d", "c", "e f")
        assert annotator.rank(tiny.PROMPTS[0], texts, finished=(True,) * 4) == (1, 0, 2, 1)
    asked = [(shown(body, "answer-A"), shown(body, "answer-B")) for body in server.asked]
    assert len(asked) == 12 and set(asked) == {(b, a) for a, b in asked}, "in both orders"
    assert annotator.report()["pairs"] == 6 and annotator.report()["orders_disagree"] == 0


def test_many_prompts_are_asked_together() -> None:
    with stub(by_length) as server:
        annotator = build(server, concurrency=4)
        ranks = annotator.rank_all(
            tiny.PROMPTS[:3], [("a", "b c"), ("a b c", "d"), ("e", "e")], finished=[(True, True)] * 3
        )
    assert ranks == [(1, 0), (0, 1), (0, 0)]
    assert len(server.asked) == 4, "of equal responses nothing is asked"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (lambda one, other: "Verdict: A", "it takes what is shown first"),
        (lambda one, other: "Verdict: A" if one == "a b" else "Verdict: tie", "one order alone says so"),
        (lambda one, other: "I cannot say.", "it gives no verdict"),
    ],
)
def test_what_both_orders_do_not_say_is_a_tie(said: Any, why: str) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        return Answer(said(shown(body, "answer-A"), shown(body, "answer-B")))

    with stub(answer) as server:
        assert build(server).rank(tiny.PROMPTS[0], ("a b", "c"), finished=(True, True)) == (0, 0), why


def test_it_may_rate_each_response_by_itself() -> None:
    with stub(by_length) as server:
        ranks = build(server, comparison="scalar").rank(tiny.PROMPTS[0], ("a b", "c", "d e"), finished=(True,) * 3)
    assert ranks == (0, 1, 0) and len(server.asked) == 3


def test_by_several_rubrics_a_pair_is_won_where_all_say_so() -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        if "polite" in body["messages"][0]["content"]:
            wins = [shown(body, f"answer-{side}").count("c") for side in "AB"]
            return Answer(f"Verdict: {'A' if wins[0] > wins[1] else 'B' if wins[0] < wins[1] else 'tie'}")
        return by_length(number, body)

    with stub(answer) as server:
        judge = build(server, rubrics={"long": "Long is good.", "polite": "Be polite."}, weights={"polite": 2.0})
        assert judge.rank(tiny.PROMPTS[0], ("a b", "c", "c c"), finished=(True,) * 3) == (1, 2, 0)


def test_a_constitution_from_a_file(tmp_path: Path) -> None:
    """Its words are what the judge is told; other words are another annotator, whose rankings are not shared."""
    path = tmp_path / "constitution.md"
    path.write_text("Choose the answer that a wise person would give.\n")
    with stub(by_length) as server:
        first = build(server, rubric=str(path))
        first.rank(tiny.PROMPTS[0], ("a", "b c"), finished=(True, True))
    assert all("that a wise person would give." in body["messages"][0]["content"] for body in server.asked)
    assert first.fingerprint() and build().fingerprint() == ""
    path.write_text("Choose the shorter one.")
    assert build(rubric=str(path)).fingerprint() != first.fingerprint()
    path.write_text(" ")
    with pytest.raises(UserError, match=r"annotator\.rubric=.*constitution\.md is empty"):
        build(rubric=str(path))
    with pytest.raises(UserError, match=r"annotator\.rubric=nowhere\.txt: the file cannot be read"):
        build(rubric="nowhere.txt")


def test_errors_name_the_annotators_options(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^annotator\.retries=-1"):
        load_config(["annotator=judge", "annotator.model=referee", "annotator.retries=-1"])
    with pytest.raises(UserError, match=r"annotator=judge needs annotator\.model="):
        build(model="")
    with pytest.raises(UserError, match=r"Check annotator\.url and that the server runs"):
        build().rank(tiny.PROMPTS[0], ("a", "b"), finished=(True, True))
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UserError, match=r"annotator\.key_variable="):
        build()


def test_a_run_learns_from_what_the_judge_prefers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "cache"))
    with stub(by_length) as server:
        settings = ("annotator=judge", f"annotator.url={server.url}", "annotator.model=referee", "algo=dpo")
        small = (*SMALL, "rankings.prompts=6", "algo.updates=1", "eval.families=[optimization]")
        where = (f"annotator.key_variable={VARIABLE}", f"results_dir={tmp_path / 'runs'}")
        done = command(capsys, *small, *settings, *where)
        asked = len(server.asked)
        again = command(capsys, *small, *settings, *where[:1], f"results_dir={tmp_path / 'again'}")
        assert len(server.asked) == asked, "the rankings are those of the first run"
    assert (done.code, again.code) == (0, 0), done.err
    run = records(tmp_path / "runs")[0]
    assert records(tmp_path / "again")[0]["reports"] == run["reports"], "what they cost is told by both"
    assert run["identity"]["annotator"] == "judge"
    assert run["reports"]["annotator/requests"] == len(server.asked) > 0
    (path,) = tmp_path.glob("runs/*/rankings.jsonl")
    for ranking in lines(path):
        words = [len(text.split()) for text in ranking["responses"]]
        assert [words[i] for i in sorted(range(3), key=lambda i: ranking["ranks"][i])] == sorted(words, reverse=True)
