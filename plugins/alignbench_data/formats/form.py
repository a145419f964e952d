"""What a form is: which columns it is known by, and how one row of it is read."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from alignbench import Demonstration, Format, Labelled, Prompt, Ranking, UserError
from alignbench_data.columns import Columns, Fields, unpacked
from alignbench_data.content import kind
from alignbench_data.reasons import Reason, Unusable


@dataclass(frozen=True)
class Rated:
    """One response with a rating; with others to the same prompt it makes a ranking."""

    prompt: Prompt
    response: str
    score: float


Record = Ranking | Labelled | Demonstration | Rated | Prompt
"""What a row may say."""


RATING = "rating"
"""Among the roles that were read: the ratings that the settings choose from."""


@dataclass(frozen=True)
class Settings:
    """What of the configuration a form needs to read a row. `keep_ids`: a row's own id names its prompt."""

    rating: str = ""
    rating_weights: Mapping[str, float] = field(default_factory=dict)
    winner_values: Mapping[str, str] = field(default_factory=dict)
    keep_ids: bool = False


class Form(Format):
    """A layout that is known by its columns. `needs`: the roles that it is known by, each with what may stand in its place. `verdict`: the
    roles one of which it asks for; `empty`: roles whose column may be empty in a row, which is of this form all the same."""

    name: ClassVar[str]
    needs: ClassVar[tuple[tuple[str, ...], ...]]
    verdict: ClassVar[tuple[str, ...]] = ()
    empty: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: object) -> None:
        """A config without options: what a form goes by stands in the data's own."""

    @abstractmethod
    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        """What the row says. Raises Unusable."""

    def fits(self, fields: Fields, settings: Settings) -> bool:
        """What else must hold."""
        return True

    def read(self, row: Mapping[str, Any]) -> Sequence[Record]:
        """By the names of columns that are known, without further settings."""
        fields, settings = Columns().fields(row), Settings()
        if not self.recognises(fields, settings):
            raise UserError(
                f"it is no row of {self.name}: {' and '.join(self.lacks(fields)) or 'a verdict'} is missing"
            )
        try:
            return self.parse(fields, settings)
        except Unusable as problem:
            raise UserError(str(problem)) from problem

    def recognises(self, fields: Fields, settings: Settings) -> bool:
        return not self.lacks(fields) and self.fits(fields, settings)

    def lacks(self, fields: Fields) -> list[str]:
        """The roles that are not there."""
        return [" or ".join(roles) for roles in self.needs if not any(self._has(fields, role) for role in roles)]

    def _has(self, fields: Fields, role: str) -> bool:
        return role in fields or (role in self.empty and fields.there(role))


def number(value: Any, name: str) -> float:
    """A finite number, also one written as text, as in CSV."""
    try:
        found = math.nan if isinstance(value, (bool, list, dict)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise Unusable(Reason.MALFORMED, f"{name!r} must be a finite number, not {str(value)[:40]!a}")
    return found


def number_of(fields: Fields, role: str) -> float | None:
    """The number of a column that may be there. Where only its name says what it is and it holds something else, None."""
    try:
        return number(fields.get(role), fields.name(role)) if role in fields else None
    except Unusable:
        if role in fields.said:
            raise
        return None


def items(fields: Fields, role: str, what: str) -> list[Any]:
    """A list, also one written as JSON, as in CSV."""
    value = unpacked(fields.get(role))
    if not isinstance(value, list):
        raise Unusable(Reason.MALFORMED, f"{fields.name(role)!r} must be a list of {what}, not {kind(value)}")
    return value


def is_empty(value: Any) -> bool:
    """Null, or blank as in CSV."""
    return value is None or (isinstance(value, str) and not value.strip())


def annotator(fields: Fields) -> str:
    """Who ranked, where the row says so in a word."""
    who = fields.get("annotator")
    return str(who)[:80] if isinstance(who, (str, int)) and not isinstance(who, bool) else ""
