"""What a row brings along by which a response can be verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from alignbench import Constraint, Reference
from alignbench_data.columns import Fields
from alignbench_data.reasons import Reason, Unusable

T = TypeVar("T")


def reference(fields: Fields) -> Reference | None:
    """None where the row has none."""
    if not any(role in fields for role in ("answer", "choices", "constraints", "tests")):
        return None
    found = Reference(
        answer=_if_it_is(fields, "answer", "", lambda: _written(fields, "answer")),
        choices=_if_it_is(fields, "choices", (), lambda: _choices(fields)),
        constraints=_if_it_is(fields, "constraints", (), lambda: _constraints(fields)),
        tests=_if_it_is(fields, "tests", "", lambda: _written(fields, "tests")),
    )
    return found if found != Reference() else None


def _if_it_is(fields: Fields, role: str, otherwise: T, read: Callable[[], T]) -> T:
    """What a column holds; where only its name says that it is a reference and it holds something else, nothing."""
    try:
        return read()
    except Unusable:
        if role in fields.said:
            raise
        return otherwise


def _written(fields: Fields, role: str) -> str:
    value = fields.get(role)
    if value is None:
        return ""
    if role == "tests" and not isinstance(value, (str, list)):
        raise Unusable(Reason.MALFORMED, f"{fields.name(role)!r} must be Python, as a text or a list of texts")
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(_readable(part, fields.name(role)) for part in value)  # tests, one assertion each
    if isinstance(value, (dict, list)):
        return _readable(json.dumps(value, ensure_ascii=False), fields.name(role))  # a schema
    return _readable(str(value), fields.name(role))


def _readable(value: str, name: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unusable(Reason.NOT_TEXT, f"{name!r} holds half of a surrogate pair, which no tokenizer reads") from None
    return value


def _choices(fields: Fields) -> tuple[str, ...]:
    value = fields.get("choices")
    if isinstance(value, Mapping):  # {"text": [...], "label": ["A", ...]}, or {"A": ..., "B": ...}
        value = value["text"] if isinstance(value.get("text"), list) else list(value.values())
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(part, (str, int, float)) for part in value):
        raise Unusable(Reason.MALFORMED, f"{fields.name('choices')!r} must be a list of texts")
    return tuple(_readable(str(part), fields.name("choices")) for part in value)


def _constraints(fields: Fields) -> tuple[Constraint, ...]:
    """Names with their arguments beside them (arXiv 2311.07911), or objects that hold both."""
    names, arguments = fields.get("constraints"), fields.get("constraint_arguments")
    if names is None:
        return ()
    name = fields.name("constraints")
    if not isinstance(names, list):
        raise Unusable(Reason.MALFORMED, f"{name!r} must be a list of constraints")
    if all(isinstance(part, str) for part in names):
        given = arguments if isinstance(arguments, list) else [{}] * len(names)
        if len(given) != len(names):
            detail = f"{len(names)} {name!r} but {len(given)} {fields.name('constraint_arguments')!r}"
            raise Unusable(Reason.MALFORMED, detail)
        return tuple(Constraint(part, _arguments(own)) for part, own in zip(names, given, strict=True))
    if all(isinstance(part, Mapping) and isinstance(part.get("name"), str) for part in names):
        return tuple(Constraint(part["name"], _arguments(part.get("arguments"))) for part in names)
    raise Unusable(Reason.MALFORMED, f"each of {name!r} must be a name, or an object with 'name' and 'arguments'")


def _arguments(given: Any) -> dict[str, Any]:
    """What was given: tables write every argument of every constraint in each row, and nothing where there is none."""
    return (
        {str(key): value for key, value in (given or {}).items() if value is not None}
        if isinstance(given, Mapping)
        else {}
    )
