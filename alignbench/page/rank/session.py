"""One person's work in a project: what lies before them, and each of their actions, saved before it is acknowledged."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from alignbench.errors import UserError
from alignbench.page.rank.dealing import HELD_SECONDS, next_item, shown_order
from alignbench.page.rank.items import Item, Judgement, dense, judgement
from alignbench.page.rank.store import Annotator, ConflictError, Project, Settings, judged, now
from alignbench.seeds import Seeds

T = TypeVar("T")
LONGEST_ACTION = 64
"""Characters of an action's id."""
_OPEN = """
    FROM items LEFT JOIN (SELECT item, count(*) AS n FROM answers GROUP BY item) AS answered ON answered.item = items.id
    WHERE items.id NOT IN (SELECT item FROM answers WHERE annotator = :me) AND gold"""
"""Items that this person has not answered, and how many others have."""
_LEFT = f"SELECT count(*) {_OPEN} = '[]' AND coalesce(answered.n, 0) < :people"
_GOLD = f"SELECT items.id {_OPEN} != '[]' ORDER BY items.id"
_DUE = f"""
    SELECT id FROM (
        SELECT items.id, coalesce(answered.n, 0) + (
            SELECT count(*) FROM dealt WHERE item = items.id AND annotator != :me AND at > :since) AS n
        {_OPEN} = '[]')
    WHERE n < :people ORDER BY n DESC, id LIMIT 1"""
"""Items that somebody has answered, or that lie before somebody, come first, so that agreement can be told early."""


@dataclass(frozen=True)
class Before:
    """What lies before a person: an item with its responses in the order shown, and what they have said of it so far, in that
    order too. None: nothing is left for them."""

    number: int
    item: Item
    shown: tuple[int, ...]
    draft: Judgement


@dataclass(frozen=True)
class State:
    """`left`: items that still need somebody, gold questions left out."""

    before: Before | None
    done: int
    left: int
    can_undo: bool
    settings: Settings


class Session:
    """One person in one project."""

    def __init__(self, project: Project, annotator: Annotator) -> None:
        self._project, self._annotator = project, annotator

    def state(self) -> State:
        """Deals an item where none lies before them."""
        settings = self._project.settings
        with self._project.changing() as connection:
            return self._state(connection, settings)

    def act(self, action: Mapping[str, Any]) -> State:
        """Carries out one action and says what lies before them then. An action that comes twice, as it does where the answer to
        the first was lost, is carried out once."""
        kind, name, settings = action.get("kind"), action.get("id"), self._project.settings
        if not isinstance(name, str) or not 16 <= len(name) <= LONGEST_ACTION or not name.isalnum():
            raise UserError("An action needs an id of 16 to 64 letters and digits.")
        with self._project.changing() as connection:
            known = connection.execute("SELECT annotator FROM actions WHERE id = ?", (name,)).fetchone()
            if known and known[0] != self._annotator.id:
                raise ConflictError("This action's id is taken.")
            if not known:
                if kind == "draft":
                    self._draft(connection, action, settings)
                elif kind == "answer":
                    self._answer(connection, name, action, settings)
                elif kind == "undo":
                    self._undo(connection, name)
                else:
                    raise UserError("An action is a draft, an answer or undo.")
            return self._state(connection, settings)

    def _state(self, connection: sqlite3.Connection, settings: Settings) -> State:
        me = self._annotator.id
        done, checked = connection.execute(
            "SELECT count(*), coalesce(sum(gold != '[]'), 0) FROM answers JOIN items ON items.id = item "
            "WHERE annotator = ?", (me,),
        ).fetchone()  # fmt: skip
        lies = connection.execute(
            "SELECT item, draft FROM dealt WHERE annotator = ? ORDER BY at DESC LIMIT 1", (me,)
        ).fetchone()
        if lies is None:
            since = time.time() - HELD_SECONDS
            ordinary = connection.execute(_DUE, {"me": me, "people": settings.people, "since": since}).fetchone()
            chosen = next_item(
                ordinary[0] if ordinary else None,
                [row[0] for row in connection.execute(_GOLD, {"me": me})],
                gold_every=settings.gold_every,
                done=done,
                checked=checked,
                seeds=_seeds(settings, self._annotator).child("dealing"),
            )
            if chosen is not None:
                connection.execute("INSERT INTO dealt VALUES (?, ?, ?, NULL)", (me, chosen, time.time()))
                lies = (chosen, None)
        before = None
        if lies is not None:
            item = self._project.item(lies[0])
            shown = self._shown(lies[0], item, settings)
            draft = judged(json.loads(lies[1])) if lies[1] else Judgement()
            before = Before(lies[0], item, shown, as_shown(draft, shown))
        (left,) = connection.execute(_LEFT, {"me": me, "people": settings.people}).fetchone()
        return State(before, done, left, done > 0, settings)

    def _draft(self, connection: sqlite3.Connection, action: Mapping[str, Any], settings: Settings) -> None:
        number, _, said = self._judged(connection, action, settings)
        connection.execute(
            "UPDATE dealt SET draft = ?, at = ? WHERE annotator = ? AND item = ?",
            (json.dumps(asdict(said)), time.time(), self._annotator.id, number),
        )

    def _answer(self, connection: sqlite3.Connection, name: str, action: Mapping[str, Any], settings: Settings) -> None:
        number, shown, said = self._judged(connection, action, settings)
        if not said.complete:
            raise UserError("Not every response has a rank yet.")
        said = replace(said, ranks=dense(said.ranks))
        body, at, me = json.dumps(asdict(said)), now(), self._annotator.id
        connection.execute("INSERT INTO actions VALUES (?, ?, ?, 'answer', ?, ?)", (name, me, number, body, at))
        connection.execute(
            "INSERT INTO answers (action, annotator, item, judgement, shown, at) VALUES (?, ?, ?, ?, ?, ?)",
            (name, me, number, body, json.dumps(shown), at),
        )
        connection.execute("DELETE FROM dealt WHERE annotator = ? AND item = ?", (me, number))

    def _undo(self, connection: sqlite3.Connection, name: str) -> None:
        """The last answer lies before the person again, as they gave it. The log keeps it."""
        me = self._annotator.id
        last = connection.execute(
            "SELECT number, item, judgement FROM answers WHERE annotator = ? ORDER BY number DESC LIMIT 1", (me,)
        ).fetchone()
        if last is None:
            raise ConflictError("There is nothing to undo.")
        number, item, body = last
        connection.execute("INSERT INTO actions VALUES (?, ?, ?, 'undo', '{}', ?)", (name, me, item, now()))
        connection.execute("DELETE FROM answers WHERE number = ?", (number,))
        connection.execute("INSERT OR REPLACE INTO dealt VALUES (?, ?, ?, ?)", (me, item, time.time(), body))

    def _judged(
        self, connection: sqlite3.Connection, action: Mapping[str, Any], settings: Settings
    ) -> tuple[int, tuple[int, ...], Judgement]:
        """The item that an action is about, and what it says, in the order of the item's responses."""
        number, me = action.get("item"), self._annotator.id
        if type(number) is not int or abs(number) >= 2**63:
            raise UserError("An action names its item by a whole number.")
        if not connection.execute("SELECT 1 FROM dealt WHERE annotator = ? AND item = ?", (me, number)).fetchone():
            there = connection.execute("SELECT 1 FROM answers WHERE annotator = ? AND item = ?", (me, number))
            if there.fetchone():
                raise ConflictError("You have ranked this one already, perhaps in another window.")
            raise ConflictError(
                "This item does not lie before you: it was dealt to somebody else, or is no longer here."
            )
        item = self._project.item(number)
        shown = self._shown(number, item, settings)
        given = judgement(action, len(item.responses))
        back = {k: i for i, k in enumerate(shown)}
        return number, shown, as_shown(given, [back[k] for k in range(len(shown))])

    def _shown(self, number: int, item: Item, settings: Settings) -> tuple[int, ...]:
        return shown_order(len(item.responses), number, _seeds(settings, self._annotator))


def as_shown(said: Judgement, order: Sequence[int]) -> Judgement:
    """With response `order[i]` at place i."""

    def moved(values: Sequence[T]) -> tuple[T, ...]:
        return tuple(values[k] for k in order) if values else ()

    return replace(said, ranks=moved(said.ranks), scales={name: moved(v) for name, v in said.scales.items()})


def _seeds(settings: Settings, annotator: Annotator) -> Seeds:
    return Seeds(settings.seed).child("rank").child(annotator.name)
