"""A plot as numbers, for a browser to draw or to point at: nothing is worked out a second time, each is read off the figure that is
saved. Axes become panels, and what is drawn on them points, lines and bands that know their row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from alignbench.results.shown.plots.style import Plot


def as_json(plot: Plot) -> dict[str, Any]:
    panels = [panel_of(axes) for axes in plot.figure.axes] if plot.figure else []
    return {"name": plot.name, "title": plot.title, "text": plot.text, "notes": plot.notes, "panels": panels}


def panel_of(axes: Axes) -> dict[str, Any]:
    bars = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    parts = {id(artist) for bar in bars for artist in _parts(bar)}
    lines = [line for line in axes.lines if id(line) not in parts]
    bands = [c for c in axes.collections if isinstance(c, PolyCollection)]
    fixed = isinstance(axes.yaxis.get_major_locator(), FixedLocator)
    names = [label.get_text() for label in axes.get_yticklabels()] if fixed else []
    return {
        "title": axes.get_title(loc="left"),
        "x": {"label": axes.get_xlabel(), "limits": _finite(axes.get_xlim())},
        "y": {"label": axes.get_ylabel(), "limits": _finite(axes.get_ylim())},
        "ticks": [[float(at), str(name)] for at, name in zip(axes.get_yticks() if fixed else (), names, strict=True)],
        "bands": [found for band in bands if (found := _band(band))["xy"]],
        "lines": [found for line in lines if (found := _line(axes, line))],
        "points": [_points(bar) for bar in bars],
    }


def _parts(bar: ErrorbarContainer) -> Iterable[object]:
    line, caps, _ = bar.lines
    return [line, *caps]


def _named(label: object) -> str:
    """matplotlib's own labels begin with an underscore."""
    return "" if label is None or str(label).startswith("_") else str(label)


def _band(band: PolyCollection) -> dict[str, Any]:
    face = band.get_facecolor()
    vertices = np.asarray(band.get_paths()[0].vertices) if band.get_paths() else np.zeros((0, 2))
    return {
        "row": _named(band.get_label()),
        "colour": to_hex(face[0]) if len(face) else "#777777",  # type: ignore[arg-type]
        "xy": _pairs(vertices),
    }


def _line(axes: Axes, line: Line2D) -> dict[str, Any]:
    """A vertical rule across the panel has the panel's own height for its y."""
    xy = np.asarray(line.get_xydata(), dtype=float)
    rule = bool(line.get_transform() == axes.get_xaxis_transform(which="grid"))
    face, every = line.get_markerfacecolor(), line.get_markevery()
    return {
        "row": _named(line.get_label()),
        "colour": to_hex(line.get_color()),
        "width": float(line.get_linewidth()),
        "dash": str(line.get_linestyle()),
        "marker": _marker(line),
        "hollow": isinstance(face, str) and face == "white",
        "marked": list(every) if isinstance(every, list) else list(range(len(xy))),
        "rule": rule,
        "xy": _pairs(xy),
    }


def _points(bar: ErrorbarContainer) -> dict[str, Any]:
    """`x_bars` and `y_bars`: low and high end at each point."""
    line, _, collections = bar.lines
    assert line is not None
    segments = list(collections)
    x_bars = _ends(segments.pop(0), 0) if bar.has_xerr else []
    y_bars = _ends(segments.pop(0), 1) if bar.has_yerr else []
    return {
        "row": _named(bar.get_label()),
        "colour": to_hex(line.get_color()),
        "marker": _marker(line),
        "dash": str(line.get_linestyle()),
        "xy": _pairs(np.asarray(line.get_xydata(), dtype=float)),
        "x_bars": x_bars,
        "y_bars": y_bars,
    }


def _ends(collection: LineCollection, axis: int) -> list[list[float | None]]:
    return [_finite(np.asarray(segment)[:, axis]) for segment in collection.get_segments()]


def _marker(line: Line2D) -> str:
    marker = line.get_marker()
    return marker if isinstance(marker, str) and marker not in ("None", "", " ") else ""


def _pairs(values: Any) -> list[list[float | None]]:
    return [_finite(pair) for pair in values]


def _finite(values: Iterable[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
