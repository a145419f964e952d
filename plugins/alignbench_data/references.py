"""What a row brings along by which a response can be verified."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from alignbench import Constraint, Reference
from alignbench_data.columns import Fields, unpacked
from alignbench_data.reasons import Reason, Unusable

T = TypeVar("T")


def reference(fields: Fields) -> Reference | None:
    """None where the row has none."""
    if not any(role in fields for role in ("answer", "choices", "constraints", "tests")):
        return None
    choices: tuple[str, ...] = _if_it_is(fields, "choices", (), lambda: _choices(fields))
    answer = _if_it_is(fields, "answer", "", lambda: _answer(fields))
    found = Reference(
        answer=_named(answer, choices, _place(fields, len(choices)) if choices and answer else None),
        choices=choices,
        constraints=_if_it_is(fields, "constraints", (), lambda: _constraints(fields)),
        tests=_if_it_is(fields, "tests", "", lambda: _tests(fields)),
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


def _answer(fields: Fields) -> str:
    value = fields.get("answer")
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(_readable(part, fields.name("answer")) for part in value)
    if isinstance(value, (dict, list)):
        return _readable(json.dumps(value, ensure_ascii=False), fields.name("answer"))  # a schema
    return _readable(str(value), fields.name("answer"))


def _tests(fields: Fields) -> str:
    """Python, or a list of assertions. A literal is Python too, which every program passes: it is none."""
    value, name = _read(fields, "tests"), fields.name("tests")
    if value is None:
        return ""
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str) and not _is_literal(part) for part in parts):
        raise Unusable(Reason.MALFORMED, f"{name!r} must be Python, as a text or a list of texts (JSON, in a text)")
    return "\n".join(_readable(part, name) for part in parts)


def _is_literal(code: str) -> bool:
    if code.strip() in ("true", "false", "null"):  # JSON's
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in another's code, which is not run here
            ast.literal_eval(code.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


def _read(fields: Fields, role: str) -> Any:
    """What a column holds, also where it was written as JSON; nothing where it is blank, as in CSV."""
    value = fields.get(role)
    if not isinstance(value, str):
        return value
    found = unpacked(value.strip(), objects=True)
    return (value if isinstance(found, str) else found) if found else None


def _readable(value: str, name: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unusable(Reason.NOT_TEXT, f"{name!r} holds half of a surrogate pair, which no tokenizer reads") from None
    return value


def _choices(fields: Fields) -> tuple[str, ...]:
    value = _read(fields, "choices")
    if isinstance(value, Mapping):  # {"text": [...], "label": ["A", ...]}, or {"A": ..., "B": ...}
        value = value["text"] if isinstance(value.get("text"), list) else list(value.values())
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(part, (str, int, float)) for part in value):
        raise Unusable(Reason.MALFORMED, f"{fields.name('choices')!r} must be a list of texts")
    return tuple(_readable(str(part), fields.name("choices")) for part in value)


def _place(fields: Fields, number: int) -> int | None:
    """Which of so many choices the answer names by its label (ARC, arXiv 1803.05457) or by its index (MMLU, arXiv 2009.03300)."""
    answer, value = fields.get("answer"), _read(fields, "choices")
    labels: list[Any] = []
    if isinstance(value, Mapping):
        labels = value.get("label") or [] if isinstance(value.get("text"), list) else list(value)
        value = []
    names = list(map(str, labels)) if isinstance(labels, list) and len(labels) == number else []
    if isinstance(answer, (str, int)) and str(answer).strip() in names:
        return names.index(str(answer).strip())
    among_numbers = any(isinstance(part, (int, float)) for part in value)
    return answer if type(answer) is int and 0 <= answer < number and not among_numbers else None


def _named(answer: str, choices: tuple[str, ...], place: int | None) -> str:
    """The letter of the choice's place; its text where there is no such letter or a choice reads like one."""
    if place is None:
        return answer
    letter = chr(ord("A") + place)
    return choices[place] if place >= 26 or letter in (part.strip().upper() for part in choices) else letter


def _constraints(fields: Fields) -> tuple[Constraint, ...]:
    """Names with their arguments beside them (arXiv 2311.07911), or objects that hold both."""
    names, arguments = _read(fields, "constraints"), _read(fields, "constraint_arguments")
    if names is None:
        return ()
    name, beside = fields.name("constraints"), fields.name("constraint_arguments")
    if not isinstance(names, list):
        raise Unusable(Reason.MALFORMED, f"{name!r} must be a list of constraints")
    names = [unpacked(part, objects=True) for part in names]
    if all(isinstance(part, str) for part in names):
        given = [None] * len(names) if arguments is None else arguments
        if not isinstance(given, list):
            raise Unusable(Reason.MALFORMED, f"{beside!r} must be a list of objects, one for each of {name!r}")
        if len(given) != len(names):
            raise Unusable(Reason.MALFORMED, f"{len(names)} {name!r} but {len(given)} {beside!r}")
        return tuple(Constraint(part, _arguments(own, beside)) for part, own in zip(names, given, strict=True))
    if all(isinstance(part, Mapping) and isinstance(part.get("name"), str) for part in names):
        return tuple(Constraint(part["name"], _arguments(part.get("arguments"), name)) for part in names)
    raise Unusable(Reason.MALFORMED, f"each of {name!r} must be a name, or an object with 'name' and 'arguments'")


def _arguments(given: Any, name: str) -> dict[str, Any]:
    """What was given: tables write every argument of every constraint in each row, and nothing where there is none."""
    given = unpacked(given, objects=True) or {}
    if not isinstance(given, Mapping):
        raise Unusable(Reason.MALFORMED, f"the arguments of a constraint in {name!r} must be an object")
    return {str(key): value for key, value in given.items() if value is not None}
