"""A few of what `benchmarks/page_kills.py` does a hundred times."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.page_kills import Person, Server, audit, kill_often, make_project


def test_a_killed_server_keeps_every_acknowledged_ranking_once(tmp_path: Path) -> None:
    assert kill_often(tmp_path, kills=3, people=4, seed=1, items=500, longest=0.8) == []


def test_the_audit_sees_what_is_lost_and_what_stands_twice(tmp_path: Path) -> None:
    project = make_project(tmp_path, items=3, people=1)
    person = Person("P0", Server.__new__(Server), random.Random(0))
    person.acknowledged, person.sent = {"a" * 32: "answer"}, {"a" * 32}
    assert any("lost" in fault for fault in audit(project, [person]))
    who = project.annotator("P0").id
    with project.changing() as connection:
        connection.execute("INSERT INTO actions VALUES (?, ?, 1, 'answer', '{}', '')", ("a" * 32, who))
    assert any("are not 0" in fault for fault in audit(project, [person])), "acknowledged, and no answer stands"
    with project.changing() as connection:
        connection.execute("INSERT INTO actions VALUES (?, ?, 1, 'answer', '{}', '')", ("b" * 32, who))
    assert any("never sent" in fault for fault in audit(project, [person]))
