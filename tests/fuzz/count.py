"""What became of the cases of a fuzzer."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from alignbench.errors import AlignbenchError

_CLASS = re.compile(r"\b(?:\w+(?:Error|Exception)|\w*(?:Config|ConfigNode))\b(?<!/config)")


@dataclass
class Count:
    """`ran`: what such a case did that was not refused. `faults`: what the case was, and how it failed."""

    ran: str = "loaded"
    tried: int = 0
    refused: int = 0
    well: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)

    def attempt(self, name: str, case: Callable[[], object]) -> None:
        """One case: it ends well, is refused in one line, or is a fault."""
        self.tried += 1
        try:
            case()
        except AlignbenchError as error:
            if wrong := told(error):
                self.faults.append((name, wrong))
            else:
                self.refused += 1
        except Exception:
            self.faults.append((name, traceback.format_exc(limit=-3)))
        else:
            self.well += 1

    def report(self) -> int:
        """Prints every fault, and the figures; returns the exit code."""
        for name, wrong in self.faults:
            print(f"{name[:300]!a}\n    {wrong[:1500]}".encode(errors="backslashreplace").decode())
        print(self)
        return 1 if self.faults else 0

    def __str__(self) -> str:
        several = sum("Traceback" not in wrong for _, wrong in self.faults)
        return (
            f"{self.tried} tried: {self.refused} refused in one line, {self.well} {self.ran}, "
            f"{len(self.faults) - several} tracebacks, {several} refusals that are no plain line"
        )


def told(error: AlignbenchError) -> str:
    """What is wrong with a refusal; empty: nothing."""
    text = str(error)
    if "\n" in text or "\x1b" in text:
        return f"more than one plain line: {text!r}"
    if found := _CLASS.search(text):
        return f"names the class {found.group()}: {text}"
    return "" if text.strip() else "says nothing"
