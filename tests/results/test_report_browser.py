"""The report as people see it: light and dark, on a desk, on a phone and on paper, by pointer and by keyboard, in a browser."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alignbench.results.compared.examples import read_examples
from alignbench.results.compared.paired import differences
from alignbench.results.compared.primary import primary_of
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.shown import report
from tests.page.conftest import DESKTOP, PHONE, needs_browser
from tests.results.on_disk import write_scores
from tests.results.synthetic import read, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = needs_browser
ALGORITHMS = ("ppo", "dpo", "rloo", "grpo", "ipo", "kto", "orpo", "best_of_n")
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on eight algorithms of two seeds each, with differences."""
    folder = tmp_path_factory.mktemp("report")
    for i, name in enumerate(ALGORITHMS):
        for seed in (0, 1):
            run = write_run(folder, name, d=0.5 + 0.2 * i, seed=seed, bound=name == "best_of_n", updates=8)
            draw = random.Random(f"{name} {seed}")
            for directory, more in ((run, 0.3 * i), (run / "sft", 0.0)):
                for metric in ("helpfulness/gold_reward", "sycophancy/agreement", "optimization/proxy_reward"):
                    write_scores(RunDirectory(directory), metric, [more + draw.gauss(0, 0.1) for _ in range(40)])
    table = read(folder)
    examples = read_examples(run for row in table.rows for run in row.runs)
    found = differences(table, "", examples, primary=primary_of(table).metrics)
    report.write([], table, found, folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def opened(browser: Browser, path: Path) -> Iterator[Open]:
    """Whatever the page says in its console fails the test."""
    said: list[str] = []
    contexts = []

    def open_page(size: dict[str, int] = DESKTOP, scheme: str = "light") -> Page:
        context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-script=done]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def folded(page: Page) -> int:
    return page.locator("details:not([open])").count()


def frame_of(page: Page, name: str) -> Locator:
    return page.locator(".frame", has=page.get_by_role("region", name=name, exact=True))


def ground(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_it_is_accessible_and_fits(opened: Open, size: dict[str, int], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(size, scheme)
    narrow = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(narrow)
    page.get_by_role("button", name="Unfold all").click()
    assert folded(page) == 0 and page.evaluate(narrow)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_verdict_and_three_pictures_come_first_and_all_else_is_folded(opened: Open) -> None:
    page = opened()
    headings = [heading.inner_text() for heading in page.locator("main > h2").all()]
    assert headings == ["Verdict", "KL-gold frontier", "Differences of primary metrics", "Training curves"]
    rest = page.locator("main > :not(h2)").evaluate_all("all => all.map((one) => one.tagName)")
    assert rest[:4] == ["P", "FIGURE", "FIGURE", "FIGURE"] and set(rest[4:]) == {"DETAILS", "DIV"}
    assert page.locator("details[open]").count() == 0
    for summary in page.locator("main details:not(.inner) > summary").all():
        assert len(summary.locator(".note").inner_text()) > 5, "it says what is inside"
    page.get_by_role("link", name="Table").click()
    page.get_by_role("region", name="Results table").wait_for()  # a link unfolds what it leads to


def test_the_theme_is_chosen_and_remembered(opened: Open) -> None:
    page = opened()
    light = ground(page)
    page.get_by_label("Colours").select_option("dark")
    dark = ground(page)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(21, 23, 26)")
    colour = "getComputedStyle(document.querySelector('.panel path[stroke^=\"var(--row\"]')).stroke"
    drawn = page.evaluate(colour)
    page.reload()
    assert ground(page) == dark and page.get_by_label("Colours").input_value() == "dark"
    page.get_by_label("Colours").select_option("light")
    assert ground(page) == light and page.evaluate(colour) != drawn, "the plots follow"


def test_on_a_phone_the_table_scrolls_under_its_first_column_and_shows_that_it_does(opened: Open) -> None:
    page = opened(PHONE)
    page.locator("summary", has=page.locator("#table")).click()
    frame = frame_of(page, "Results table")
    part = frame.locator(".scroll")
    page.wait_for_selector(".frame.on-screen[data-right]")
    first = frame.locator("tbody th[scope=row]").first
    before = first.bounding_box()
    assert before and before["width"] > 90 and before["height"] < 60, "words stay whole"
    part.evaluate("part => part.scrollLeft = part.scrollWidth")
    page.wait_for_selector(".frame.on-screen:not([data-right])")
    assert first.bounding_box() == before


def test_a_list_that_is_cut_shows_that_there_is_more(opened: Open) -> None:
    page = opened()
    page.locator("summary", has=page.locator("#differences-table")).click()
    frame = frame_of(page, "Paired differences")
    assert frame.locator("tbody tr").count() == 24
    page.wait_for_function("name => document.getElementById(name).closest('details').querySelector('.frame').hasAttribute('data-below')", arg="differences-table")  # fmt: skip
    assert frame.evaluate("frame => getComputedStyle(frame, '::before').content") == '"more ↓"'
    frame.locator(".scroll").evaluate("part => part.scrollTop = part.scrollHeight")
    page.wait_for_function("name => !document.getElementById(name).closest('details').querySelector('.frame').hasAttribute('data-below')", arg="differences-table")  # fmt: skip


def test_a_plot_tells_its_values_by_pointer_and_by_keyboard(opened: Open, path: Path) -> None:
    row = next(row for row in read(path.parent).rows if row.label == ("orpo",))
    kl, gold = (row.cells[name].value for name in ("optimization/kl", "helpfulness/gold_reward"))
    told = f"{float(f'{kl**0.5:.4g}'):g}", f"{float(f'{gold:.4g}'):g}"
    page = opened()
    panel = page.locator("svg.panel").first
    assert panel.get_attribute("role") == "application"
    panel.focus()
    seen = []
    for _ in range(9):
        page.keyboard.press("ArrowRight")
        seen.append(page.locator(".spoken").first.inner_text())
    assert len(set(seen)) == 9
    (said,) = [text for text in seen if text.startswith("orpo: ")]
    assert all(number in said for number in told), (said, told)
    assert page.locator(".tip").first.is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".tip").first.is_visible()
    while "orpo" not in page.locator(".spoken").first.inner_text():
        page.keyboard.press("ArrowRight")
    at = page.locator(".halo").bounding_box()
    page.keyboard.press("Escape")
    assert at
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    assert all(number in page.locator(".tip").first.inner_text() for number in ("orpo", *told))


def test_on_paper_everything_is_unfolded_and_black_on_white(opened: Open, tmp_path: Path) -> None:
    page = opened(DESKTOP, "dark")
    page.emulate_media(media="print")
    assert ground(page) == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert not page.locator("#controls").is_visible() and not page.locator("nav").is_visible()
    assert all(part.is_visible() for part in page.locator(".on-paper table, #more figure, dl").all())
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded(page) == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True).startswith(b"%PDF")
