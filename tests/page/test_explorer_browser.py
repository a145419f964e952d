"""The results explorer as people use it, in a browser."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alignbench.page.explorer import library
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.record import Status
from tests.page.conftest import DESKTOP, PHONE, needs_browser
from tests.results.on_disk import ppo, write_scores, write_with_baseline
from tests.results.synthetic import HOSTILE, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_browser
READY = "#view:not([aria-busy])"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "CHECKED_EVERY", 0.2)
    monkeypatch.setattr(library, "QUICK", 60.0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PPO at three coefficients, each better than the one before, two seeds; and a run that failed."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    for d in (0.5, 1.0, 2.0):
        for seed in (0, 1):
            path = write_run(folder, "ppo", {"kl_coef": d}, d=d, seed=seed, updates=12, text="Kessa is green")
            for run, more in ((RunDirectory(path), d), (RunDirectory(path / "sft"), 0.0)):
                write_scores(run, "helpfulness/gold_reward", [more + 0.01 * ((7 * i + seed) % 5) for i in range(40)])
    failed = write_run(folder, "ppo", {"kl_coef": 9}, status=Status.FAILED, error="the loss is <b>NaN</b>")
    shutil.rmtree(failed / "sft")
    return folder


@pytest.fixture
def opened(browser: Browser, serve: Callable[[Path], str]) -> Iterator[Callable[..., Page]]:
    """`opened(folder, address)`: a page that has drawn what it was asked for. Whatever it says in its console fails the test."""
    said: list[str] = []
    contexts = []

    def open_page(address: str, size: dict[str, int] = DESKTOP, scheme: str = "light") -> Page:
        context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.wait_for_selector(READY)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def until(page: Page, expression: str) -> None:
    """Asked from outside: the page's Content-Security-Policy lets no script in it evaluate text, playwright's own wait included."""
    end = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never came true: {expression}"
        time.sleep(0.05)


def choose(page: Page, *ids: str) -> None:
    for one in ids:
        page.locator(f"[id='{one}']").click()
        page.wait_for_selector(READY)


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_every_view_is_accessible_and_fits(
    results: Path, serve: Callable[[Path], str], opened: Callable[..., Page], size: dict[str, int], scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    home = serve(results)
    run = next(path.name for path in results.iterdir() if "-s1-" in path.name)
    views = {
        "?view=table": "ppo",
        "?view=differences": "0.0001",
        "?view=plots": "√KL",
        "?view=plots&plot=differences": "Holm",
        f"?view=responses&run={run}&q=green": "green 0",
        f"?view=runs&run={run}": "ppo update 12",
    }
    page = opened(home, size, scheme)
    for address, text in views.items() if size is PHONE or scheme == "light" else [*views.items()][:3]:
        page.goto(f"{home}/{address}")
        page.wait_for_selector(READY)
        page.locator("#view").get_by_text(text).first.wait_for()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{address} is wider than the screen"
        )


def test_by_keyboard_alone(results: Path, serve: Callable[[Path], str], opened: Callable[..., Page]) -> None:
    page = opened(serve(results))

    def reach(id: str) -> None:
        for _ in range(120):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == id:
                return
        raise AssertionError(f"{id} is not reached")

    def rows() -> list[str]:
        return [text.split("\n")[-1] for text in page.locator("tbody th").all_inner_texts()]

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    reach("sort-helpfulness/gold_reward")
    page.keyboard.press("Enter")
    page.wait_for_selector("th[aria-sort=descending]")
    assert rows() == ["kl_coef=2.0", "kl_coef=1.0", "kl_coef=0.5", "sft"]
    page.wait_for_selector(READY)
    assert page.evaluate("document.activeElement.id") == "sort-helpfulness/gold_reward", "the focus stays"
    reach("pick-ppo kl_coef=1.0")
    page.keyboard.press("Space")
    page.wait_for_selector("#act-only:not([disabled])")
    page.keyboard.press("Shift+Tab")
    page.locator("#act-only").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('tbody tr').length === 2")
    page.locator("[data-view=plots]").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("svg[role=application]")
    reach("chart-frontier.0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "ppo kl_coef=1.0" in page.locator(".spoken").first.inner_text()
    page.keyboard.press("+")
    until(page, "location.search.includes('zoom=frontier.0')")
    page.wait_for_selector(READY)
    assert page.evaluate("document.activeElement.id") == "chart-frontier.0"
    page.keyboard.press("0")
    until(page, "!location.search.includes('zoom')")


def test_a_link_shows_the_same(results: Path, serve: Callable[[Path], str], opened: Callable[..., Page]) -> None:
    home = serve(results)
    page = opened(home)
    choose(page, "sort-optimization/kl", "metrics", "metric-diversity/distinct_2", "primary-optimization/kl")
    page.select_option("#baseline", "ppo kl_coef=2.0")
    until(page, "location.search.includes('baseline')")
    page.wait_for_selector(READY)
    page.wait_for_selector(".better, .worse, .other")
    table = page.locator("#view").inner_text()
    assert "distinct-2" not in table and "kl_coef=0.5" in table
    assert opened(page.url).locator("#view").inner_text() == table

    page.locator("[data-view=plots]").click()
    page.wait_for_selector("svg[role=application]")
    choose(page, "legend-frontier-1", "chart-frontier.0-zoom in")
    drawn = page.locator("#view svg").all()
    again = opened(page.url)
    assert [svg.inner_html() for svg in again.locator("#view svg").all()] == [svg.inner_html() for svg in drawn]
    page.go_back()
    page.wait_for_selector("table.results")
    assert page.locator("#view").inner_text() == table


def test_a_plot_is_pointed_at_enlarged_and_thinned(
    results: Path, serve: Callable[[Path], str], opened: Callable[..., Page]
) -> None:
    page = opened(f"{serve(results)}/?view=plots")
    panel = page.locator("figure").first
    stamped = panel.locator("svg svg > g")
    before = stamped.count()
    stamped.nth(1).hover()
    assert "ppo kl_coef=0.5" in panel.locator(".tip").inner_text()
    frame = panel.locator("svg[role=application]").bounding_box()
    assert frame
    page.mouse.move(frame["x"] + 100, frame["y"] + 60)
    page.mouse.down()
    page.mouse.move(frame["x"] + 300, frame["y"] + 200)
    page.mouse.up()
    until(page, "location.search.includes('zoom=frontier.0')")
    page.get_by_role("button", name="whole").click()
    until(page, "!location.search.includes('zoom')")
    page.get_by_role("button", name="ppo kl_coef=0.5").click()
    until(page, f"document.querySelectorAll('figure')[0].querySelectorAll('svg svg > g').length === {before - 1}")
    panel.get_by_text("Values").click()
    panel.locator("tr").nth(2).wait_for()


def test_a_training_is_watched_until_it_fails(
    tmp_path: Path, serve: Callable[[Path], str], opened: Callable[..., Page]
) -> None:
    path = write_run(tmp_path, "ppo", status=Status.RUNNING, updates=4)
    page = opened(f"{serve(tmp_path)}/?view=runs&run={path.name}")
    page.get_by_text("running, ppo update 4").wait_for()
    RunDirectory(path).append_training("ppo", 5, {"reward": 1.0, "kl": 2.0})
    page.get_by_text("running, ppo update 5").wait_for()
    record = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps({**record, "status": "failed", "error": "the loss is <b>NaN</b>"}))
    page.get_by_text("failed, ppo update 5: the loss is <b>NaN</b>").first.wait_for()
    assert page.locator("#view b").count() == 0


def test_what_models_and_people_wrote_stays_text(
    tmp_path: Path, serve: Callable[[Path], str], opened: Callable[..., Page]
) -> None:
    made = {
        text: write_run(tmp_path, "ppo", {"name": text, "n": i}, text=text, label=text, updates=1).name
        for i, text in enumerate(HOSTILE)
    }
    home = serve(tmp_path)
    page = opened(home)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    run = made["<script>alert(1)</script>"]  # not any: the record with half a surrogate is no text, and is not shown
    for view in ("table", "plots", "responses", f"runs&run={run}"):
        page.goto(f"{home}/?view={view}")
        page.wait_for_selector(READY)
        assert page.locator("main img, main b:not(.tip b), main script:not([type='application/json'])").count() == 0
    page.goto(home)
    page.locator("#view").get_by_text("<script>alert(1)</script>").first.wait_for()
    assert dialogs == []


def test_a_folder_that_vanishes_is_said(
    tmp_path: Path, serve: Callable[[Path], str], opened: Callable[..., Page]
) -> None:
    folder = tmp_path / "runs"
    write_with_baseline(folder, ppo(), 1.0)
    page = opened(serve(folder))
    shutil.move(folder, tmp_path / "gone")
    page.locator("#problem").get_by_text("No folder").wait_for()
    assert page.locator("tbody tr").count() == 2, "what was read is still there"
    write_with_baseline(folder, {**ppo(), "algo": {"name": "dpo"}}, 1.0)
    page.locator("#view").get_by_text("dpo").first.wait_for()
    assert page.locator("#problem").inner_text() == ""
