"""What a check is: a function that returns where its property holds, and says by how much where it is broken."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import time
import traceback
import unittest
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.errors import UserError
from alignbench.plugins import Component

CheckFunction = Callable[[Component, int], str | None]


class PropertyBroken(AssertionError):
    """The component does not have the property. The message says by how much."""


class NotApplicable(unittest.SkipTest):
    """The property says nothing about this component. Test runners report the test as skipped."""


class CannotBeBuilt(UserError):
    """The component refuses the settings that it is to be checked with: there is nothing to check."""


class Status(enum.Enum):
    """What came of a check."""

    OK = "ok"
    FAILED = "FAILED"
    NOT_APPLICABLE = "n/a"
    DECLINED = "declined"


@dataclass(frozen=True)
class Check:
    """One property. `run(component, seed)` returns, or raises PropertyBroken or NotApplicable; any other exception is a
    failure too. `causes`: what most often breaks it. `within`: the threshold, where it has one; `run` then returns how near the
    component came to it, as "total variation .012 of at most .05"."""

    name: str
    says: str
    causes: str
    run: CheckFunction
    within: str = ""


@dataclass(frozen=True)
class Result:
    """What came of a check. `detail`: of one that holds, its margin. `raised`: it failed by an exception of the component's, and
    says nothing of the property."""

    check: Check
    status: Status
    detail: str
    seconds: float
    raised: bool = False

    def line(self) -> str:
        """As `alignbench check` prints it."""
        text = f"{self.status.value:<8} {self.check.name}"
        if self.status is Status.OK:
            return f"{text}: {self.check.says}" + (f" [{self.detail}]" if self.detail else "")
        if self.status is Status.NOT_APPLICABLE:
            return f"{text}: not applicable: {self.detail}"
        if self.status is Status.DECLINED or self.raised:
            return f"{text}: {self.detail}"
        return f"{text}: {self.detail} Broken: {self.check.says} Likely causes: {self.check.causes}"


class CheckList:
    """The checks of one kind, in the order of their definition."""

    def __init__(self, *before: Sequence[Check]) -> None:
        self.checks: list[Check] = [check for part in before for check in part]

    def __call__(self, *, causes: str, within: str = "") -> Callable[[CheckFunction], CheckFunction]:
        """Decorates a check: its name and what it says are those of the function and its docstring."""

        def add(function: CheckFunction) -> CheckFunction:
            says = " ".join((function.__doc__ or "").split())
            self.checks.append(Check(function.__name__, says, causes, function, within))
            return function

        return add


def declined(component: Component) -> Mapping[str, str]:
    """Checks that the component's author declines, with the reason: `declines` of its config. Raises UserError."""
    where = f"{component.config.__name__}.declines"
    if "declines" in {field.name for field in dataclasses.fields(component.config)}:
        raise UserError(f"{where} is an option, so that a user could change it: annotate it ClassVar.")
    given = getattr(component.config, "declines", {})
    if not isinstance(given, Mapping):
        raise UserError(f"{where} must map the name of a check to the reason for declining it, not be {given!r}.")
    for name, reason in given.items():
        if not (isinstance(reason, str) and reason.strip()):
            raise UserError(f"{where} gives no reason for declining {name!r}: say in a few words why it does not hold.")
    return given


def run_checks(checks: Sequence[Check], component: Component, seed: int = 0) -> Iterator[Result]:
    """Every check in turn, as its result comes. Raises CannotBeBuilt."""
    reasons, seen = declined(component), dict[tuple[str, str, str], str]()
    for check in checks:
        if check.name in reasons:
            yield Result(check, Status.DECLINED, reasons[check.name], 0.0)
            continue
        start = time.perf_counter()
        status, detail, raised = Status.OK, "", False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                detail = check.run(component, seed) or ""
        except NotApplicable as reason:
            status, detail = Status.NOT_APPLICABLE, str(reason)
        except CannotBeBuilt:
            raise
        except PropertyBroken as broken:
            status, detail = Status.FAILED, str(broken)
            if broken.__cause__ and (place := _place(broken.__cause__, component, else_any=False)):
                detail += f" See {place}."
        except Exception as error:  # a component may fail in any way, and the other checks are still of use
            told, place, name = " ".join(str(error).split()).rstrip("."), _place(error, component), type(error).__name__
            # One fault of the author's stops many checks: told once. Numbers in it may differ, as sizes of batches do.
            first = seen.setdefault((name, place, re.sub(r"\d+", "0", told)), check.name)
            status, raised = Status.FAILED, True
            detail = (
                f"It raised {name} at {place}: {told}."
                if first == check.name
                else f"As above: the {name} of {first} at {place}."
            )
        yield Result(check, status, detail, time.perf_counter() - start, raised)


def _place(error: BaseException, component: Component, *, else_any: bool = True) -> str:
    """File and line of the author's code that it came from: the innermost of the component's package, or else of all."""
    packages = {name.partition(":")[0].partition(".")[0] for name in (component.target, component.config.__module__)}
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [frame for frame in frames if str(frame[0].f_globals.get("__name__")).partition(".")[0] in packages]
    if not (found := own or frames * else_any):
        return ""
    frame, line = found[-1]
    path, here = Path(frame.f_code.co_filename), Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line} in {frame.f_code.co_name}"


ROUNDING, NOTHING = 1e-6, 1e-12
"""How far apart, relative to the larger and at all, two numbers may be that are the same but for the order of their sums, in float32
too."""


def alike(one: Any, other: Any) -> bool:
    """Whether two outcomes are the same up to the rounding of the numbers in them."""
    if isinstance(one, float) and isinstance(other, float):
        nan = math.isnan(one) and math.isnan(other)
        return nan or math.isclose(one, other, rel_tol=ROUNDING, abs_tol=NOTHING)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)
