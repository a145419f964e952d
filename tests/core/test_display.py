"""What a run says while it goes on: in a terminal of any width, in a log file, quietly and at length."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from alignbench import UserError
from alignbench.app import telling
from alignbench.app.telling import Verbosity, about
from alignbench.pipeline import display as displays
from alignbench.pipeline.display import Display, Pace, fitting

METRICS = {"loss": 0.25, "kl": 1.5, "reward": -0.125, "entropy": 2.0}


def screen(width: int, verbosity: Verbosity = Verbosity.NORMAL) -> tuple[Display, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    return Display(console, verbosity), file


def log_file(verbosity: Verbosity = Verbosity.NORMAL) -> tuple[Display, io.StringIO]:
    file = io.StringIO()
    return Display(Console(file=file, width=200), verbosity), file


@pytest.mark.parametrize(("width", "figures"), [(120, 3), (80, 2), (60, 1), (40, 0)])
def test_a_bar_keeps_its_count_and_its_time_however_narrow_the_terminal(width: int, figures: int) -> None:
    display, file = screen(width)
    with display.stage("ppo"):
        for update in (1, 2):
            display.step(update, 400, METRICS)
        assert display._bar
        display._bar[0].refresh()
        drawn = file.getvalue().rstrip("\n\r").splitlines()[-1].rpartition("\r")[2]
    assert "2/400" in drawn, drawn
    assert re.search(r"\d:\d\d:\d\d|-:--:--", drawn), drawn
    assert sum(name in drawn for name in METRICS) == figures, drawn
    assert "…" not in drawn
    assert len(drawn.rpartition("\x1b[2K")[2]) <= width


def test_figures_are_those_that_tell_most() -> None:
    assert fitting(METRICS, 80) == "reward -0.125  kl 1.500  loss 0.250"
    assert fitting(METRICS, 24) == "reward -0.125  kl 1.500"
    assert fitting(METRICS, 5) == ""


def test_a_log_file_is_told_every_so_often_how_far_a_stage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert displays.HEARTBEAT <= 30
    monkeypatch.setattr(displays, "HEARTBEAT", 0.02)
    display, file = log_file()
    with display.stage("evaluate ppo"):
        wait_for(file, "evaluate ppo     0.0 s   so far\n")
    with display.stage("ppo"):
        display.step(1, 40, METRICS)
        time.sleep(0.01)
        display.step(2, 40, METRICS)
        wait_for(file, "ppo          update 2 of 40  reward -0.125  kl 1.500  loss 0.250  about 5 seconds left\n")
    told = file.getvalue()
    time.sleep(0.06)
    assert file.getvalue() == told, "a stage that has ended says nothing more"


def wait_for(file: io.StringIO, line: str) -> None:
    for _ in range(500):
        if line in file.getvalue():
            return
        time.sleep(0.01)
    raise AssertionError(file.getvalue())


def test_the_time_left_is_that_of_the_updates_that_were_seen() -> None:
    pace = Pace("ppo", began=0.0)
    assert pace.left(1.0) is None
    pace.step(31, 40, METRICS, now=100.0)  # resumed: thirty were made by another process
    assert pace.left(101.0) is None, "one update takes nobody knows how long: the first may compile"
    pace.step(33, 40, METRICS, now=120.0)
    assert pace.left(120.0) == 70.0
    pace.step(1, 10, METRICS, now=200.0)  # another loop of the same stage
    assert pace.left(210.0) is None
    pace.step(10, 10, METRICS, now=290.0)
    assert pace.left(300.0) == 0
    assert "left" not in pace.line(300.0)


def test_quietly_nothing_is_said() -> None:
    for display, file in (screen(80, Verbosity.QUIET), log_file(Verbosity.QUIET)):
        with display.stage("ppo"):
            display.step(1, 2, METRICS)
            display.say("a note")
        assert file.getvalue() == ""
        assert display.seconds.keys() == {"ppo"}


def test_at_length_every_update_is_a_line() -> None:
    display, file = log_file(Verbosity.VERBOSE)
    with display.stage("ppo"):
        display.step(1, 2, METRICS)
        display.step(2, 2, {"kl": 0.5})
    lines = file.getvalue().splitlines()
    assert lines[:2] == [
        "ppo          update 1 of 2  loss 0.25  kl 1.5  reward -0.125  entropy 2",
        "ppo          update 2 of 2  kl 0.5",
    ]


def test_how_much_is_said_is_no_override() -> None:
    assert telling.chosen(["algo=ppo", "--quiet", "seed=1"]) == (Verbosity.QUIET, ["algo=ppo", "seed=1"])
    assert telling.chosen(["-m", "--verbose"]) == (Verbosity.VERBOSE, ["-m"])
    assert telling.chosen(["seed=1"]) == (Verbosity.NORMAL, ["seed=1"])
    with pytest.raises(UserError, match="--quiet and --verbose exclude each other"):
        telling.chosen(["--quiet", "--verbose"])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1, "about 5 seconds"),
        (41, "about 40 seconds"),
        (56, "about 1 minute"),
        (340, "about 6 minutes"),
        (9000, "about 2.5 hours"),
        (300_000, "about 3 days"),
    ],
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    assert about(seconds) == words
