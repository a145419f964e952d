"""One person's work: dealt, saved before it is acknowledged, once, taken back, and told in words when it cannot be saved."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from alignbench import Seeds, UserError
from alignbench.page.rank import session as session_module
from alignbench.page.rank.dealing import shown_order
from alignbench.page.rank.items import annotator_name, dense, judgement
from alignbench.page.rank.session import Session
from alignbench.page.rank.store import FILE, VERSION, Annotator, ConflictError, FullError, Project
from tests.page.rank_kit import action_id, item, project


def person(made: Project, name: str = "Ann") -> Session:
    return Session(made, made.annotator(name))


def rank(session: Session, ranks: list[int], name: str | None = None) -> None:
    before = session.state().before
    assert before is not None
    session.act({"id": name or action_id(), "kind": "answer", "item": before.number, "ranks": ranks})


def test_ranks_are_kept_by_response_whatever_the_order_shown(tmp_path: Path) -> None:
    made = project(tmp_path, [item(i) for i in range(8)], people=2)
    orders = set()
    for name in ("Ann", "Ben"):
        for _ in range(8):
            before = person(made, name).state().before
            assert before is not None
            orders.add((name, before.shown))
            # They like blue best, then red and green alike, wherever these stand.
            liked = {"blue": 0, "red": 1, "green": 1}
            rank(person(made, name), [liked[before.item.responses[k]] for k in before.shown])
    assert {answer.judgement.ranks for answer in made.answers()} == {(1, 1, 0)}
    assert all(sorted(answer.shown) == [0, 1, 2] for answer in made.answers())
    assert len({shown for _, shown in orders}) > 3, "drawn anew for each item"


def test_where_one_stopped_is_where_one_goes_on(tmp_path: Path) -> None:
    made = project(tmp_path, [item(i) for i in range(5)], scales=True)
    before = person(made).state().before
    assert before is not None
    said = {"ranks": [2, None, 0], "scales": {"helpful": [7, 0, 1]}, "note": "half \ud800 a pair", "seconds": 3.5}
    person(made).act({"id": action_id(), "kind": "draft", "item": before.number, **said})
    made.close()
    again = person(Project(tmp_path / "rank" / "first")).state().before
    assert again is not None and (again.number, again.shown) == (before.number, before.shown)
    assert again.draft == judgement(said, 3)


def test_an_action_that_comes_twice_is_carried_out_once(tmp_path: Path) -> None:
    made = project(tmp_path, [item(i) for i in range(3)])
    ann = person(made)
    before = ann.state().before
    assert before is not None
    action = {"id": action_id(), "kind": "answer", "item": before.number, "ranks": [0, 1, 2]}
    first, second = ann.act(action), ann.act(action)
    assert first == second and len(made.answers()) == 1
    back = {"id": action_id(), "kind": "undo"}
    ann.act(back)
    assert ann.act(back).done == 0
    with pytest.raises(ConflictError, match="taken"):
        person(made, "Ben").act(action)


def test_undo_goes_back_one_by_one_and_keeps_what_was_said(tmp_path: Path) -> None:
    made = project(tmp_path, [item(i) for i in range(3)])
    ann = person(made)
    seen = []
    for ranks in ([0, 1, 2], [2, 1, 0]):
        before = ann.state().before
        assert before is not None
        seen.append(before.number)
        rank(ann, ranks)
    for number, ranks in zip(reversed(seen), ([2, 1, 0], [0, 1, 2]), strict=True):
        state = ann.act({"id": action_id(), "kind": "undo"})
        assert state.before and state.before.number == number and list(state.before.draft.ranks) == ranks
    assert not state.can_undo and made.answers() == []
    with pytest.raises(ConflictError, match="nothing to undo"):
        ann.act({"id": action_id(), "kind": "undo"})
    rank(ann, [0, 0, 1])
    assert ann.state().before and ann.state().before.number == seen[1], "then the one that was undone before it"


def test_two_people_on_one_item_are_both_kept(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0)], people=2)
    ann, ben = person(made, "Ann"), person(made, "Ben")
    assert ann.state().before == ann.state().before and ben.state().before is not None
    assert person(made, "Cleo").state().before is None, "two are enough, and both are at it"
    rank(ann, [0, 1, 2])
    rank(ben, [2, 1, 0])
    assert Counter(answer.annotator for answer in made.answers()) == {"Ann": 1, "Ben": 1}


def test_an_item_that_somebody_left_is_dealt_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = project(tmp_path, [item(0)], people=1)
    before = person(made, "Ann").state().before
    assert before is not None and person(made, "Ben").state().before is None
    monkeypatch.setattr(session_module, "HELD_SECONDS", -1.0)
    assert person(made, "Ben").state().before is not None
    rank(person(made, "Ben"), [0, 1, 2])
    rank(person(made, "Ann"), [0, 1, 2])  # she comes back: her work counts
    assert len(made.answers()) == 2


def test_the_same_person_in_two_windows_answers_once(tmp_path: Path) -> None:
    made = project(tmp_path, [item(i) for i in range(2)])
    window, other = person(made), person(made)
    before = window.state().before
    assert before == other.state().before and before is not None
    rank(window, [0, 1, 2])
    with pytest.raises(ConflictError, match="already"):
        other.act({"id": action_id(), "kind": "answer", "item": before.number, "ranks": [2, 1, 0]})
    with pytest.raises(ConflictError, match="not lie before you"):
        other.act({"id": action_id(), "kind": "answer", "item": 99, "ranks": [2, 1, 0]})


def test_items_that_come_meanwhile_are_dealt(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0)], people=1)
    ann = person(made)
    rank(ann, [0, 1, 2])
    assert ann.state().before is None
    Project(tmp_path / "rank" / "first").add([item(1)])  # another process imports a file
    assert ann.state().before is not None


def test_a_full_disk_is_told_in_words_and_takes_nothing_back(tmp_path: Path) -> None:
    made = project(tmp_path, [item(i) for i in range(300)], people=1)
    ann = person(made)
    rank(ann, [0, 1, 2])
    with made.changing() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
    saved = 1
    with pytest.raises(FullError, match="full.*safe"):
        for _ in range(300):
            before = ann.state().before
            assert before is not None
            ann.act(
                {"id": action_id(), "kind": "answer", "item": before.number, "ranks": [0, 1, 2], "note": "x" * 9000}
            )
            saved += 1
    assert len(made.answers()) == saved
    with made.changing() as connection:
        connection.execute("PRAGMA max_page_count=1000000")
    rank(ann, [0, 1, 2])  # there is room again
    assert len(made.answers()) == saved + 1


def test_a_project_that_is_removed_takes_nothing_more(tmp_path: Path) -> None:
    made = project(tmp_path, [item(i) for i in range(3)])
    ann = person(made)
    ann.state()
    shutil.move(tmp_path / "rank", tmp_path / "away")
    with pytest.raises(ConflictError, match="removed"):
        ann.state()
    shutil.copytree(tmp_path / "away", tmp_path / "rank")  # another file by the same name
    rank(ann, [0, 1, 2])
    assert len(Project(tmp_path / "rank" / "first").answers()) == 1


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0)])
    assert made.rows("PRAGMA journal_mode") == [("wal",)]
    assert made.rows("PRAGMA synchronous") == [(2,)]  # FULL


def test_a_file_of_a_newer_version_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0)])
    made.close()
    path = tmp_path / "rank" / "first" / FILE
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()
    with pytest.raises(UserError, match="newer"):
        Project(path.parent)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="damaged"):
        Project(path.parent)


@given(
    people=st.integers(1, 3),
    staff=st.integers(3, 5),
    items=st.integers(1, 9),
    gold=st.integers(0, 3),
    seed=st.integers(0, 999),
)
@hypothesis_settings(max_examples=30, deadline=None)
def test_every_item_is_answered_by_so_many_people_and_no_more(
    people: int, staff: int, items: int, gold: int, seed: int
) -> None:
    """Whoever comes when: nobody sees an item twice, and when all are done each has exactly its people."""
    with tempfile.TemporaryDirectory() as folder:
        given = [*(item(i) for i in range(items)), *(item(i, gold=(0, 1, 2)) for i in range(items, items + gold))]
        made = project(Path(folder), given, people=people, gold_every=3)
        made.rows("PRAGMA synchronous=OFF")  # a thousand commits
        persons = [person(made, f"P{i}") for i in range(staff)]
        waiting, idle, rng = set(range(staff)), 0, random.Random(seed)
        while waiting:
            who = rng.choice(sorted(waiting))
            before = persons[who].state().before
            if before is None:
                idle += 1
                if idle > staff:  # what is left lies before others, until they answer
                    waiting.discard(who)
                continue
            idle = 0
            if rng.random() < 0.5:
                rank(persons[who], [0, 1, 2])
        seen = Counter((answer.annotator, answer.item) for answer in made.answers())
        assert set(seen.values()) == {1}
        by_item = Counter(answer.item for answer in made.answers())
        unanswered = [number for number in range(1, items + 1) if by_item[number] != people]
        dealt = {number for (number,) in made.rows("SELECT item FROM dealt")}
        assert set(unanswered) <= dealt and all(by_item[number] < people for number in unanswered)
        if gold:
            done = Counter(answer.annotator for answer in made.answers())
            checked = {answer.annotator for answer in made.answers() if answer.item > items}
            assert {name for name, count in done.items() if count > 2} <= checked


def test_gold_questions_come_once_in_each_block(tmp_path: Path) -> None:
    made = project(
        tmp_path,
        [*(item(i) for i in range(30)), *(item(i, gold=(0, 1, 2)) for i in range(30, 40))],
        people=1,
        gold_every=5,
    )
    kinds = []
    for _ in range(20):
        before = person(made).state().before
        assert before is not None
        kinds.append(bool(before.item.gold))
        rank(person(made), [0, 1, 2])
    assert [sum(kinds[i : i + 5]) for i in range(0, 20, 5)] == [1, 1, 1, 1]
    assert len({tuple(kinds[i : i + 5]) for i in range(0, 20, 5)}) > 1, "not always at the same place"


def test_each_place_is_as_likely_for_each_response() -> None:
    orders = Counter(shown_order(3, number, Seeds(0).child("Ann")) for number in range(1200))
    assert len(orders) == 6 and min(orders.values()) > 150


@pytest.mark.parametrize(
    "wrong",
    [
        {"ranks": [0, 1]}, {"ranks": [0, 1, 3]}, {"ranks": [0, 1, -1]}, {"ranks": [0, 1, True]}, {"ranks": [0, 1, 1.0]}, {"ranks": "012"},
        {"ranks": {"0": 1}}, {"scales": {"kind": [1, 1, 1]}}, {"scales": {"helpful": [1, 1]}}, {"scales": {"helpful": [1, 1, 8]}},
        {"scales": []}, {"note": "x" * 10_001}, {"note": 3}, {"seconds": -1}, {"seconds": float("nan")}, {"seconds": True}, {"seconds": "3"},
    ],
)  # fmt: skip
def test_what_a_browser_says_is_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        judgement(wrong, 3)


def test_ranks_are_kept_without_gaps() -> None:
    assert dense([2, 0, 2, 5]) == (1, 0, 1, 2) and dense([]) == ()


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", "a\0b", "x" * 65, "<script>", "\u202eAnn", "\ud800"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UserError):
        annotator_name(name)


def test_a_name_is_the_same_however_it_is_typed() -> None:
    assert annotator_name("  Zoe\u0308   O ") == annotator_name("Zoë O") == "Zoë O"


def test_an_answer_is_no_draft(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0)])
    ann = person(made)
    before = ann.state().before
    assert before is not None
    with pytest.raises(UserError, match="Not every response"):
        ann.act({"id": action_id(), "kind": "answer", "item": before.number, "ranks": [0, None, 1]})
    ann.act({"id": action_id(), "kind": "answer", "item": before.number, "ranks": []})
    assert made.answers()[0].judgement.ranks == (), "it cannot be judged"


def test_annotators_by_one_name_are_one(tmp_path: Path) -> None:
    made = project(tmp_path, [item(0)])
    assert made.annotator("Ann") == made.annotator("Ann") == Annotator(1, "Ann")
