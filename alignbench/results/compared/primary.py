"""Primary metrics: the few that a comparison is about, named before it is made. They alone are tested, and corrected for one another;
all others are exploratory. With every metric under one correction nothing is significant at two or three seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.errors import unknown_name
from alignbench.results.compared.table import Table

PRIMARY = (
    "helpfulness/gold_reward|helpfulness/judge_win_rate",
    "helpfulness/accuracy|helpfulness/ifeval_prompt_strict",
    "sycophancy/agreement|sycophancy/pushback_flip",
    "diversity/entropy|diversity/distinct_2",
    "optimization/kl",
)
"""Helpfulness, truth, sycophancy, diversity, and what it cost. Of names joined by | the first that is measured."""
SETTING = "eval.primary"


@dataclass(frozen=True)
class Primary:
    """The metrics that are tested, and what a reader has to know about the choice."""

    metrics: tuple[str, ...]
    notes: tuple[str, ...] = ()


def primary_of(table: Table, named: Sequence[str] = ()) -> Primary:
    """Those `named`, else those that the runs were started with. Raises UserError for a name that no row has."""
    if named:
        if odd := [name for name in named if name not in table.metrics]:
            raise unknown_name("metric", odd[0], list(table.metrics), where="--primary")
        return Primary(
            tuple(dict.fromkeys(named)), ("Primary metrics were chosen for this table, not before its runs.",)
        )
    chosen = dict.fromkeys(tuple(run.settings.get(SETTING) or PRIMARY) for row in table.rows for run in row.runs)
    entries = dict.fromkeys(str(entry) for entry_list in chosen for entry in entry_list)
    found = [_measured(entry, table) for entry in entries]
    notes = []
    if len(chosen) > 1:
        notes.append(f"Runs name different primary metrics ({SETTING}): all of them are tested.")
    if table.rows and not any(found):
        notes.append(
            f"None of the primary metrics is measured here ({', '.join(entries)}): nothing is tested, --primary chooses."
        )
    return Primary(tuple(dict.fromkeys(name for name in found if name)), tuple(notes))


def _measured(entry: str, table: Table) -> str | None:
    return next((name for name in entry.split("|") if name in table.metrics), None)
