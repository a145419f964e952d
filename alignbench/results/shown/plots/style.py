"""What all plots share: one look for each row, figures, and the bytes of a file."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignbench.records import Direction
from alignbench.results.compared.table import Row, Table
from alignbench.results.shown.plots.text import axis_label, shown

# Told apart with any colour vision, on white and on the dark ground of a page: the smallest distance of two in OKLab is 0.08, as seen by
# normal eyes and by three kinds of dichromats (Machado, Oliveira & Fernandes 2009), and each has a contrast of 3 with its ground.
PALETTE = ("#430492", "#e87407", "#477748", "#0e9ce7", "#6f0958", "#86976f", "#b2558e", "#8c36c7")
PALETTE_ON_DARK = ("#8a6ee9", "#ff7c13", "#18b94d", "#76eef0", "#e01c7f", "#cce786", "#fc9587", "#d47ffd")
SFT_COLOUR, SFT_ON_DARK = "#555555", "#b0b6be"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
Line = Literal["-", "--", ":", "-."]
LINES: tuple[Line, ...] = ("-", "--", ":", "-.")
INK, SOFT, GRID = "#333333", "#777777", "#e6e6e6"
LONGEST_LABEL = 100
ARROWS = {Direction.HIGHER: " → better", Direction.LOWER: " ← better", Direction.NEITHER: ""}

_SETTINGS: Any = {
    "text.parse_math": False,  # a `$` in a name is a dollar sign
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",  # the same everywhere: no reader's font is needed
    "svg.hashsalt": "alignbench",  # the same comparison gives the same bytes
}


@dataclass(frozen=True)
class Plot:
    """`text`: what it shows and how to read it; of a plot without a figure, why it is left out. `notes`: on these data."""

    name: str
    title: str
    text: str
    figure: Figure | None = None
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Its name without the number of its model and data."""
        return self.name.partition("-")[0]

    def svg(self) -> bytes:
        return self._saved("svg", metadata={"Date": None})

    def png(self) -> bytes:
        return self._saved("png", dpi=150, metadata={"Software": None})

    def _saved(self, kind: str, **options: Any) -> bytes:
        assert self.figure is not None
        buffer = io.BytesIO()
        with literal_text():
            self.figure.savefig(buffer, format=kind, **options)
        return buffer.getvalue()


@dataclass(frozen=True)
class Style:
    """How one row is drawn everywhere. The colour is its algorithm's, the marker its own; the line tells an algorithm's settings apart."""

    label: str
    colour: str
    marker: str
    line: Line

    @property
    def size(self) -> float:
        """Of its marker beside others: a star of the same width is smaller."""
        return 1.4 if self.marker == "*" else 1.0

    def handle(self, *, line: bool = False) -> Line2D:
        """For a legend."""
        return Line2D(
            [], [], color=self.colour, linewidth=1.5, marker=self.marker, markersize=5 if line else 7, linestyle=self.line if line else "",
        )  # fmt: skip


@dataclass(frozen=True)
class Styles:
    by_row: Mapping[tuple[str, ...], Style]

    @classmethod
    def of(cls, table: Table) -> Styles:
        """Colours go round by the names of the algorithms, whatever the order of the rows. First settings choose their marker first: of few
        algorithms each has one that no other has. No two rows have both in common until there are too many of one algorithm."""
        algorithms = sorted({row.label[0] for row in table.rows if not row.baseline})
        settings = Counter[str]()
        turns = []
        for row in table.rows:
            turns.append((settings[row.label[0]], not row.baseline, row.label[0], row))
            settings[row.label[0]] += 1
        used, of_colour, labels = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
        styles = {}
        for turn, _, name, row in sorted(turns, key=lambda turn: turn[:3]):
            colour = SFT_COLOUR if row.baseline else PALETTE[algorithms.index(name) % len(PALETTE)]
            marker = min(MARKERS, key=lambda m: (of_colour[colour, m], used[m]))
            used[marker] += 1
            of_colour[colour, marker] += 1
            label = row_label(row.label)
            labels[label] += 1
            if labels[label] > 1:  # cut to the same length: series are told apart by what they are called
                label = f"{label} ({labels[label]})"
            styles[row.label] = Style(label, colour, marker, LINES[turn % len(LINES)])
        return cls(styles)

    def __getitem__(self, row: Row) -> Style:
        return self.by_row[row.label]


def row_label(label: Sequence[str]) -> str:
    """On one line."""
    return shown(" ".join(label), limit=LONGEST_LABEL)


@contextlib.contextmanager
def literal_text() -> Iterator[None]:
    """Around everything that makes or saves a figure: matplotlib's settings are global, ours end here."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name may be in any script
        matplotlib.rcdefaults()  # a user's own matplotlibrc does not change a report
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def legend(figure: Figure, styles: Sequence[Style], *, line: bool = False, extra: Sequence[Line2D] = ()) -> None:
    """Below the plots, where it makes the figure taller and no plot smaller."""
    handles = [*(style.handle(line=line) for style in styles), *extra]
    labels = [*(style.label for style in styles), *(str(handle.get_label()) for handle in extra)]
    width, height = figure.get_size_inches()
    columns = min(5, max(1, int(width / (0.6 + 0.08 * max(map(len, labels))))))
    figure.set_size_inches(width, height + 0.2 * math.ceil(len(labels) / columns))
    figure.legend(handles, labels, loc="outside lower left", ncols=columns)


def label_axis(axes: Axes, which: str, metric: str, table: Table) -> None:
    """A metric's name, unit, and the way that is better."""
    set_label = axes.set_xlabel if which == "x" else axes.set_ylabel
    set_label(axis_label(metric) + ARROWS[table.metrics.get(metric, Direction.NEITHER)])
