"""Comparisons that were made elsewhere, by people or by a judge: a CSV file of who won on what, rated as `--ratings` rates runs.

Columns: `left` and `right` name the two that were compared, `winner` is one of these names, `left`, `right` or `tie`; `item` says on what
(a prompt, for one). Comparisons on one item are no independent evidence: intervals are over whole items.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from alignbench.errors import UserError
from alignbench.results.compared.ratings import Match, Rating, rated

COLUMNS = ("left", "right", "winner", "item")
TIES = ("tie", "draw", "equal")


def rate_file(path: Path) -> tuple[Rating, ...]:
    """Those named in the file, the best first. Raises UserError that names the line of what cannot be read."""
    import numpy as np

    games = list(_games(path))
    names = sorted({name for left, right, _, _ in games for name in (left, right)})
    if len(names) < 2:
        raise UserError(f"{path} has no comparisons of two.")
    items = {item: i for i, item in enumerate(dict.fromkeys(item for *_, item in games))}
    matches = []
    for a, b in combinations(range(len(names)), 2):
        wins, ties, played = (np.zeros((1, len(items))) for _ in range(3))
        for left, right, winner, item in games:
            if {left, right} == {names[a], names[b]}:
                played[0, items[item]] += 1
                wins[0, items[item]] += winner == names[a]
                ties[0, items[item]] += winner == ""
        if played.any():
            matches.append(Match((a, b), wins, ties, played))
    return rated([(name,) for name in names], matches)


def _games(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Left, right, the winner's name ("" of a tie) and the item, of each line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise UserError(f"{path} has no column {missing[0]}: it needs {', '.join(COLUMNS)}.")
            for row in reader:
                left, right, winner, item = ((row[name] or "").strip() for name in COLUMNS)
                where = f"{path}, line {reader.line_num}"
                if not left or not right or left == right:
                    raise UserError(f"{where}: left and right must be two names.")
                if not item:
                    raise UserError(f"{where}: item is empty: name what was compared, such as the prompt.")
                named = {"left": left, "right": right, **dict.fromkeys(TIES, ""), left: left, right: right}
                found = named.get(winner, named.get(winner.lower()))
                if found is None:
                    raise UserError(f"{where}: winner is {winner[:40]!r}: write {left}, {right}, left, right or tie.")
                yield left, right, found, item
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {error}.") from error
