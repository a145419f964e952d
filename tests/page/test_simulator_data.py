"""What the simulator shows, before any browser: its samples, its mathematics, its routes and its single file."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from alignbench import UserError
from alignbench.page.server import create_app
from alignbench.page.settings import PageSettings
from alignbench.page.simulator import columns, export, pool, starts
from alignbench.page.simulator.world import load

NUMBERS = [0.0, 1.5, -2.25, math.nan, 1e-3]


def test_columns_keep_what_a_gauge_shows() -> None:
    packed = columns.numbers(NUMBERS)
    for was, found in zip(NUMBERS, columns.read(packed), strict=True):
        assert math.isnan(found) if math.isnan(was) else found == pytest.approx(was, abs=1e-4)
    assert columns.read(columns.counts([0, 3, 512, 65000])) == [0, 3, 512, 65000]
    assert [math.isnan(v) for v in columns.read(columns.numbers([math.nan, math.nan]))] == [True, True]
    assert columns.read(columns.numbers([2.0, 2.0])) == [2.0, 2.0]
    assert columns.read(columns.numbers([])) == []
    whole = columns.read(json.loads(json.dumps(columns.exact([1 / 3, math.nan, 1e-300]))))
    assert whole[0] == 1 / 3 and math.isnan(whole[1]) and whole[2] == 1e-300


def rows(data: dict[str, Any], name: str) -> list[float]:
    return columns.read(data["pool"]["columns"][name])


def test_the_samples_are_the_models(simulated: dict[str, Any]) -> None:
    sizes, counts = simulated["pool"]["sizes"], columns.read(simulated["pool"]["counts"])
    assert len(sizes) == len(simulated["prompts"]) == 6, "two questions, each with three opinions"
    assert {prompt["opinion"] for prompt in simulated["prompts"]} == {"none", "right", "wrong"}
    assert sum(sizes) == len(counts) == len(simulated["pool"]["texts"])
    start = 0
    for size in sizes:
        assert sum(counts[start : start + size]) == simulated["samples"]
        texts = list(
            zip(simulated["pool"]["texts"][start : start + size], rows(simulated, "length")[start:], strict=False)
        )
        assert len(set(texts)) >= size - 1  # the same words may have ended, or been cut
        start += size
    assert all(value < 0 for value in rows(simulated, "logprob"))
    assert max(rows(simulated, "gold")) <= 4.0001


def test_annotators_and_rewards_come_with_their_terms(simulated: dict[str, Any]) -> None:
    by_name = {someone["name"]: someone for someone in simulated["annotators"]}
    assert set(by_name) >= {"honest", "mild", "sycophantic"}
    weights = {term["setting"]: term["weight"] for term in by_name["mild"]["terms"]}
    assert weights["b_agree"] == 2.7
    assert by_name["mild"]["noise"] == pytest.approx(0.5, rel=1e-6)
    assert [reward["label"] for reward in simulated["rewards"]] == ["learned from the rankings of mild"]
    correct = rows(simulated, "correct")
    place = [term["setting"] for term in by_name["mild"]["terms"]].index("b_correct")
    assert rows(simulated, f"feature{place}") == pytest.approx(correct, abs=1e-4)


def test_checkpoints_say_what_they_said_when_they_were_evaluated(simulated: dict[str, Any], results: Path) -> None:
    (checkpoint,) = simulated["checkpoints"]
    assert checkpoint["algo"] == "ppo" and checkpoint["reward"] == simulated["rewards"][0]["name"]
    (run,) = results.glob("*-ppo-*")
    lines = [json.loads(line) for line in (run / "generations.jsonl").read_text().splitlines()]
    asked = {prompt["id"] for prompt in simulated["prompts"]}
    mine = [line for line in lines if line["prompt"] in asked]
    assert checkpoint["texts"] == [line["response"] for line in mine]
    ratio = [line["logprob"] - line["ref_logprob"] for line in mine]
    assert checkpoint["kl"] == pytest.approx(sum(ratio) / len(ratio), abs=1e-3)
    for tokens, line in zip(checkpoint["tokens"], mine, strict=True):
        assert "".join(piece for piece, _ in tokens).strip() == line["response"]
        if len(tokens) == line["tokens"]:  # a special token in the middle leaves no text
            assert sum(value for _, value in tokens) == pytest.approx(line["logprob"] - line["ref_logprob"], abs=0.1)
    whole = [len(tokens) == line["tokens"] for tokens, line in zip(checkpoint["tokens"], mine, strict=True)]
    assert sum(whole) > len(whole) / 4
    assert columns.read(checkpoint["columns"]["gold"]) == pytest.approx(
        [line["gold_reward"] for line in mine], abs=1e-3
    )


def test_what_is_wrong_with_a_results_folder_is_said(tmp_path: Path, results: Path) -> None:
    assert starts.starts(tmp_path / "nowhere") == []
    with pytest.raises(UserError, match="no finished run to simulate with"):
        starts.chosen(tmp_path)
    with pytest.raises(UserError, match="no longer in the results folder"):
        starts.chosen(results, "0123456789abcdef")
    (start,) = starts.starts(results)
    assert starts.chosen(results, start.key) == start


def test_without_a_reward_the_truth_is_tilted_by_or_models_answer_and_no_more(
    results: Path, sizes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = dataclasses.replace(load(starts.chosen(results)), annotators=(), rewards=())
    assert [reward["name"] for reward in pool._made(world, lambda text: None)["rewards"]] == ["gold"]
    monkeypatch.setattr(world.data, "judge", lambda prompt, response, finished: None)
    made = pool._made(world, lambda text: None)
    assert (made["rewards"], made["pool"]) == ([], None)
    assert len(made["prompts"]) == 6 and len(made["checkpoints"]) == 1
    with pytest.raises(UserError, match="without a server there is nothing to simulate"):
        export.export(made, tmp_path / "simulator.html")


def test_the_single_file_holds_all_that_it_needs(simulated: dict[str, Any], tmp_path: Path) -> None:
    hostile = json.loads(json.dumps(simulated))
    hostile["pool"]["texts"][0] = "</script><img src=x onerror=alert(1)>"
    hostile["label"] = "<b>label</b>"
    size = export.export(hostile, tmp_path / "simulator.html")
    text = (tmp_path / "simulator.html").read_text()
    assert size == len(text.encode()) < export.MOST_BYTES
    assert "<img src=x" not in text and "<b>label" not in text
    assert text.count("</script>") == 2
    assert not re.search(r"""(src|href)=["'](?!data:)""", text), "nothing is loaded"
    assert not re.search(r"^(import|export)\b", export.bundle(), re.MULTILINE)
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data and json.loads(data.group(1)) == hostile
    hostile["pool"]["texts"][0] = "x" * export.MOST_BYTES
    with pytest.raises(UserError, match="more than"):
        export.export(hostile, tmp_path / "large.html")
    assert not (tmp_path / "large.html").exists()


@pytest.fixture
def client(results: Path) -> TestClient:
    return TestClient(create_app(PageSettings(results)), base_url="http://127.0.0.1")


def changing(client: TestClient, path: str, body: object) -> Any:
    key = client.get("/session").json()["key"]
    return client.post(path, json=body, headers={"origin": "http://127.0.0.1", "x-alignbench-change": key})


def test_questions_of_ones_own(client: TestClient, simulated: dict[str, Any], sizes: None) -> None:
    known = simulated["prompts"][0]["text"]
    found = changing(client, "/simulator/ask", {"start": "", "text": f"  {known} "})
    assert found.status_code == 200, found.text
    assert found.json()["known"] is True
    assert sum(columns.read(found.json()["pool"]["counts"])) == simulated["samples"]
    for body, words in (
        ({"text": "hello there"}, "its own language alone. Ask for example: "),
        ({"text": " "}, "1 to 500 characters"),
        ({"text": "x" * 501}, "1 to 500 characters"),
        ({"text": 3}, "text is not text"),
        ({"text": known, "start": "elsewhere"}, "no longer in the results folder"),
        ([], "must be an object"),
    ):
        refused = changing(client, "/simulator/ask", body)
        assert refused.status_code == 400 and words in refused.text, refused.text


def test_trainings_are_checked(client: TestClient) -> None:
    for body, words in (
        ({"start": "", "choices": {"algo": "ppos"}}, "Unknown algo"),
        ({"start": "", "choices": {"model.path": "x"}}, "cannot be set from the page"),
        ({"start": "", "choices": 3}, "is missing"),
    ):
        refused = changing(client, "/simulator/trainings", body)
        assert refused.status_code == 400 and words in refused.text, refused.text
    assert client.get("/simulator/trainings").json() == []
    assert client.get("/simulator/trainings/0123456789abcdef/events").status_code == 400
    assert changing(client, "/simulator/trainings/0123456789abcdef/stop", {}).status_code == 400
    assert changing(client, "/simulator/trainings/0123456789abcdef/delete", {}).status_code == 400
