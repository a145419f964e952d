"""A comparison as one HTML file that needs nothing else: no network, no second file.

All text that comes from runs is untrusted. The template escapes it, `shown` makes visible what would act, and the page's
Content-Security-Policy allows one script, by its hash, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from alignbench.errors import UserError
from alignbench.results.compared.paired import Difference
from alignbench.results.compared.table import Row, Table
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun
from alignbench.results.shown import render, sections
from alignbench.results.shown.cells import ARROWS, NOT_APPLICABLE, costs, marked
from alignbench.results.shown.few import few
from alignbench.results.shown.generations import side_by_side
from alignbench.results.shown.plots import FIRST, draw
from alignbench.results.shown.plots.inline import drawn, markers, palette, row_key
from alignbench.results.shown.plots.style import Styles
from alignbench.results.shown.plots.text import metric_name, shown

ON_PAPER = 9
"""Columns of figures on a sheet."""


def write(runs: Sequence[StoredRun], table: Table, differences: Sequence[Difference], path: Path) -> None:
    """The report, whole or not at all."""
    _write(path, page(runs, table, differences).encode())


def save_plots(table: Table, differences: Sequence[Difference], folder: Path) -> list[Path]:
    """Each plot as `<name>.png` and `<name>.svg`; one without data has no file. Where none has data, no folder is made."""
    drawn_plots = [plot for plot in draw(table, differences) if plot.figure is not None]
    if not drawn_plots:
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {folder}: {error.strerror}. Choose another folder.") from error
    written = []
    for plot in drawn_plots:
        for suffix, content in (("png", plot.png()), ("svg", plot.svg())):
            _write(folder / f"{plot.name}.{suffix}", content)
            written.append(folder / f"{plot.name}.{suffix}")
    return written


def page(runs: Sequence[StoredRun], table: Table, differences: Sequence[Difference]) -> str:
    """The report's HTML."""
    style, script = palette() + _file("style.css"), _file("script.js")
    whole = table
    table, differences = few(table, differences)
    generations, styles = side_by_side(table.rows), Styles.of(table)
    pictures = [drawn(plot) for plot in draw(table, differences)]
    first = [each for each in pictures if each.plot.kind in FIRST]
    more = [each for each in pictures if each.plot.kind not in FIRST]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    return environment.from_string(_file("report.html.jinja")).render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        table=table,
        no_verdict="" if table.verdict else _no_verdict(whole, differences),
        worlds=dict.fromkeys((row.identity.model, row.identity.data) for row in table.rows),
        evaluated=sum(len(row.runs) for row in whole.rows),
        found=sum(run.record.status is Status.FINISHED for run in runs),
        unfinished=sum(run.record.status is not Status.FINISHED for run in runs),
        several_seeds=any(len(row.seeds) > 1 for row in table.rows),
        every=list(range(len(table.rows))),
        sheets=_sheets(table),
        keys=[row_key(styles[row]) for row in table.rows],
        markers=markers(),
        cells=marked(table, differences),
        costs=costs(table),
        arrows=ARROWS,
        caption=render.caption(table, differences),
        remarks=render.remarks(table),
        metric_name=metric_name,
        differences=[difference_texts(d) for metric in table.metrics for d in differences if d.metric == metric],
        significant=sum(d.significant for d in differences),
        first=first,
        more=more,
        image=_image,
        sections=sections.made(table),
        generations=generations,
        data=_json(
            {
                "generations": generations.as_json(),
                "panels": [panel.numbers for each in (*first, *more) for panel in each.panels],
            }
        ),
        configurations=_configurations(table.rows),
    )


def _no_verdict(table: Table, differences: Sequence[Difference]) -> str:
    if len(table.rows) < 2:
        return "There is no verdict: it takes two rows to compare."
    if not any(d.primary for d in differences):
        return "There is no verdict: no two rows were compared in a primary metric. The notes below may say why."
    return (
        "There is no verdict: rows that do not belong in one table are shown together, and nothing is claimed of them."
    )


def _sheets(table: Table) -> list[list[int]]:
    """The rows that stand on one sheet of paper, by their places in the table: a few beside the SFT models that they are read against."""
    fixed = [i for i, row in enumerate(table.rows) if row.baseline]
    others = [i for i, row in enumerate(table.rows) if not row.baseline]
    room = max(2, ON_PAPER - len(fixed))
    return [[*fixed, *others[i : i + room]] for i in range(0, len(others), room)] or [fixed]


def _finalize(value: object) -> object:
    """What every expression of the template goes through before it is escaped."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _file(name: str) -> str:
    return importlib.resources.files("alignbench.results.shown").joinpath("page", name).read_text(encoding="utf-8")


def _hash(content: str) -> Markup:
    """As a Content-Security-Policy names it."""
    return Markup(f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'")


def _json(value: Any) -> Markup:
    """Inside a script element: ASCII, and without the characters that could end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _image(content: bytes) -> Markup:
    """An SVG inside <img> can run no script and load nothing."""
    return Markup(f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}")


def difference_texts(d: Difference) -> dict[str, Any]:
    """As a table shows it: rounded, with what its interval is over."""
    return {
        "metric": d.metric,
        "row": " ".join(d.row),
        "baseline": " ".join(d.baseline),
        "value": f"{d.value:+.3f}",
        "interval": NOT_APPLICABLE if math.isnan(d.low) else f"[{_fixed(d.low)}, {_fixed(d.high)}]",
        "p_value": _p(d.p_value),
        "p_holm": _p(d.p_holm),
        "effect_size": _fixed(d.effect_size, 2),
        "significant": d.significant,
        "primary": d.primary,
        "over": "seeds" if d.over_seeds else "examples",
        "seeds": d.seeds,
        "examples": d.examples,
    }


def _fixed(value: float | None, decimals: int = 3) -> str:
    return NOT_APPLICABLE if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def _p(value: float | None) -> str:
    return "< 0.0001" if value is not None and value < 0.0001 else _fixed(value, 4)


def _configurations(rows: Sequence[Row]) -> dict[str, Any]:
    """Settings and versions that all rows share, once; of each row what is its own."""
    settings = {row.label: dict(row.runs[0].settings) for row in rows}
    versions = {row.label: dict(row.identity.packages) for row in rows}
    shared_settings, shared_versions = _shared(settings), _shared(versions)
    return {
        "settings": shared_settings,
        "versions": shared_versions,
        "rows": [
            {
                "label": " ".join(row.label),
                "identity": row.identity,
                "seeds": ", ".join(map(str, row.seeds)),
                "runs": ["/".join(run.path.parts[-2 if row.baseline else -1 :]) for run in row.runs],
                "hardware": "; ".join(f"{key}: {value}" for key, value in row.identity.hardware.items()),
                "settings": _own(settings[row.label], shared_settings),
                "versions": _own(versions[row.label], shared_versions),
            }
            for row in rows
        ],
    }


def _shared(by_row: Mapping[tuple[str, ...], Mapping[str, Any]]) -> dict[str, str]:
    values: dict[str, list[str]] = defaultdict(list)
    for own in by_row.values():
        for key, value in own.items():
            values[key].append(setting_text(value))
    return {key: found[0] for key, found in values.items() if len(found) == len(by_row) and len(set(found)) == 1}


def _own(values: Mapping[str, Any], shared: Mapping[str, str]) -> dict[str, str]:
    return {key: setting_text(value) for key, value in values.items() if key not in shared}


def setting_text(value: Any) -> str:
    """As YAML has it, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 300 else f"{text[:299]}…"


def _write(path: Path, content: bytes) -> None:
    """Through a temporary file: a report that could not be written whole leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}. Choose another place for it.") from error
