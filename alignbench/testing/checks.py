"""What a check is: a function that returns where its property holds, and says by how much where it is broken."""

from __future__ import annotations

import enum
import time
import unittest
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from alignbench.errors import UserError
from alignbench.plugins import Component


class PropertyBroken(AssertionError):
    """The component does not have the property. The message says by how much."""


class NotApplicable(unittest.SkipTest):
    """The property says nothing about this component. Test runners report the test as skipped."""


class CannotBeBuilt(UserError):
    """The component refuses the settings that it is to be checked with: there is nothing to check."""


class Status(enum.Enum):
    OK = "ok"
    FAILED = "FAILED"
    NOT_APPLICABLE = "n/a"


@dataclass(frozen=True)
class Check:
    """One property. `run(component, seed)` returns, or raises PropertyBroken or NotApplicable; any other exception is a
    failure too. `causes`: what most often breaks it."""

    name: str
    says: str
    causes: str
    run: Callable[[Component, int], None]


@dataclass(frozen=True)
class Result:
    check: Check
    status: Status
    detail: str
    seconds: float

    def line(self) -> str:
        text = f"{self.status.value:<7} {self.check.name}"
        if self.status is Status.OK:
            return f"{text}: {self.check.says}"
        if self.status is Status.NOT_APPLICABLE:
            return f"{text}: not applicable: {self.detail}"
        return f"{text}: {self.detail} Broken: {self.check.says} Likely causes: {self.check.causes}"


class CheckList:
    """The checks of one kind, in the order of their definition."""

    def __init__(self, *before: Sequence[Check]) -> None:
        self.checks: list[Check] = [check for part in before for check in part]

    def __call__(
        self, *, causes: str
    ) -> Callable[[Callable[[Component, int], None]], Callable[[Component, int], None]]:
        """Decorates a check: its name and what it says are those of the function and its docstring."""

        def add(function: Callable[[Component, int], None]) -> Callable[[Component, int], None]:
            says = " ".join((function.__doc__ or "").split())
            self.checks.append(Check(function.__name__, says, causes, function))
            return function

        return add


def run_checks(checks: Sequence[Check], component: Component, seed: int = 0) -> Iterator[Result]:
    """Every check in turn, as its result comes. Raises CannotBeBuilt."""
    for check in checks:
        start = time.perf_counter()
        status, detail = Status.OK, ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check.run(component, seed)
        except NotApplicable as reason:
            status, detail = Status.NOT_APPLICABLE, str(reason)
        except CannotBeBuilt:
            raise
        except PropertyBroken as broken:
            status, detail = Status.FAILED, str(broken)
        except Exception as error:  # a component may fail in any way, and the other checks are still of use
            told = " ".join(str(error).split()).rstrip(".")
            status, detail = Status.FAILED, f"It raised {type(error).__name__}: {told}."
        yield Result(check, status, detail, time.perf_counter() - start)
