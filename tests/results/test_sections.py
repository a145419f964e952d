"""Sections of the report: what a plugin is shown of a table, and what becomes of what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from alignbench import ReportRow, Section, UserError
from alignbench.plugins import Function, Place, registry
from alignbench.results.compared.table import Table
from alignbench.results.shown import report, sections, time_by_stage
from tests.results.synthetic import HOSTILE, read, write_run

Register = Callable[[object], None]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    for seed in (0, 1):
        write_run(tmp_path, "ppo", {"algo.kl_coef": 0.1}, seed=seed)
    return read(tmp_path)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers one section, and no other."""

    def register(make: object) -> None:
        function = Function(Place.SECTION, "mine", "Mine.", "a:b", "my-dist", "1")
        monkeypatch.setattr(Function, "load", lambda self: make)
        monkeypatch.setattr(
            sections, "registry", lambda: replace(registry(), functions={(Place.SECTION, "mine"): function})
        )

    return register


def test_a_section_sees_the_rows_of_the_table(table: Table, only: Register) -> None:
    seen: list[ReportRow] = []
    only(lambda rows: seen.extend(rows))
    assert sections.made(table) == []
    for shown, row in zip(seen, table.rows, strict=True):
        assert (shown.label, shown.seeds, shown.baseline) == (row.label, row.seeds, row.baseline)
        assert shown.metrics == {name: cell.value for name, cell in row.cells.items()}
        assert shown.runs == tuple(run.path for run in row.runs)
        assert sum(shown.seconds.values()) == pytest.approx(row.seconds)


def test_its_parts_stand_in_the_page_and_text_stays_text(table: Table, only: Register) -> None:
    figure = Figure()
    figure.subplots().plot([1, 2])
    only(lambda rows: Section(HOSTILE[0], (HOSTILE[1],), ("row", HOSTILE[2]), (("ppo", HOSTILE[3]),), (figure,)))
    page = report.page([], table, [])
    for text in HOSTILE[:4]:
        assert text not in page
    assert '<h2 id="section-mine">' in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count('<figure><img src="data:image/svg+xml;base64,') == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rows: 1 / 0, "ZeroDivisionError"),
        (lambda rows: "text", "gives a str, not a Section"),
        (lambda rows: Section("Mine", (), ("one",), (("a", "b"),)), "2 texts for 1 columns"),
    ],
)
def test_one_that_fails_says_whose_it_is(table: Table, only: Register, make: object, words: str) -> None:
    only(make)
    with pytest.raises(UserError, match=rf"section 'mine' of my-dist failed: .*{words}.*ALIGNBENCH_BLOCK"):
        sections.made(table)


def test_a_table_without_rows_has_none(only: Register) -> None:
    only(lambda rows: pytest.fail("there is nothing to say"))
    assert sections.made(Table((), {})) == []


def row(label: str, **seconds: float) -> ReportRow:
    return ReportRow((label,), label, "tiny", "world", False, (0,), {}, seconds, ())


def test_time_by_stage() -> None:
    assert time_by_stage.section([row("ppo")]) is None
    made = time_by_stage.section([row("sft", sft=2.0), row("ppo", sft=2.0, ppo=3.25)])
    assert made is not None
    assert made.columns == ("stage", "sft", "ppo")
    assert made.rows == (("sft", "2.0", "2.0"), ("ppo", "–", "3.2"))
