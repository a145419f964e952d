"""Patterns and schemas. In a worker: a regular expression can take exponential time."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
from referencing import Registry

from alignbench import UserError

_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


def matches(response: str, pattern: str) -> bool:
    """The pattern is found anywhere in the response; ^...$ holds it to all of it."""
    return _compiled(pattern).search(response) is not None


def inspect_pattern(pattern: str) -> bool:
    """Raises UserError for what is no regular expression."""
    _compiled(pattern)
    return True


def fits(response: str, schema: str) -> bool:
    """The response is JSON, alone or in one fenced block, and fits the schema."""
    validator = _validator(schema)
    fenced = _FENCE.fullmatch(response)
    try:
        value = json.loads(fenced.group(1) if fenced else response, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return bool(validator.is_valid(value))


def inspect_schema(schema: str) -> bool:
    """Raises UserError for what is no JSON schema."""
    _validator(schema)
    return True


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{pattern[:80]!r} is no regular expression: {error}") from None


def _validator(text: str) -> Any:
    try:
        schema = json.loads(text)
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except (ValueError, RecursionError, jsonschema.SchemaError) as error:
        told = " ".join(str(getattr(error, "message", error)).split())
        raise UserError(f"{text[:80]!r} is no JSON schema: {told[:200]}") from None
    return kind(schema, registry=Registry())  # a registry of its own: nothing is fetched


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
