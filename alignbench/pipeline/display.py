"""What a person sees while a run goes on: in a terminal a bar with reward and KL in it, in a log file a line every half minute, and
in both one line per stage with its time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from alignbench.app.telling import Verbosity, about
from alignbench.untrusted import told

SHOWN = ("reward", "kl", "loss", "accuracy", "entropy")  # in a bar there is room for three
MOST_FIGURES = 3
HEARTBEAT = 30.0
"""Seconds after which a log file says how far a stage is: whoever reads it wants to know that the run lives."""
TIME_WIDTH = 8  # of 12:34:56


@dataclass
class StageNote:
    """What the line of a finished stage says beside its name and time."""

    text: str = ""


@dataclass
class Pace:
    """How far a stage is, and how long the rest will take. A resumed stage begins in the middle: `first` is what it had done."""

    name: str
    began: float
    first: int | None = None
    done: int = 0
    updates: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    _since: float = 0.0

    def step(self, update: int, updates: int, figures: Mapping[str, float], now: float) -> None:
        if self.first is None or update <= self.done:  # the first, or the beginning of another loop of the same stage
            self.first, self._since = update, now
        self.done, self.updates, self.figures = update, updates, figures

    def left(self, now: float) -> float | None:
        """Seconds, by the updates that were seen; None before there are two."""
        if self.first is None or self.done <= self.first:
            return None
        each = (now - self._since) / (self.done - self.first)
        return max(each * (self.updates - self.done), 0.0)

    def line(self, now: float) -> str:
        """Of a log file."""
        if self.first is None:
            return f"{self.name:<12} {now - self.began:7.1f} s   so far"
        left = self.left(now)
        now_told = self.figures  # another thread may put others in their place
        figures = [f"{key} {now_told[key]:.3f}" for key in shown(now_told)]
        rest = "" if left is None or self.done == self.updates else f"{about(left)} left"
        return "  ".join(
            part for part in (f"{self.name:<12} update {self.done} of {self.updates}", *figures, rest) if part
        )


@dataclass
class Display:
    """Writes to the terminal or the log file, and keeps the seconds of each stage and which stages another run had made."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    verbosity: Verbosity = Verbosity.NORMAL
    seconds: dict[str, float] = field(default_factory=dict)
    reused: dict[str, str] = field(default_factory=dict)
    _bar: tuple[Progress, TaskID] | None = None
    _pace: Pace | None = None
    _aside: float = 0.0

    def __post_init__(self) -> None:
        self.console.quiet = self.console.quiet or self.verbosity is Verbosity.QUIET

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageNote]:
        """Times a stage; its line is printed when it ends well."""
        note, start, aside = StageNote(), time.perf_counter(), self._aside
        self._pace = Pace(name, start)
        columns = (TextColumn("{task.description}"), BarColumn(self._bar_width()), MofNCompleteColumn())
        progress = Progress(
            *columns,
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        try:
            with progress, self._heartbeat(self._pace):
                self._bar = progress, progress.add_task(f"{name:<12}", total=None, figures="")
                yield note
        finally:
            self._bar = self._pace = None
            took = time.perf_counter() - start - (self._aside - aside)
            self.seconds[name] = self.seconds.get(name, 0.0) + took
        self.say(f"{name:<12} {took:7.1f} s   {note.text}".rstrip())

    @contextlib.contextmanager
    def _heartbeat(self, pace: Pace) -> Iterator[None]:
        """Where there is no bar: a line every so often, whatever the stage is waiting for."""
        if self.console.is_terminal or self.console.quiet:
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                self.say(pace.line(time.perf_counter()))

        thread = threading.Thread(target=beat, name=f"progress of {pace.name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """Times what interrupts the present stage: its seconds are its own, and none of the stage's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self._aside += took
            self.seconds[name] = self.seconds.get(name, 0.0) + took

    def took_at_least(self, name: str, seconds: float) -> None:
        """What a resumed stage took before it was killed counts."""
        self.seconds[name] = max(self.seconds[name], seconds)

    def step(self, update: int, updates: int, metrics: Mapping[str, float]) -> None:
        """Moves the bar of the present stage."""
        if self._pace:
            self._pace.step(update, updates, metrics, time.perf_counter())
            if self.verbosity is Verbosity.VERBOSE:
                figures = "  ".join(f"{key} {value:.4g}" for key, value in metrics.items() if value is not None)
                self.say(f"{self._pace.name:<12} update {update} of {updates}  {figures}")
        if self._bar:
            progress, task = self._bar
            figures = fitting(metrics, self._room(len(f"{updates}") * 2 + 1, len(progress.tasks[0].description)))
            progress.update(task, completed=update, total=updates, figures=figures)

    def _bar_width(self) -> int:
        return 20 if self.console.width >= 80 else 10 if self.console.width >= 50 else 4

    def _room(self, count: int, name: int) -> int:
        """What a line has left for figures: the bar, the count and the time come first, with a space between any two."""
        return self.console.width - (name + self._bar_width() + count + TIME_WIDTH + 4)

    def say(self, text: str) -> None:
        self.console.print(escape(told(text)), soft_wrap=True)

    def say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)


def shown(metrics: Mapping[str, float]) -> list[str]:
    """The figures that tell most, the first of them first."""
    return [key for key in SHOWN if metrics.get(key) is not None][:MOST_FIGURES]


def fitting(metrics: Mapping[str, float], room: int) -> str:
    """As many of the figures as there is room for."""
    text = ""
    for key in shown(metrics):
        longer = f"{text}  {key} {metrics[key]:.3f}".lstrip()
        if len(longer) > room:
            break
        text = longer
    return text


def closing_figures(metrics: Mapping[str, float]) -> str:
    """The last figures of a training stage, for its line."""
    return ", ".join(f"{key} {metrics[key]:.3f}" for key in SHOWN if key in metrics)
