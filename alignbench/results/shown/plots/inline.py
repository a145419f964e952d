"""A plot as parts of an HTML page: each panel an SVG that wears the page's colours, with the numbers behind it, and a key of its rows.

matplotlib draws it once. Of its SVG only shapes and text are taken over, with attributes in place of styles, which a strict
Content-Security-Policy refuses; colours become the page's own variables, so that one drawing serves on light and on dark ground."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from alignbench.results.shown.plots.numbers import panel_of
from alignbench.results.shown.plots.style import (
    GRID,
    INK,
    MARKERS,
    PALETTE,
    PALETTE_ON_DARK,
    SFT_COLOUR,
    SFT_ON_DARK,
    SOFT,
    Plot,
    Style,
    literal_text,
)

_ROOT = {INK: "--ink", SOFT: "--soft", GRID: "--grid", "#ffffff": "--ground", SFT_COLOUR: "--sft"}
VARIABLES = {**_ROOT, **{colour: f"--row{i}" for i, colour in enumerate(PALETTE)}}
"""What a colour of the plots is called on the page."""
SERIES = {
    "--sft": (SFT_COLOUR, SFT_ON_DARK),
    **{f"--row{i}": pair for i, pair in enumerate(zip(PALETTE, PALETTE_ON_DARK, strict=True))},
}
"""Of the rows' colours: on light and on dark ground. The others are the page's."""
_SHAPES, _KEPT = ("path", "text"), ("x", "y", "d", "transform")
_STYLES = (
    "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity", "font-size", "font-weight",
    "text-anchor",
)  # fmt: skip
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_DASHES: Mapping[str, list[float]] = {"-": [], "--": [5, 2.5], ":": [1.5, 2], "-.": [6, 2, 1.5, 2]}
_MARGIN = 3.0
ENLARGED = 1.42
"""Pixels of a page for a point of the figure, where there is room: three panels side by side fill the page."""


@dataclass(frozen=True)
class Panel:
    """`numbers` is what a reader who points at it is told: see `_numbers`."""

    title: str
    svg: Markup
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    label: str
    sample: Markup


@dataclass(frozen=True)
class Drawn:
    """`tall`: so many names on its axes that a page had better cut it at a height."""

    plot: Plot
    panels: tuple[Panel, ...] = ()
    keys: tuple[Key, ...] = ()
    tall: bool = False


def drawn(plot: Plot) -> Drawn:
    figure = plot.figure
    if figure is None:
        return Drawn(plot)
    buffer = io.BytesIO()
    with literal_text():
        matplotlib.rcParams["svg.fonttype"] = "none"
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        boxes = [axes.get_tightbbox() for axes in figure.axes]
    root = ElementTree.fromstring(buffer.getvalue())
    shapes = {shape.get("id", ""): shape for shape in root.iter() if _tag(shape) == "path" and shape.get("id")}
    groups = [group for group in root.iter() if re.fullmatch(r"axes_\d+", group.get("id", ""))]
    scale, height = 72 / figure.dpi, 72 * figure.get_figheight()
    known = [box for box in boxes if box is not None]
    size = tuple(scale * max(sides) + 2 * _MARGIN for sides in ([b.width for b in known], [b.height for b in known]))
    panels = []
    for axes, group, box in zip(figure.axes, groups, boxes, strict=True):
        assert box is not None
        left, top = scale * box.x0 - _MARGIN, height - scale * box.y1 - _MARGIN
        title = " ".join((axes.get_title(loc="left") or axes.get_ylabel()).split())
        name = f"{plot.title}: {title}" if len(groups) > 1 else plot.title
        svg = Markup(
            '<svg class="panel" role="img" aria-label="{}" width="{:.0f}" viewBox="{} {} {} {}">{}</svg>'
        ).format(
            name,
            ENLARGED * size[0],
            *(f"{side:.1f}" for side in (left, top, *size)),
            Markup("").join(_shapes(group, shapes)),
        )
        place = axes.get_window_extent()
        area = [place.x0 * scale, height - place.y1 * scale, place.width * scale, place.height * scale]
        panels.append(Panel(title, svg, _numbers(axes, title, [round(side, 1) for side in area])))
    legends = figure.legends[:1]
    keys = [
        Key(
            text.get_text(),
            sample(handle.get_marker(), to_hex(handle.get_color()), _dashes(handle), handle.get_linewidth()),
        )
        for legend in legends
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
        if isinstance(handle, Line2D)
    ]
    most = max(len(panel.numbers["names"]) for panel in panels)
    return Drawn(plot, tuple(panels), tuple(keys), most > 24)


def _shapes(element: ElementTree.Element, known: Mapping[str, ElementTree.Element]) -> Iterator[Markup]:
    """The shapes and texts inside, in the order in which they are painted. What a `use` refers to stands in its place."""
    for child in element:
        tag = _tag(child)
        if tag == "use":
            shape = known[child.get("{http://www.w3.org/1999/xlink}href", "")[1:]]
            at = f"translate({child.get('x', '0')} {child.get('y', '0')})"
            yield _shape("path", {**_given(shape), **_given(child), "transform": at, "d": shape.get("d", "")}, "")
        elif tag in _SHAPES:
            yield _shape(tag, _given(child), child.text or "")
        elif tag == "g":
            yield from _shapes(child, known)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _given(element: ElementTree.Element) -> dict[str, str]:
    """Of its attributes and styles those that are taken over."""
    styles = dict(part.split(": ", 1) for part in element.get("style", "").split("; ") if ": " in part)
    given = {name: value for name in _KEPT if (value := element.get(name))}
    return {**given, **{name: value for name in _STYLES if (value := styles.get(name))}}


def _shape(tag: str, given: Mapping[str, str], text: str) -> Markup:
    if given.get("transform", "").startswith("rotate(-0 "):
        given = {name: value for name, value in given.items() if name != "transform"}
    if tag == "path" and given.get("fill") == "none" and "stroke" not in given:
        return Markup("")
    attributes = Markup("").join(Markup(' {}="{}"').format(name, _value(name, value)) for name, value in given.items())
    return (
        Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), attributes, text)
        if tag == "text"
        else Markup("<path{}/>").format(attributes)
    )


def _value(name: str, value: str) -> str:
    if name in ("fill", "stroke") and value.startswith("#"):
        return colour_of(value)
    short = _NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
    return re.sub(r"\s+", " ", re.sub(r"\s*([A-Za-z])\s*", r"\1", short)) if name == "d" else short


def colour_of(colour: str) -> str:
    """As the page says it; one of its own palette where there is such."""
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour


def palette() -> str:
    """The rows' colours for the page's style."""
    pairs = "".join(f" {name}: light-dark({light}, {dark});" for name, (light, dark) in SERIES.items())
    return f":root {{{pairs} }}\n"


def markers() -> Markup:
    """The shapes that keys refer to, once on a page."""
    found = Markup("").join(Markup('<path id="{}" d="{}"/>').format(_marker_id(m), _outline(m)) for m in MARKERS)
    return Markup('<svg class="defs" aria-hidden="true"><defs>{}</defs></svg>').format(found)


def row_key(style: Style) -> Markup:
    """A row's marker, for wherever its name stands."""
    return sample(style.marker, style.colour, None, 0)


def sample(marker: object, colour: str, dashes: Sequence[float] | None, width: float) -> Markup:
    """As a legend shows it: its line, where `dashes` are given, and its marker."""
    parts = []
    if dashes is not None:
        pattern = (
            Markup(' stroke-dasharray="{}"').format(" ".join(f"{length:g}" for length in dashes)) if dashes else ""
        )
        parts.append(
            Markup('<path d="M-15 0H15" stroke="{}" stroke-width="{}"{}/>').format(
                colour_of(colour), f"{width:g}", pattern
            )
        )
    if marker in MARKERS:
        parts.append(Markup('<use href="#{}" fill="{}"/>').format(_marker_id(str(marker)), colour_of(colour)))
    box = "-7 -7 14 14" if dashes is None else "-15 -7 30 14"
    return Markup('<svg class="key" aria-hidden="true" viewBox="{}">{}</svg>').format(box, Markup("").join(parts))


def _dashes(handle: Line2D) -> list[float] | None:
    """The lengths of its line's strokes and gaps, none where it is solid; None where it has no line."""
    return _DASHES.get(str(handle.get_linestyle()))


def _marker_id(marker: str) -> str:
    return f"marker{MARKERS.index(marker)}"


def _outline(marker: str) -> str:
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform() + Affine2D().scale(10, -10))
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}
    pieces = []
    for points, code in path.iter_segments(simplify=False):
        numbers = "" if code == Path.CLOSEPOLY else " ".join(f"{value:.2f}" for value in points)
        pieces.append(letters[Path.code_type(code)] + numbers)
    return str(escape("".join(pieces)))


def _numbers(axes: Axes, title: str, area: Sequence[float]) -> dict[str, Any]:
    """`area`: left, top, width, height of the part inside the axes; `x`, `y`: its limits; `names`: of its lines where each stands for
    a comparison. `series`: of each row its points, [x, y] and the ends of their intervals as far as they are known: y, then x."""
    panel = panel_of(axes)
    names = {at: " ".join(name.split()) for at, name in panel["ticks"]}
    found: dict[str, list[list[float | None]]] = {}

    def add(name: str, xy: Sequence[float | None], *ends: Sequence[float | None] | None) -> None:
        if None in xy:
            return
        known = [end if end and end[0] != end[1] else None for end in ends]
        while known and known[-1] is None:
            known.pop()
        found.setdefault(name, []).append(
            [*map(_short, xy), *(_short(v) for end in known for v in end or (None, None))]
        )

    for series in panel["points"]:
        for i, xy in enumerate(series["xy"]):
            ends = [bars[i] if i < len(bars) else None for bars in (series["y_bars"], series["x_bars"])]
            add(series["row"], xy, *ends)
    bands: dict[str, dict[Any, list[Any]]] = {}
    for band in panel["bands"]:
        for x, y in ((x, y) for x, y in band["xy"] if y is not None):
            bands.setdefault(band["row"], {}).setdefault(x, []).append(y)
    spans = {
        (xy[0][1], line["row"]): [xy[0][0], xy[1][0]] for line in panel["lines"] if names and len(xy := line["xy"]) == 2
    }
    for line in panel["lines"]:
        if line["rule"] or not line["row"] or (names and not line["marker"]):
            continue
        for x, y in line["xy"]:
            if names:
                add(names.get(y, line["row"]), (x, y), None, spans.get((y, line["row"])))
            else:
                ends = bands.get(line["row"], {}).get(x, [])
                add(line["row"], (x, y), (min(ends), max(ends)) if ends else None)
    return {
        "title": title,
        "area": area,
        "x": panel["x"]["limits"],
        "y": panel["y"]["limits"],
        "labels": [panel["x"]["label"] or title, panel["y"]["label"] or title],
        "names": list(names.values()),
        "series": [{"row": row, "points": points} for row, points in found.items()],
    }


def _short(value: float | None) -> float | None:
    """Four digits tell all that a picture shows."""
    return None if value is None else float(f"{value:.4g}")
