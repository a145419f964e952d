"""Every check by name: what it needs of a row, and how it is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alignbench import Prompt, Reference, UserError, unknown_name, user_path
from alignbench_verify.checks import answers
from alignbench_verify.config import AUTO, CheckingConfig

_CHECKS = "alignbench_verify.checks."
_PLAIN_NUMBER = re.compile(r"[-+−]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?: ?/ ?\d+)?%?")


@dataclass(frozen=True)
class Row:
    """A response and what it is checked by."""

    prompt: Prompt
    reference: Reference
    response: str
    pattern: str
    schema: str


@dataclass(frozen=True)
class Check:
    """`needs` is what a reference must hold, in words. `here` decides in this process; otherwise `function` does in a worker that
    has imported `module`, given `arguments`, and `inspector` says whether the reference is one at all."""

    needs: str
    has: Callable[[Reference], bool]
    here: Callable[[Row], bool] | None = None
    module: str = ""
    function: str = ""
    inspector: str = ""
    arguments: Callable[[Row], Mapping[str, Any]] = lambda row: {}
    in_sandbox: bool = False


def _answer(reference: Reference) -> bool:
    return bool(reference.answer.strip())


def _constraints(row: Row) -> Mapping[str, Any]:
    named = [(constraint.name, dict(constraint.arguments)) for constraint in row.reference.constraints]
    return {"prompt": row.prompt.text, "constraints": named}


CHECKS: Mapping[str, Check] = {
    "exact": Check("an answer", _answer, here=lambda row: answers.exact(row.response, row.reference.answer)),
    "number": Check(
        "an answer that is a number",
        lambda reference: answers.reference_number(reference.answer) is not None,
        here=lambda row: answers.number(row.response, row.reference.answer),
    ),
    "choice": Check(
        "choices and which of them is right",
        lambda reference: answers.right_choice(reference.answer, reference.choices) is not None,
        here=lambda row: answers.choice(row.response, row.reference.answer, row.reference.choices),
    ),
    "math": Check(
        "an answer that is a mathematical expression",
        _answer,
        module=_CHECKS + "mathematics",
        function="passes",
        inspector="inspect",
        arguments=lambda row: {"answer": row.reference.answer},
    ),
    "regex": Check(
        "a pattern as its answer (or set `pattern`)",
        _answer,
        module=_CHECKS + "structured",
        function="matches",
        inspector="inspect_pattern",
        arguments=lambda row: {"pattern": row.pattern or row.reference.answer},
    ),
    "json_schema": Check(
        "a JSON schema as its answer (or set `schema`)",
        _answer,
        module=_CHECKS + "structured",
        function="fits",
        inspector="inspect_schema",
        arguments=lambda row: {"schema": row.schema or row.reference.answer},
    ),
    "constraints": Check(
        "constraints",
        lambda reference: bool(reference.constraints),
        module=_CHECKS + "constraints",
        function="passes",
        inspector="inspect",
        arguments=_constraints,
    ),
    "python": Check(
        "unit tests",
        lambda reference: bool(reference.tests.strip()),
        module=_CHECKS + "programs",
        inspector="inspect",
        arguments=lambda row: {"tests": row.reference.tests},
        in_sandbox=True,
    ),
}


def named(names: list[str], *, where: str) -> tuple[str, ...]:
    """The names, known ones all. Raises UserError otherwise."""
    if odd := [name for name in names if name not in CHECKS and name != AUTO]:
        raise unknown_name("check", odd[0], (AUTO, *CHECKS), where=where)
    return tuple(names)


def suited(reference: Reference) -> str | None:
    """The check that a reference is for; None where it holds nothing to check by."""
    if CHECKS["python"].has(reference):
        return "python"
    if CHECKS["constraints"].has(reference):
        return "constraints"
    if reference.choices:  # whose right one may be unknown: what stands there as the answer is then none
        return "choice" if CHECKS["choice"].has(reference) else None
    answer = reference.answer.strip()
    if not answer:
        return None
    if "####" in answer or _PLAIN_NUMBER.fullmatch(answer):
        return "number" if CHECKS["number"].has(reference) else "exact"
    return "math" if any(sign in answer for sign in "\\$^=") else "exact"


def applicable(name: str, reference: Reference, config: CheckingConfig) -> str | None:
    """The check that `name` stands for in a row with this reference; None where the row does not hold what it needs."""
    if name == AUTO:
        return suited(reference)
    given = (name == "regex" and config.pattern) or (name == "json_schema" and config.schema)
    return name if given or CHECKS[name].has(reference) else None


def schema_text(config: CheckingConfig) -> str:
    """The schema of the config as text, read from its file where it names one."""
    schema = config.schema.strip()
    if not schema or schema[0] in "{[" or schema in ("true", "false"):
        return schema
    path = user_path(schema, "schema")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(
            f"schema={schema[:200]} cannot be read ({told}): give a JSON schema, or a file with one."
        ) from None


def ready(config: CheckingConfig) -> None:
    """As `ready` of any component's config."""
    from alignbench_verify.checks.structured import inspect_pattern, inspect_schema

    if not config.names():
        raise UserError("checks is empty: name one, as auto.")
    named(config.names(), where="checks")
    for option, inspect, given in (
        ("pattern", inspect_pattern, config.pattern),
        ("schema", inspect_schema, schema_text(config)),
    ):
        try:
            if given:
                inspect(given)
        except UserError as error:
            raise UserError(f"{option}: {error}.") from None
