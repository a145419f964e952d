"""The results table for other programs, numbers unrounded: CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import unicodedata
from collections.abc import Sequence
from typing import Any

from alignbench.results.compared.paired import Difference
from alignbench.results.compared.table import Table
from alignbench.untrusted import plain

ROW = (
    "row", "algo", "model", "data", "annotator", "reward", "config_hash", "seeds", "seconds", "tokens_per_second",
    "peak_memory_bytes", "peak_gpu_memory_bytes", "metric", "direction", "value", "low_95", "high_95",
    "interval_over",
)  # fmt: skip
DIFFERENCE = (
    "baseline", "difference", "difference_low_95", "difference_high_95", "p_value", "p_holm", "effect_size", "significant",
    "primary", "difference_over",
)  # fmt: skip


def as_csv(table: Table, differences: Sequence[Difference] = ()) -> str:
    """One line per row and metric, with its difference from the baseline where there is one."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*ROW, *DIFFERENCE])
    by_cell = {(d.row, d.metric): d for d in differences}
    for row in table.rows:
        i = row.identity
        names = [" ".join(row.label), i.algo, i.model, i.data, i.annotator or "", i.reward or "", i.config_hash]
        cost = map(_text, (row.seconds, row.tokens_per_second, row.peak_memory_bytes, row.peak_gpu_memory_bytes))
        start = [*map(formula_free, names), len(row.seeds), *cost]
        for name, cell in row.cells.items():
            metric = [formula_free(name), table.metrics[name].value, *map(_text, (cell.value, cell.low, cell.high))]
            difference = _difference(by_cell.get((row.label, name)))
            writer.writerow([*start, *metric, _over(cell.over_seeds), *difference])
    return buffer.getvalue()


def _difference(d: Difference | None) -> list[str]:
    if d is None:
        return [""] * len(DIFFERENCE)
    numbers = map(_text, (d.value, d.low, d.high, d.p_value, d.p_holm, d.effect_size))
    return [
        formula_free(" ".join(d.baseline)),
        *numbers,
        str(d.significant).lower(),
        str(d.primary).lower(),
        _over(d.over_seeds),
    ]


def as_json(table: Table, differences: Sequence[Difference] = (), claimed: Sequence[Difference] = ()) -> str:
    """`claimed`: the differences that the table's verdict rests on, with their own correction."""
    rows = [
        {
            "label": list(row.label),
            "algo": row.identity.algo,
            "plugin": row.identity.plugin,
            "plugin_version": row.identity.plugin_version,
            "model": row.identity.model,
            "data": row.identity.data,
            "annotator": row.identity.annotator,
            "reward": row.identity.reward,
            "config_hash": row.identity.config_hash,
            "baseline": row.baseline,
            "seeds": list(row.seeds),
            "seconds": row.seconds,
            "tokens_per_second": row.tokens_per_second,
            "peak_memory_bytes": row.peak_memory_bytes,
            "peak_gpu_memory_bytes": row.peak_gpu_memory_bytes,
            "metrics": {
                name: {
                    "value": cell.value,
                    "half_interval_95": cell.half_interval,
                    "low_95": cell.low,
                    "high_95": cell.high,
                    "interval_over": _over(cell.over_seeds),
                    "direction": table.metrics[name].value,
                }
                for name, cell in row.cells.items()
            },
            "unanswered": dict(row.unanswered),
        }
        for row in table.rows
    ]
    return json_text(
        {
            "verdict": list(table.verdict),
            "verdict_differences": [dataclasses.asdict(d) for d in claimed],
            "rows": rows,
            "differences": [dataclasses.asdict(d) for d in differences],
            "incomplete": list(table.incomplete),
            "notes": list(table.notes),
        }
    )


def json_text(content: Any) -> str:
    """Strict JSON: NaN and infinity, which it does not have, are null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def formula_free(text: str) -> str:
    """A spreadsheet would compute a cell that starts with = + - @, some also behind white space or where the sign is full-width."""
    first = unicodedata.normalize("NFKC", text).lstrip()[:1]
    return f"'{plain(text)}" if first and first in "=+-@" else plain(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def _over(seeds: bool) -> str:
    return "seeds" if seeds else "examples"
