"""Ranking over HTTP: who may do what, whatever a body holds, and what strangers wrote stays text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from alignbench.app.compose import load_config
from alignbench.page.markdown import MOST_MARKED, TAGS, Node, tree
from alignbench.page.rank.projects import new_link
from alignbench.page.rank.store import FILE
from alignbench.page.rank.training import PASSES, RankTrainings, algorithms, amount
from alignbench.page.training import Trainings
from tests.page.rank_kit import Person, Visitor, action_id, item, project

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![x](http://evil.example/pixel.png) <http://evil.example>",
    "\x00\x07\x1b[31m red",
    "\u202egnirts detrever\u202c שלום",
    "half \ud800 a pair",
    "| a |\n|-|\n| <b>b</b> |",
    "x" * 1_000_000,
    "*" * 15_000,
    "",
)


def test_two_people_rank_and_the_board_tells(tmp_path: Path) -> None:
    project(tmp_path, [item(i) for i in range(4)], people=2, about={"from": "a test"})
    visitor = Visitor(tmp_path)
    for name in ("Ann", "Ben"):
        person = Person(visitor, name)
        for left in (3, 2, 1, 0):
            state = person.answer([0, 1, 2], seconds=4.5)
            assert state["done"] == 4 - left and (state["item"] is None) == (left == 0)
    board = visitor.http.get("/rank/first/board").json()
    assert (board["answers"], board["have"], board["needed"]) == (8, 8, 8)
    assert [(one["name"], one["seconds"]) for one in board["agreement"]["people"]] == [("Ann", 4.5), ("Ben", 4.5)]
    lines = visitor.http.get("/rank/first/rankings.jsonl").text.splitlines()
    assert len(lines) == 8 and {json.loads(line)["annotator"] for line in lines} == {"Ann", "Ben"}
    assert "Ann" not in visitor.http.get("/rank/first/rankings.jsonl?names=hashed").text
    assert "first" in visitor.http.get("/rank").text
    for path in ("/rank/first", "/rank/first/as/Ann"):
        assert visitor.http.get(path).status_code == 200


def test_the_board_is_computed_anew_after_an_undo_and_another_answer(tmp_path: Path) -> None:
    project(tmp_path, [item(0)], people=1)
    visitor = Visitor(tmp_path)
    person = Person(visitor, "Ann")
    person.answer([0, 1, 2], seconds=1)
    assert visitor.http.get("/rank/first/board").json()["agreement"]["people"][0]["seconds"] == 1
    person.act("undo")
    assert visitor.http.get("/rank/first/board").json()["answers"] == 0
    person.answer([0, 1, 2], seconds=9)
    assert visitor.http.get("/rank/first/board").json()["agreement"]["people"][0]["seconds"] == 9


@pytest.mark.parametrize("name", ["missing", "..", "%2e%2e", "a%2fb", "first%00", "x" * 200, "first%0a"])
def test_a_project_that_is_not_there(tmp_path: Path, name: str) -> None:
    project(tmp_path, [item(0)])
    answer = Visitor(tmp_path).http.get(f"/rank/{name}/board")
    assert answer.status_code in (400, 404) and "Traceback" not in answer.text


def test_faults_are_told_in_words_with_a_status_of_their_own(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0), item(1)], people=1)
    visitor = Visitor(tmp_path)
    person = Person(visitor, "Ann")
    number = person.state()["item"]["number"]
    person.answer([0, 1, 2])
    again = person.act("answer", item=number, ranks=[2, 1, 0])
    assert again.status_code == 409 and "already" in again.text
    assert person.act("answer", item=number + 1, ranks=[7, 1, 0]).status_code == 400
    person.state()
    served = Visitor(tmp_path)
    other = Person(served, "Ann")
    other.state()
    routes = [
        route for route in served.http.app.routes if getattr(route, "path", "") == "/rank/{project}/as/{name}/action"
    ]
    with routes[0].endpoint.__self__._projects.get("first").changing() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
    full = [other.act("draft", item=number + 1, ranks=[None] * 3, note="x" * 9999) for _ in range(3)]
    assert any(answer.status_code == 507 and "safe" in answer.text for answer in full)
    shutil.rmtree(made.folder)
    gone = person.visitor.http.get(f"{person.base}/state")
    assert gone.status_code == 400 and "no project first" in gone.text


def test_changes_need_the_pages_own_key(tmp_path: Path) -> None:
    project(tmp_path, [item(0)])
    visitor = Visitor(tmp_path)
    for path in ("/rank/first/as/Ann/action", "/rank/first/train", "/annotate/x/action"):
        assert visitor.http.post(path, json={}).status_code == 403
        assert visitor.http.get(path).status_code == 405


def test_a_link_opens_one_project_for_one_person_and_nothing_else(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0), item(1)], people=2)
    project(tmp_path, [item(0)], name="second")
    secret = "a secret of some length"
    visitor = Visitor(tmp_path, token=secret)
    link = new_link(made, "Ann O'Hara-Ünal")
    page = visitor.http.get(link)
    assert page.status_code == 200 and "second" not in page.text and "/simulator" not in page.text
    assert visitor.http.get("/rank/first/board").status_code == 403
    assert visitor.http.get("/rank/first/as/Ben/state").status_code == 403
    state = visitor.http.get(f"{link}/state").json()
    body = {"id": action_id(), "kind": "answer", "item": state["item"]["number"], "ranks": [0, 1, 2]}
    done = visitor.post(f"{link}/action", body, session="/annotate/session")
    assert done.status_code == 200 and [a.annotator for a in made.answers()] == ["Ann O'Hara-Ünal"]
    token = link.rpartition("/")[2]
    stored = (made.folder / FILE).read_bytes() + b"".join(path.read_bytes() for path in made.folder.glob("*-wal"))
    assert token.encode() not in stored, "its hash alone is kept"
    renewed = new_link(made, "Ann O'Hara-Ünal")
    assert visitor.http.get(f"{link}/state").status_code == 403
    assert visitor.http.get(f"{renewed}/state").json()["done"] == 1
    assert visitor.http.get("/annotate/guess/state").status_code == 403
    assert visitor.http.get("/annotate/session/state").status_code == 403


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
actions = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=70) | st.just("a" * 32) | json_values,
        "kind": st.sampled_from(["draft", "answer", "undo", "other"]) | json_values,
        "item": st.integers(-(2**70), 2**70) | st.just(1) | json_values,
        "ranks": st.lists(st.none() | st.integers(-3, 5), max_size=4) | json_values,
        "scales": st.dictionaries(st.sampled_from(["helpful", "x"]), st.lists(st.integers(-1, 9), max_size=4))
        | json_values,
        "note": st.text(max_size=30) | json_values,
        "seconds": st.floats() | json_values,
    },
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Visitor:
    tmp_path = tmp_path_factory.mktemp("fuzz")
    project(tmp_path, [item(i) for i in range(3)])
    return Visitor(tmp_path)


@given(body=actions.map(json.dumps) | json_values.map(json.dumps) | st.binary(max_size=60))
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_body_is_a_fault_of_the_server(fuzzed: Visitor, body: str | bytes) -> None:
    for path in ("/rank/first/as/Ann/action", "/rank/first/train"):
        if path.endswith("train") and b'"algo"' in (body.encode() if isinstance(body, str) else body):
            continue
        answer = fuzzed.post(path, body)
        assert answer.status_code in (200, 400, 409), answer.text
    state = fuzzed.http.get("/rank/first/as/Ann/state")
    assert (state.status_code == 200 and state.json()["item"] is not None) or state.json()["done"] == 3


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"item": ' + b"9" * 5000 + b"}", b"\xff\xfe", b'{"id": "\\ud800"}', b"[]", b"3"]
)
def test_bodies_that_break_parsers(fuzzed: Visitor, body: bytes) -> None:
    answer = fuzzed.post("/rank/first/as/Ann/action", body)
    assert answer.status_code == 400 and len(answer.text) < 300


@pytest.mark.parametrize("after", ["-1", "x", "²", "9" * 40, ""])
def test_a_progress_that_is_asked_for_wrongly(fuzzed: Visitor, after: str) -> None:
    assert fuzzed.http.get("/rank/first/training/0123456789abcdef", params={"after": after}).status_code == 400


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"algo": "os.system"}, "Unknown algorithm"), ({"algo": "sft"}, "Unknown algorithm"), ({}, "Unknown algorithm"),
        ({"algo": "dpo", "results_dir": "/tmp"}, "cannot be set"), ({"algo": "dpo", "data": "hh"}, "cannot be set"),
        ({"algo": "dpo"}, "Nobody has ranked"), ({"algo": "dpo", "passes": 0}, "passes"), ({"algo": "dpo", "passes": "3"}, "passes"), ({"algo": "dpo", "algo.beta": "1 hydra.run.dir=x"}, "Nobody has ranked"),
    ],
)  # fmt: skip
def test_what_the_button_cannot_train(fuzzed: Visitor, tmp_path: Path, choices: dict[str, Any], words: str) -> None:
    project(tmp_path, [item(0)])
    answer = Visitor(tmp_path).post("/rank/first/train", choices)
    assert answer.status_code == 400 and words in answer.text


@pytest.mark.parametrize("algo", ["dpo", "ipo"])
def test_people_say_which_and_not_with_what_probability(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Presets of the exact world learn from an annotator's own probabilities, which people do not have."""
    found = project(tmp_path, [item(0)], overrides=("experiment=exact",))
    Person(Visitor(tmp_path), "Ann").answer([0, 1, 2])
    given: list[tuple[str, ...]] = []
    monkeypatch.setattr(Trainings, "_launch", lambda self, name, title, overrides, run: given.append(overrides))
    RankTrainings(tmp_path / "runs").start(found, {"algo": algo, "seed": 0})
    assert not load_config(given[0]).algo.config.soft_labels
    assert load_config(["experiment=exact", f"algo={algo}"]).algo.config.soft_labels


def test_names_are_hashed_or_not(fuzzed: Visitor) -> None:
    assert fuzzed.http.get("/rank/first/rankings.jsonl", params={"names": "zzz"}).status_code == 400


def test_few_rankings_are_not_learnt_by_heart() -> None:
    assert amount("dpo", PASSES) == {"algo.updates": 0, "algo.passes": 10.0}
    assert amount("ppo", PASSES) == {}, "it samples, for as long as it is set to"
    listed = algorithms()
    assert (
        listed.index("dpo") < listed.index("kto") < listed.index("ppo")
        and "sft" not in listed
        and "best_of_n" not in listed
    )


def walk(nodes: list[Node], see: Callable[[Node], None]) -> None:
    for node in nodes:
        see(node)
        if isinstance(node, dict):
            walk(node["children"], see)


@given(text=st.text(max_size=300) | st.text(alphabet="<>[]()!*_`#-|\n\\ab:/&;\x00\x1b", max_size=300))
@hypothesis_settings(max_examples=200, deadline=None)
def test_markdown_becomes_allowed_tags_and_text(text: str) -> None:
    allowed = TAGS | {"heading", "plain", "span"}

    def see(node: Node) -> None:
        if isinstance(node, str):
            assert not any(ord(c) < 32 and c not in "\n\t" for c in node)
        else:
            assert node.keys() == {"tag", "children"} and node["tag"] in allowed

    walk(tree(text), see)


def test_no_text_is_lost_or_becomes_markup() -> None:
    said: list[str] = []
    walk(
        tree("# T\n\n**b** <script>x</script> [w](http://a.b) `c<d`"),
        lambda node: said.append(node) if isinstance(node, str) else None,
    )
    assert "".join(said) == "Tb <script>x</script> w (http://a.b) c<d"
    assert tree("x" * (MOST_MARKED + 1)) == [{"tag": "plain", "children": ["x" * (MOST_MARKED + 1)]}]


def test_hostile_texts_come_back_as_text(tmp_path: Path) -> None:
    project(tmp_path, [item(i, (text, "fine")) for i, text in enumerate(HOSTILE)], people=1)
    person = Person(Visitor(tmp_path), "Ann")
    for _ in HOSTILE:
        assert len(person.state()["item"]["responses"]) == 2
        person.answer([0, 0], note="\ud800<script>")
    assert person.state()["item"] is None
