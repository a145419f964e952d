"""The table of architectures in docs/models.md, from what the checks say. usage: python tests/hf/architecture_table.py [--write]"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2] / part) for part in ("", "plugins")]

from tests.hf import architectures
from tests.hf.architecture_checks import SETTINGS, outcome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
START, END = "<!-- made by tests/hf/architecture_table.py -->\n", "<!-- end -->\n"


def table() -> str:
    """One row for each architecture. Raises AssertionError where one is neither refused nor trained rightly."""
    heads = ["architecture", *SETTINGS, "checkpointing"]
    lines = [heads, ["---"] * len(heads), *(row(name) for name in architectures.CONFIGS)]
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n"


def row(name: str) -> list[str]:
    found = {setting: outcome(name, setting) for setting in SETTINGS}
    again = {setting: one.checkpointing for setting, one in found.items()}
    kinds = set(again.values())
    whole = "yes" if kinds == {"yes"} else "; ".join(f"{setting}: {reason(one)}" for setting, one in again.items())
    if {one.plain for one in found.values()} == kinds:  # refused anyway
        whole = reason(kinds.pop()) if len(kinds) == 1 else "refused"
    return [kind(name), *(reason(one.plain) for one in found.values()), whole]


def kind(name: str) -> str:
    return f"`{architectures.CONFIGS[name]().model_type}`" + architectures.REMARKS.get(name, "")


def reason(cell: str) -> str:
    """The start of the refusal that a user reads."""
    return cell.partition(" (")[0].partition(";")[0].replace("|", "/")


def committed() -> str:
    return PAGE.read_text().partition(START)[2].partition(END)[0]


def write() -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(START)
    PAGE.write_text(before + START + table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write()
    else:
        print(table())
