"""The pictures of docs/sweeps.md: what a run says in terminals of three widths, in the middle of PPO, and in a log file, to the end.

python docs/pictures/terminal.py                                           # draws terminal.json, the events of a run
python docs/pictures/terminal.py --record eval=quick sft.updates=200       # makes that run first (minutes) and records it
"""

from __future__ import annotations

import contextlib
import io
import json
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from alignbench.pipeline import display as displays
from alignbench.pipeline.display import SHOWN, Display, StageNote

HERE = Path(__file__).resolve().parent
EVENTS = HERE / "terminal.json"
WIDTHS = (120, 80, 60)
LOG = "log"
LOG_WIDTH = 110
"""Of the picture: a log file has none."""
STAGE, SHARE = "ppo", 0.6
"""Where the terminals are looked at: the bar of that stage after so much of its updates."""
APART = 0.4
"""Seconds between two updates that are kept: the first two and the last of a stage are kept in any case."""
SCALE = 0.6
Event = list[Any]
"""[what, seconds since the start, ...]: stage, name; step, update, updates, figures; say, text; end, what its line says."""


class Recorder(Display):
    """A display that also notes what it is told, and when."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.events: list[Event] = []
        self._start, self._kept, self._ending = time.perf_counter(), 0.0, False

    def note(self, what: str, *more: Any) -> None:
        self.events.append([what, round(time.perf_counter() - self._start, 2), *more])

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageNote]:
        self.note("stage", name)
        with super().stage(name) as line:
            yield line
            self.note("end", line.text)
            self._ending = True  # what is said now is the line of this stage
        self._ending = False

    def step(self, update: int, updates: int, metrics: Mapping[str, float]) -> None:
        now = time.perf_counter()
        if update <= 2 or update == updates or now - self._kept >= APART:
            self._kept = now
            self.note("step", update, updates, {k: round(metrics[k], 4) for k in SHOWN if metrics.get(k) is not None})
        super().step(update, updates, metrics)

    def say(self, text: str) -> None:
        if not self._ending and threading.current_thread() is threading.main_thread():  # else it is a heartbeat
            self.note("say", text)
        super().say(text)


class Beats:
    """Takes the place of the event that ends a heartbeat: a beat comes when `beat` is called, and not by the clock on the wall."""

    def __init__(self) -> None:
        self._orders: queue.Queue[bool] = queue.Queue()
        self._waiting: queue.Queue[None] = queue.Queue()

    def wait(self, timeout: float) -> bool:
        self._waiting.put(None)
        return self._orders.get()

    def set(self) -> None:
        self._orders.put(True)

    def beat(self) -> None:
        """Returns when its line has been said."""
        self._waiting.get()
        self._orders.put(False)
        self._waiting.get()
        self._waiting.put(None)


class Clock:
    """The seconds of the events; in a log file it beats on its way."""

    def __init__(self) -> None:
        self.now = 0.0
        self.beats: Beats | None = None
        self._next = 0.0

    def __call__(self) -> float:
        return self.now

    def event(self) -> Beats:
        """Of a stage that begins."""
        self.beats, self._next = Beats(), self.now + displays.HEARTBEAT
        return self.beats

    def to(self, seconds: float) -> None:
        while self.beats and self._next <= seconds:
            self.now = self._next
            self.beats.beat()
            self._next += displays.HEARTBEAT
        self.now = seconds


def played(events: Sequence[Event], width: int | None) -> str:
    """What a display writes when it is told these events: to a terminal of so many columns as far as STAGE and SHARE, or all of a log file."""
    clock, file = Clock(), io.StringIO()
    terminal: dict[str, Any] = {"force_terminal": True, "color_system": "truecolor", "_environ": {"TERM": "xterm"}}
    console = Console(
        file=file, width=width or 10_000, highlight=False, legacy_windows=False, get_time=clock, no_color=False,
        **(terminal if width else {"_environ": {}}),
    )  # fmt: skip
    display, name, note = Display(console), "", StageNote()
    with (
        patch.object(displays, "time", SimpleNamespace(perf_counter=clock)),
        patch.object(displays, "threading", SimpleNamespace(Event=clock.event, Thread=threading.Thread)),
        contextlib.ExitStack() as outer,
    ):
        stage = outer.enter_context(contextlib.ExitStack())
        for what, at, *more in events:
            clock.to(at)
            if what == "stage":
                (name,) = more
                note = stage.enter_context(display.stage(name))
            elif what == "end":
                clock.beats, (note.text,) = None, more
                stage.close()
            elif what == "step":
                display.step(*more)
                if width and name == STAGE and more[0] >= SHARE * more[1]:
                    assert display._bar
                    display._bar[0].refresh()
                    return file.getvalue()
            else:
                display.say(*more)
    assert not width, f"the events have no stage {STAGE}"
    return file.getvalue()


def screen(written: str) -> list[str]:
    """The lines that a terminal shows after it was sent this, with their colours: of its commands, those that a bar makes use of."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[?\d;]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif part != "\r" and not part.startswith("\x1b[?"):
            lines[row] += part
    return lines[: max((i + 1 for i, line in enumerate(lines) if line), default=0)]


def drawn(events: Sequence[Event], width: int | None, command: str) -> str:
    """The picture of what this command said, as SVG without a font of its own: nothing is loaded from elsewhere."""
    columns = width or LOG_WIDTH
    console = Console(file=io.StringIO(), width=columns, record=True, legacy_windows=False, _environ={})
    for line in [*([f"$ {command}"] if width else []), *screen(played(events, width))]:
        text = Text.from_ansi(line)
        for part in text.divide(range(columns, len(text), columns)):  # a terminal breaks where its edge is
            console.print(part, no_wrap=True, overflow="ignore", crop=False)
    title = f"{columns} columns" if width else f"{command} 2> run.log"
    made = console.export_svg(title=title, theme=MONOKAI, code_format=FORMAT, unique_id=f"terminal-{width or LOG}")
    size = re.search(r'viewBox="0 0 ([\d.]+)', made)
    assert size
    return made.replace("<svg ", f'<svg width="{float(size[1]) * SCALE:.0f}" ', 1)


FORMAT = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px}}
.{unique_id}-title {{font-family: sans-serif; font-size: 18px}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def pictures() -> dict[Path, str]:
    """Every picture: its file and what belongs in it."""
    kept = json.loads(EVENTS.read_text(encoding="utf-8"))
    pictures = {width: drawn(kept["events"], width, kept["command"]) for width in (*WIDTHS, None)}
    return {HERE / f"terminal-{width or LOG}.svg": picture for width, picture in pictures.items()}


def record(overrides: Sequence[str]) -> None:
    """Of a run that shares no stage with others: it shows them all."""
    from alignbench.commands import run as command
    from alignbench.pipeline import run as pipeline

    made: list[Recorder] = []

    def display(*given: Any) -> Recorder:
        made.append(Recorder(*given))
        return made[-1]

    with tempfile.TemporaryDirectory() as folder, patch.object(pipeline, "Display", display):
        code = command.main([*overrides, f"results_dir={folder}/runs", f"cache_dir={folder}/stages"])
    if code:
        sys.exit(code)
    lines = ",\n".join(json.dumps(event) for event in made[-1].events)
    said = json.dumps(" ".join(["python -m alignbench", *overrides]))
    EVENTS.write_text(f'{{"command": {said}, "events": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    if "--record" in sys.argv:
        record([word for word in sys.argv[1:] if word != "--record"])
    for path, content in pictures().items():
        path.write_text(content, encoding="utf-8")
