"""Whatever anybody asks of any route is answered in words: never by a fault of the server. A route that is not asked here fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from alignbench.page.simulator import starts
from alignbench.page.simulator.checkpoints import generations
from alignbench.page.training import Training
from tests.page.rank_kit import Visitor, item, project
from tests.page.test_rank_api import actions, json_values
from tests.results.on_disk import dpo, ppo, write_scores, write_with_baseline

TRAINING = "0" * 16
VIEW = ("only", "row", "metric", "primary", "baseline", "at_kl", "at_budget", "force")
"""What chooses rows, in every question to the results."""
PATHS = {
    "project": ["first", "gone"], "name": ["Ann", "session"], "id": [TRAINING, "1" * 16], "act": ["stop", "resume"], "token": ["x"],
}  # fmt: skip
RUN = "the run with weights"
KNOWN_PROMPT = "a prompt of the data's own"
"""Both are replaced by what they are called."""
START = st.fixed_dictionaries(
    {}, optional={"start": st.sampled_from(["", "x"]) | json_values, "text": st.just("hello there") | json_values}
)
SAY = st.fixed_dictionaries(
    {},
    optional={
        "start": st.sampled_from(["", "", "x"]) | json_values,
        "run": st.sampled_from([RUN, RUN, "", "x"]) | json_values,
        "prompt": st.sampled_from([KNOWN_PROMPT, KNOWN_PROMPT, "", "x"]) | json_values,
        "text": st.sampled_from(["", "hello there"]) | json_values,
        "seed": st.integers(0, 9) | st.integers() | json_values,
    },
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "start": st.text(max_size=9) | json_values,
        "title": json_values,
        "choices": st.dictionaries(st.sampled_from(["algo", "algo.kl_coef", "seed", "eval.families", "x"]), json_values)
        | json_values,
    },
)
LEARN = st.dictionaries(st.sampled_from(["algo", "passes", "seed", "algo.beta", "data"]), json_values, max_size=4)


NOTHING: st.SearchStrategy[Any] = st.just({})


@dataclass(frozen=True)
class Asked:
    """The names of a route's query, and the body of a change."""

    query: tuple[str, ...] = ()
    body: st.SearchStrategy[Any] = NOTHING


ROUTES: Mapping[tuple[str, str], Asked] = {
    ("GET", "/"): Asked(("view", "run")),
    ("GET", "/results/state"): Asked(),
    ("GET", "/results/table"): Asked((*VIEW, "sort", "page")),
    ("GET", "/results/differences"): Asked(VIEW),
    ("GET", "/results/plot"): Asked((*VIEW, "plot")),
    ("GET", "/results/responses"): Asked(("run", "q", "page")),
    ("GET", "/results/runs"): Asked(("q", "status", "page")),
    ("GET", "/results/training"): Asked(("run", "stage")),
    ("GET", "/results/settings"): Asked(("run",)),
    ("GET", "/simulator"): Asked(("start",)),
    ("GET", "/simulator/starts"): Asked(),
    ("GET", "/simulator/pool"): Asked(("start",)),
    ("GET", "/simulator/checkpoint"): Asked(("start", "run")),
    ("POST", "/simulator/ask"): Asked(body=START),
    ("POST", "/simulator/say"): Asked(body=SAY | json_values),
    ("GET", "/simulator/trainings"): Asked(),
    ("POST", "/simulator/trainings"): Asked(body=CHOICES),
    ("GET", "/simulator/trainings/{id}/events"): Asked(),
    ("POST", "/simulator/trainings/{id}/{act:str}"): Asked(body=json_values),
    ("GET", "/rank"): Asked(),
    ("GET", "/rank/{project}"): Asked(),
    ("GET", "/rank/{project}/board"): Asked(),
    ("GET", "/rank/{project}/rankings.jsonl"): Asked(("names",)),
    ("POST", "/rank/{project}/train"): Asked(body=LEARN | json_values),
    ("GET", "/rank/{project}/training"): Asked(),
    ("GET", "/rank/{project}/training/{id}"): Asked(("after", "point")),
    ("POST", "/rank/{project}/training/{id}/stop"): Asked(body=json_values),
    ("POST", "/rank/{project}/training/{id}/resume"): Asked(body=json_values),
    **{
        (method, base + path): Asked(body=actions | json_values)
        for base in ("/rank/{project}/as/{name}", "/annotate/{token}")
        for method, path in (("GET", ""), ("GET", "/state"), ("POST", "/action"))
    },
}
KNOWN = (
    "ppo kl_coef=0.1", "helpfulness/gold_reward", "-seconds", "frontier", "training", "cost", "1", "-1", "0", "nan", "1e999", "²", "algo=ppo", "ppo",
    "hashed", "failed",
)  # fmt: skip
SAID = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, results: Path, sizes: None) -> Visitor:
    """Three runs, of which one has weights, a project, and a training whose process is gone. Nothing can be started."""
    tmp_path = tmp_path_factory.mktemp("routes")
    for settings_ in (ppo(0.1, 0), dpo(0)):
        write_scores(write_with_baseline(tmp_path / "runs", settings_, 1.0), "helpfulness/gold_reward", [0.1, 0.2, 0.3])
    (trained,) = results.glob("*-ppo-*")
    shutil.copytree(trained, tmp_path / "runs" / trained.name)
    project(tmp_path, [item(i) for i in range(3)])
    (tmp_path / "runs" / ".page").mkdir()
    gone = Training(TRAINING, "rank/first", ("algo=ppo",), "ppo-tiny-world-s0-00000000", 0.0, 2**22 - 1, 0.0)
    (tmp_path / "runs" / ".page" / f"{TRAINING}.json").write_text(json.dumps(asdict(gone)))
    return Visitor(tmp_path)


def of_app(visitor: Visitor) -> set[tuple[str, str]]:
    found = set()
    for route in visitor.http.app.routes:  # type: ignore[attr-defined]
        if isinstance(route, Route):
            found |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    return found


def test_no_route_is_left_out(asked: Visitor) -> None:
    assert set(ROUTES) == of_app(asked)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_question_is_a_fault_of_the_server(
    asked: Visitor, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launched(self: object, name: str, title: str, overrides: tuple[str, ...], run: str) -> Training:
        return Training(name, title, overrides, run, 0.0, 2**22 - 1, 0.0)

    monkeypatch.setattr("alignbench.page.training.Trainings._launch", launched)
    names = [name.partition(":")[0] for name in _between(path)]
    start = starts.chosen(asked.results)
    trained = start.runs[0].path.name
    own = next(line["prompt"] for line in generations(start.runs[0].path))

    @given(data=st.data())
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(data: st.DataObject) -> None:
        address = path.replace(":str", "")
        for name in names:
            address = address.replace(
                f"{{{name}}}", quote(data.draw(st.sampled_from(PATHS[name]) | SAID, label=name), safe="")
            )
        runs = [one.name for one in asked.results.iterdir() if one.is_dir()]
        values = st.lists(st.sampled_from([*KNOWN, *runs, *(f"{run}/sft" for run in runs)]) | SAID, max_size=3)
        query = {name: data.draw(values, label=name) for name in ROUTES[method, path].query}
        if query:
            address += "?" + urlencode(query, doseq=True)
        if method == "GET":
            answer = asked.http.get(address)
        else:
            body = data.draw(ROUTES[method, path].body.map(json.dumps) | st.binary(max_size=40), label="body")
            if isinstance(body, str):
                body = body.replace(RUN, trained).replace(KNOWN_PROMPT, own)
            answer = asked.post(address, body)
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
        assert "Something went wrong" not in answer.text, "told in a line of an answer that had begun"

    ask()


@pytest.mark.parametrize("seed", [0, -1, 2**70])
def test_a_run_with_weights_is_reached(asked: Visitor, seed: int) -> None:
    """Else the questions above end before any model is asked."""
    start = starts.chosen(asked.results)
    own = next(line["prompt"] for line in generations(start.runs[0].path))
    for run in (start.runs[0].path.name, ""):
        answer = asked.post("/simulator/say", {"run": run, "prompt": own, "seed": seed})
        assert "done" in json.loads(answer.text.splitlines()[-1]), answer.text


def _between(path: str) -> list[str]:
    return [part.partition("}")[0] for part in path.split("{")[1:]]
