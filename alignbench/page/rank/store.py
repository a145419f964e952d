"""A project's file: SQLite with a log of every action. What was acknowledged has reached the disk, once.

WAL with synchronous=FULL: a commit returns after its fsync, so that neither a killed process nor a power cut takes it back
(sqlite.org/pragma.html#pragma_synchronous)."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignbench.bounds import bounded, check_bounds
from alignbench.errors import AlignbenchError, UserError
from alignbench.page.rank.items import Item, Judgement
from alignbench.records import Message

FILE = "project.sqlite"
VERSION = 1
"""Of the schema. A file of an older one is brought forward when it is opened; a newer one is refused."""
MIGRATIONS: Mapping[int, str] = {
    0: """
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE items (
        id INTEGER PRIMARY KEY, prompt TEXT NOT NULL, messages TEXT NOT NULL, responses TEXT NOT NULL,
        finished TEXT NOT NULL, gold TEXT NOT NULL, cluster TEXT NOT NULL);
    CREATE TABLE annotators (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, token TEXT UNIQUE, made TEXT NOT NULL);
    CREATE TABLE dealt (
        annotator INTEGER NOT NULL REFERENCES annotators, item INTEGER NOT NULL REFERENCES items, at REAL NOT NULL,
        draft TEXT, PRIMARY KEY (annotator, item)) WITHOUT ROWID;
    CREATE INDEX dealt_item ON dealt (item);
    CREATE TABLE answers (
        number INTEGER PRIMARY KEY AUTOINCREMENT, action TEXT NOT NULL UNIQUE REFERENCES actions,
        annotator INTEGER NOT NULL REFERENCES annotators, item INTEGER NOT NULL REFERENCES items,
        judgement TEXT NOT NULL, shown TEXT NOT NULL, at TEXT NOT NULL, UNIQUE (annotator, item));
    CREATE INDEX answers_item ON answers (item);
    CREATE TABLE actions (
        id TEXT PRIMARY KEY, annotator INTEGER NOT NULL REFERENCES annotators, item INTEGER, kind TEXT NOT NULL,
        body TEXT NOT NULL, at TEXT NOT NULL) WITHOUT ROWID;
    """,
}
BUSY_SECONDS = 10


@dataclass(frozen=True)
class Settings:
    """A project. `kind`: rank, or ab for two checkpoints; `people` see each item; every `gold_every`-th item of a person is a gold
    question while there are any; `overrides` of the command that trains on its rankings; `about`: where it is from."""

    kind: str = "rank"
    people: int = bounded(2, least=1, most=1e6)
    gold_every: int = bounded(8, least=2)
    seed: int = bounded(0, least=0, most=1e18)
    scales: bool = False
    overrides: tuple[str, ...] = ()
    about: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_bounds(type(self), vars(self))


@dataclass(frozen=True)
class Annotator:
    id: int
    name: str


@dataclass(frozen=True)
class Answer:
    """One person's judgement of one item, and in which order they saw its responses."""

    annotator: str
    item: int
    judgement: Judgement
    shown: tuple[int, ...]
    at: str


class FullError(AlignbenchError):
    """Nothing could be written. What was acknowledged before is safe."""

    status = 507


class ConflictError(AlignbenchError):
    """The project is no longer as the asker saw it."""

    status = 409


class Project:
    """One project's file. All that changes it is one transaction; threads take turns, processes wait for one another."""

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = folder.name, folder
        self._path = folder / FILE
        self._lock = threading.RLock()
        if not self._path.is_file():
            raise UserError(f"There is no project {folder.name}: alignbench rank sample or import makes one.")
        self._connection, self._inode = self._open()

    @classmethod
    def create(cls, folder: Path, settings: Settings) -> Project:
        """A new project. Raises UserError where one is there already."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / FILE).open("xb"):
                pass
        except FileExistsError:
            raise UserError(f"{folder} is a project already: choose another name.") from None
        except OSError as error:
            raise UserError(f"Cannot write {folder}: {error.strerror}.") from error
        project = cls(folder)
        with project.changing() as connection:
            rows = [(name, json.dumps(value)) for name, value in asdict(settings).items()]
            connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            # Names that leave the project as hashes cannot be found again by trying names: docs/page.md.
            connection.execute("INSERT INTO settings VALUES ('secret', ?)", (json.dumps(os.urandom(32).hex()),))
        return project

    def _open(self) -> tuple[sqlite3.Connection, int]:
        with told(self._path):
            connection = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            self._bring_forward(connection)
            return connection, self._path.stat().st_ino

    def _bring_forward(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")  # two processes may open it at once
        try:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                raise UserError(f"{self._path} was written by a newer alignbench (schema {found}): update this one.")
            for version in range(found, VERSION):
                for statement in MIGRATIONS[version].split(";"):
                    if statement.strip():
                        connection.execute(statement)
            if found < VERSION:
                connection.execute(f"PRAGMA user_version={VERSION}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed to the disk when the context ends, or nothing of it happened."""
        with self._using() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock, told(self._path):
            # A removed file takes what is written and forgets it; a copied-back one is another.
            if not self._path.is_file():
                raise ConflictError(f"The project {self.name} was removed from {self.folder.parent}: nothing is saved.")
            if self._path.stat().st_ino != self._inode:
                self._connection.close()
                self._connection, self._inode = self._open()
            yield self._connection

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._using() as connection:
            return connection.execute(query, values).fetchall()

    @functools.cached_property
    def settings(self) -> Settings:
        """Those of its making: they never change."""
        found = {name: json.loads(value) for name, value in self.rows("SELECT name, value FROM settings")}
        found.pop("secret", None)
        return Settings(**{**found, "overrides": tuple(found.get("overrides", ()))})

    def secret(self) -> bytes:
        ((value,),) = self.rows("SELECT value FROM settings WHERE name = 'secret'")
        return bytes.fromhex(json.loads(value))

    def add(self, items: Sequence[Item]) -> None:
        """People who rank meanwhile are dealt these too."""
        rows = [
            (
                item.prompt,
                json.dumps([asdict(message) for message in item.messages]),
                json.dumps(item.responses),
                json.dumps(item.finished),
                json.dumps(item.gold),
                item.cluster,
            )
            for item in items
        ]
        with self.changing() as connection:
            columns = "(prompt, messages, responses, finished, gold, cluster)"
            connection.executemany(f"INSERT INTO items {columns} VALUES (?, ?, ?, ?, ?, ?)", rows)

    def item(self, number: int) -> Item:
        found = self.rows(f"SELECT {_ITEM} FROM items WHERE id = ?", number)
        if not found:
            raise ConflictError("This item is no longer in the project.")
        return _item(found[0])

    def items(self) -> dict[int, Item]:
        return {row[0]: _item(row[1:]) for row in self.rows(f"SELECT id, {_ITEM} FROM items ORDER BY id")}

    def count(self) -> int:
        return int(self.rows("SELECT count(*) FROM items")[0][0])

    def annotator(self, name: str) -> Annotator:
        """By a name that was checked; made when it is new."""
        if found := self.rows("SELECT id FROM annotators WHERE name = ?", name):
            return Annotator(found[0][0], name)
        with self.changing() as connection:
            connection.execute("INSERT OR IGNORE INTO annotators (name, made) VALUES (?, ?)", (name, now()))
        return self.annotator(name)

    def annotators(self) -> list[Annotator]:
        return [Annotator(*row) for row in self.rows("SELECT id, name FROM annotators ORDER BY name")]

    def let_in(self, annotator: Annotator, token_digest: str) -> None:
        """By a link; an earlier one no longer opens."""
        with self.changing() as connection:
            connection.execute("UPDATE annotators SET token = ? WHERE id = ?", (token_digest, annotator.id))

    def by_token(self, token_digest: str) -> Annotator | None:
        found = self.rows("SELECT id, name FROM annotators WHERE token = ?", token_digest)
        return Annotator(*found[0]) if found else None

    def answers(self) -> list[Answer]:
        query = (
            "SELECT annotators.name, item, judgement, shown, at FROM answers "
            "JOIN annotators ON annotators.id = annotator ORDER BY number"
        )
        return [
            Answer(name, item, judged(json.loads(said)), tuple(json.loads(shown)), at)
            for name, item, said, shown, at in self.rows(query)
        ]

    def stamp(self) -> tuple[int, ...]:
        """Another one after every change of items or answers."""
        query = "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM answers), (SELECT max(number) FROM answers)"
        return tuple(value or 0 for value in self.rows(query)[0])

    def close(self) -> None:
        with self._lock:
            self._connection.close()


_ITEM = "prompt, messages, responses, finished, gold, cluster"


def _item(row: Sequence[Any]) -> Item:
    prompt, messages, responses, finished, gold, cluster = row
    return Item(
        prompt=prompt,
        messages=tuple(Message(**message) for message in json.loads(messages)),
        responses=tuple(json.loads(responses)),
        finished=tuple(json.loads(finished)),
        gold=tuple(json.loads(gold)),
        cluster=cluster,
    )


def judged(row: Mapping[str, Any]) -> Judgement:
    scales = {name: tuple(values) for name, values in row["scales"].items()}
    return Judgement(tuple(row["ranks"]), scales, row["note"], row["seconds"])


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    """SQLite's errors in words that say what is lost: nothing that was acknowledged."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
            raise FullError(f"The server cannot write {path.name} ({error}). What was saved before is safe.") from error
        if code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise FullError(f"{path.name} is in use by another process: try again in a moment.") from error
        if code is not None and code & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise UserError(f"{path} is no project's file, or damaged ({error}).") from error
        raise
