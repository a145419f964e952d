"""From rows to what they say: each is read by the form that recognises it, and counted once, whatever becomes of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alignbench import Format, UserError
from alignbench_data.columns import Columns, Fields
from alignbench_data.config import PreferencesConfig
from alignbench_data.content import kind
from alignbench_data.formats import form_of, nearest, own
from alignbench_data.formats.comparisons import check_values
from alignbench_data.formats.form import Form, Record, Settings
from alignbench_data.formats.trees import Trees, is_flat, trees
from alignbench_data.reading.rows import Row, plain
from alignbench_data.reasons import Reason, Unusable

_ENOUGH_TO_JUDGE = 1000
"""Damaged rows after which a file that holds too many of them is read no further."""
_OF_FORMS = ("columns", "rating", "rating_weights", "winner_values", "system")
"""Options that a layout of another plugin is not told."""


class Reader:
    """Reads rows, one after another. `first`: for each reason the first row that was set aside, and why."""

    def __init__(
        self, config: PreferencesConfig, *, keep_ids: bool = False, option: str = "data", lenient: bool = False
    ) -> None:
        """`option`: the group that `config` is of, for errors. `lenient`: its columns are those of other rows.

        `columns` are those whose values were read, by their roles; `unused` those that are known and were not."""
        check_values(config.winner_values)
        self._format = _chosen(config)
        self._name = config.format
        self.counts: Counter[str] = Counter()
        self.forms: Counter[str] = Counter()
        self.columns: dict[str, str] = {}
        self.first: dict[str, str] = {}
        self._settings = Settings(config.rating, config.rating_weights, config.winner_values, keep_ids)
        self._columns, self._where, self._system = Columns(config.columns, lenient), config.where, config.system
        self._share, self._option = config.max_bad_share, option
        self._damaged, self._worst = 0, ""
        self._some: Mapping[str, Any] = {}
        self._idle: dict[str, str] = {}
        self.used: set[str] = set()
        self._asking: dict[str, str] = {}

    def read(self, rows: Iterable[Row]) -> Iterator[Record]:
        """What the rows say. Raises UserError where too many of them are damaged."""
        messages: list[Row] = []
        for row in rows:
            if self._joins_messages and row.problem is None and is_flat(row.values):
                messages.append(row)
            else:
                yield from self._read(row)
        for row in trees(messages):
            yield from self._read(row)
        self._judge()

    @property
    def _joins_messages(self) -> bool:
        return self._format is None or isinstance(self._format, Trees)

    def _read(self, row: Row) -> Iterator[Record]:
        self.counts["read"] += 1
        try:
            if row.problem:
                raise row.problem
            if not isinstance(row.values, Mapping):
                raise Unusable(Reason.NO_OBJECT, f"an object is needed, not {kind(row.values)}")
            if not self._wanted(row.values):
                return
            yield from self._parsed(row.values, row.file)
        except Unusable as problem:
            self._set_aside(row, problem)

    def _wanted(self, values: Mapping[str, Any]) -> bool:
        for column, wanted in self._where.items():
            if column not in values:
                raise Unusable(Reason.MALFORMED, f"data.where.{column}: no such column")
            among = wanted if isinstance(wanted, list) else [wanted]
            if str(values[column]).lower() not in {str(one).lower() for one in among}:
                self.counts["not_wanted"] += 1
                return False
        return True

    def _parsed(self, values: Mapping[str, Any], file: str) -> Iterable[Record]:
        self._some = self._some or values
        if self._format and not isinstance(self._format, Form):
            found: Iterable[Record] = own.read(self._format, self._name, values)
            self.forms[self._name] += 1
            return found
        fields = self._columns.fields(values)
        if "prompt" in fields:
            self._asking.setdefault(file, fields.name("prompt"))
        elif file in self._asking:
            fields = dataclasses.replace(fields, asks=self._asking[file])
        if self._system and "system" not in fields:
            fields = dataclasses.replace(fields, values={**fields.values, "system": self._system})
        form = self._form(values, fields)
        fields.used.clear()  # what was looked at to tell the form
        found = form.parse(fields, self._settings)
        self.forms[form.name] += 1
        self.used |= fields.used
        for role in fields.columns:
            if role in fields:
                (self.columns if role in fields.used else self._idle).setdefault(role, fields.name(role))
        return found

    def _form(self, values: Mapping[str, Any], fields: Fields) -> Form:
        """The one that was chosen, or else the first that recognises the row."""
        if not isinstance(self._format, Form):
            if (form := form_of(fields, self._settings)) is None:
                raise Unusable(Reason.UNKNOWN_FORM, _unknown(self._columns.missing(values), fields))
            return form
        if not self._format.recognises(fields, self._settings):
            lacking = " and ".join(self._format.lacks(fields)) or "what tells it from others"
            raise Unusable(Reason.UNKNOWN_FORM, f"no row of data.format={self._name}, which needs {lacking}")
        return self._format

    @property
    def unused(self) -> dict[str, str]:
        return {role: name for role, name in self._idle.items() if name not in self.columns.values()}

    def require_columns(self) -> None:
        """Raises UserError for a column that the user named and that no row has."""
        for role, column in self._columns.given.items():
            if role not in self.columns and role not in self._idle:
                raise UserError(
                    plain(f"data.columns.{role}={column}: no row has such a column. Columns: {_names(self._some)}.")
                )

    def _set_aside(self, row: Row, problem: Unusable) -> None:
        name = problem.reason.value
        self.counts[name] += 1
        if name not in self.first:
            self.first[name] = plain(f"{row.place}: {problem.detail}")
        if not problem.reason.damage:
            return
        self._damaged += 1
        if not self._worst:
            there = f" Columns: {_names(row.values)}." if isinstance(row.values, Mapping) else ""
            self._worst = plain(f"{row.place}: {problem.detail}.{there}")
        if self._damaged >= _ENOUGH_TO_JUDGE or not self._share:
            self._judge()

    def _judge(self) -> None:
        if self._damaged > self._share * self.counts["read"]:
            share = f"{self._option}.max_bad_share={self._share:g}"
            if not self._share:
                raise UserError(f"{self._worst} ({share} allows none.)")
            raise UserError(
                f"{self._worst} {self._damaged} of {self.counts['read']} rows cannot be read, more than {share} allows."
            )


def _chosen(config: PreferencesConfig) -> Format | None:
    """The layout that was chosen by name, where one was."""
    found: Format | None = next((chosen.build() for chosen in config.uses()), None)
    if found is not None and not isinstance(found, Form):
        for name in _OF_FORMS:
            if getattr(config, name):
                raise UserError(
                    f"data.{name} is for the formats of data=preferences itself: data.format={config.format} reads rows as they are."
                )
    return found


def _names(values: Mapping[str, Any]) -> str:
    names = ", ".join(map(str, values))
    return (names if len(names) <= 300 else names[:300] + " ...") or "none"


def _unknown(missing: str, fields: Fields) -> str:
    """Why no form fits, and what would come closest."""
    hint = missing or nearest(fields)
    return f"these columns make no form that is known; {hint or 'docs/data.md lists them'}"
