"""What a person sees while a run goes on: a bar with reward and KL in it, then one line per stage with its time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from alignbench.untrusted import told

SHOWN = ("reward", "kl", "loss", "accuracy", "entropy")  # in a bar there is room for three


@dataclass
class StageNote:
    """What the line of a finished stage says beside its name and time."""

    text: str = ""


@dataclass
class Display:
    """Writes to the terminal, and keeps the seconds of each stage and which stages another run had made."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    seconds: dict[str, float] = field(default_factory=dict)
    reused: dict[str, str] = field(default_factory=dict)
    _bar: tuple[Progress, TaskID] | None = None
    _aside: float = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageNote]:
        """Times a stage; its line is printed when it ends well."""
        note, start, aside = StageNote(), time.perf_counter(), self._aside
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        progress = Progress(
            *columns,
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        try:
            with progress:
                self._bar = progress, progress.add_task(f"{name:<12}", total=None, figures="")
                yield note
        finally:
            self._bar = None
            took = time.perf_counter() - start - (self._aside - aside)
            self.seconds[name] = self.seconds.get(name, 0.0) + took
        self.say(f"{name:<12} {took:7.1f} s   {note.text}".rstrip())

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
        if self._bar:
            progress, task = self._bar
            figures = "  ".join(f"{key} {metrics[key]:.3f}" for key in [k for k in SHOWN if k in metrics][:3])
            progress.update(task, completed=update, total=updates, figures=figures)

    def say(self, text: str) -> None:
        self.console.print(escape(told(text)), soft_wrap=True)

    def say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.say(line)


def closing_figures(metrics: Mapping[str, float]) -> str:
    """The last figures of a training stage, for its line."""
    return ", ".join(f"{key} {metrics[key]:.3f}" for key in SHOWN if key in metrics)
