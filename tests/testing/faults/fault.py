"""What a planted fault is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` wherever it occurs in `module` (default: that of the component's class). `caught_by`: one of the
    checks that catch it."""

    name: str
    component: str
    old: str
    new: str
    caught_by: str
    module: str = ""
