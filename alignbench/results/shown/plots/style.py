"""What all plots share: one look for each row, figures, and the bytes of a file."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alignbench.records import Direction
from alignbench.results.compared.table import Row, Table
from alignbench.results.shown.plots.text import axis_label, shown

# Paul Tol's "muted" scheme, made to be told apart with any colour vision (personal.sron.nl/~pault), strongest first.
PALETTE = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#999933", "#44AA99", "#AA4499", "#DDCC77")
SFT_COLOUR = "#555555"
LineStyle = str | tuple[int, tuple[int, ...]]
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (2, 2)))
INK = "#333333"
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
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
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
    """How one row is drawn everywhere. The colour is its algorithm's; marker and line tell its settings apart."""

    label: str
    colour: str
    marker: str
    line: LineStyle

    def handle(self, *, line: bool = False) -> Line2D:
        """For a legend."""
        drawn = {"linestyle": self.line, "marker": ""} if line else {"linestyle": "", "marker": self.marker}
        return Line2D([], [], color=self.colour, linewidth=1.8, markersize=7, **drawn)


@dataclass(frozen=True)
class Styles:
    by_row: Mapping[tuple[str, ...], Style]

    @classmethod
    def of(cls, table: Table) -> Styles:
        """Colours go round by the names of the algorithms, whatever the order of the rows."""
        algorithms = sorted({row.label[0] for row in table.rows if not row.baseline})
        drawn: dict[str, int] = {}
        styles = {}
        for row in table.rows:
            # Algorithms beyond the palette share a colour and start at another marker.
            start = 0 if row.baseline else algorithms.index(row.label[0]) // len(PALETTE)
            i = start + drawn.setdefault(row.label[0], 0)
            drawn[row.label[0]] += 1
            colour = SFT_COLOUR if row.baseline else PALETTE[algorithms.index(row.label[0]) % len(PALETTE)]
            marker, line = MARKERS[i % len(MARKERS)], LINES[i % len(LINES)]
            styles[row.label] = Style(row_label(row.label), colour, marker, line)
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
