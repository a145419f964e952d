"""What must come out of files of a user's: a few rows in common forms, for the conformance kit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from alignbench import DataSource, Known, Ranking, Split

_RANKED = [
    {"prompt": f"Question {i}?", "responses": [f"bad {i}", f"good {i}", f"fair {i}"], "ranks": [2, 0, 1]}
    for i in range(12)
]
_ROWS = [
    *({"prompt": f"Question {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(24)),
    {"prompt": "Question 24?", "chosen": "alike", "rejected": "alike"},
]


def _lines(rows: Sequence[Any], *more: str) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows) + "".join(f"{line}\n" for line in more)


def recorded() -> list[Known]:
    """The rankings of the data; those of a file, row by row, of which one is damaged."""

    def of_data(config: Any, data: DataSource, rankings: Sequence[Ranking]) -> str:
        return "" if list(rankings) == list(data.rankings()) else "The rankings are not those of the data."

    def of_file(config: Any, data: DataSource, rankings: Sequence[Ranking]) -> str:
        found = [(r.prompt.text, r.responses, r.ranks) for r in rankings]
        wanted = [(row["prompt"], tuple(row["responses"]), tuple(row["ranks"])) for row in _RANKED]
        return "" if found == wanted else f"The file's first ranking came back as {found[:1]}, not {wanted[:1]}."

    file = {"rankings.jsonl": _lines(_RANKED, '{"prompt": "Question 99?", "responses": ["one", "two"], "ranks": [0]}')}
    options = {"path": "{folder}/rankings.jsonl", "max_bad_share": 0.1}
    return [Known({}, of_data), Known(options, of_file, files=file)]


def preferences() -> list[Known]:
    """Pairs: each row is a ranking of two, the chosen response first; a pair of equal texts says nothing; no prompt is in both splits."""

    def gives(config: Any, source: DataSource) -> str:
        rankings = {ranking.prompt.text: ranking for ranking in source.rankings()}
        for text, ranking in rankings.items():
            number = text.removeprefix("Question ").removesuffix("?")
            best = [response for response, rank in zip(ranking.responses, ranking.ranks, strict=True) if rank == 0]
            if number != "24" and best != [f"good {number}"]:
                return f"The best response to {text!r} is {best}, not 'good {number}'."
        asked = [prompt.text for split in Split for prompt in source.prompts(split)]
        if sorted({*asked, *rankings}) != sorted(row["prompt"] for row in _ROWS) and len({*asked, *rankings}) < 24:
            return f"Of {len(_ROWS)} rows {len({*asked, *rankings})} questions are left."
        return ""

    options = {"path": "{folder}/pairs.jsonl", "held_out_rows": 0}
    return [Known(options, gives, files={"pairs.jsonl": _lines(_ROWS)})]
