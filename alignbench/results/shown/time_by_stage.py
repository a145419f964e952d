"""The built-in section of the report that says where the time went."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench.contracts.report import ReportRow, Section

UNKNOWN = "–"


def section(rows: Sequence[ReportRow]) -> Section | None:
    """Seconds of each stage, in the order in which runs go through them."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row.seconds))
    if not stages:
        return None
    return Section(
        "Time by stage",
        (
            "Seconds of wall time, mean over the seeds of a row. A stage that a run took from another counts what it took there.",
        ),
        ("stage", *(" ".join(row.label) for row in rows)),
        tuple(
            (stage, *(f"{row.seconds[stage]:.1f}" if stage in row.seconds else UNKNOWN for row in rows))
            for stage in stages
        ),
    )
