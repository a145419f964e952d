"""Parts of a family that are asked where they are asked for: `eval.options.<family>.further`."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench import unknown_name


def chosen(names: Sequence[str], known: Sequence[str], family: str) -> Sequence[str]:
    """Those of `known` that are named, or all of them. Raises UserError for another name."""
    for name in names:
        if name not in (*known, "all"):
            raise unknown_name("part", name, (*known, "all"), where=f"eval.options.{family}.further")
    return known if "all" in names else names
