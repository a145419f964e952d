"""The screens that docs/sweeps.md shows are what a run's display prints today."""

from __future__ import annotations

import importlib.util
import json
import re
from types import ModuleType

import pytest
from rich.text import Text

from alignbench.pipeline.display import HEARTBEAT
from tests.docs.commands import ROOT


@pytest.fixture(scope="module")
def terminal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures_terminal", ROOT / "docs" / "pictures" / "terminal.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def events(terminal: ModuleType) -> list[list[object]]:
    return json.loads(terminal.EVENTS.read_text(encoding="utf-8"))["events"]  # type: ignore[no-any-return]


def test_the_pictures_are_what_the_display_prints(terminal: ModuleType) -> None:
    drawn = terminal.pictures()
    assert {path.name for path in drawn} == {f"terminal-{name}.svg" for name in (120, 80, 60, "log")}
    page = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    for path, content in drawn.items():
        assert path.read_text(encoding="utf-8") == content, "python docs/pictures/terminal.py draws them anew"
        assert f"(pictures/{path.name})" in page
        assert "http" not in content.replace("http://www.w3.org/2000/svg", ""), "nothing is loaded from elsewhere"


@pytest.mark.parametrize("width", [120, 80, 60])
def test_a_screen_ends_with_one_bar_that_fits(terminal: ModuleType, events: list[list[object]], width: int) -> None:
    lines = [Text.from_ansi(line).plain.rstrip() for line in terminal.screen(terminal.played(events, width))]
    bars = [line for line in lines if re.search(r"━.* \d+/\d+ +\d+:\d\d:\d\d", line)]
    assert bars == lines[-1:], "the bars of the stages before are gone"
    assert len(bars[0]) <= width
    assert lines[-1].split()[0] == terminal.STAGE and lines[0].split()[0] == "data"


def test_a_log_file_hears_of_every_long_stage_every_half_minute(
    terminal: ModuleType, events: list[list[object]]
) -> None:
    lines = terminal.screen(terminal.played(events, None))
    began, beats = 0.0, 0
    for what, at, *_ in events:
        if what == "stage":
            began = at  # type: ignore[assignment]
        elif what == "end":
            beats += int((at - began) // HEARTBEAT)  # type: ignore[operator]
    said = [line for line in lines if " so far" in line or re.search(r"update \d+ of \d+", line)]
    assert len(said) == beats >= 1
    assert not re.search(r"\x1b|\r", "".join(lines))
