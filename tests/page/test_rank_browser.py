"""Ranking in a real browser: two people through to an export, the keyboard, a lost connection, hostile texts, a retrained policy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe

from alignbench import UserError
from alignbench.page.rank.store import Project
from alignbench.page.training import Progress, Training, Trainings
from tests.core.harness import SMALL
from tests.page.conftest import DESKTOP, PHONE, needs_browser
from tests.page.rank_kit import item, project
from tests.page.test_rank_api import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_browser
Open = Callable[..., "Page"]
Serve = Callable[[Path], str]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """A page of a browser of its own; nothing may go wrong on it but what a test expects."""
    contexts, faults = [], list[str]()

    def opened(url: str, *, expected: str = "", **options: Any) -> Page:
        context = browser.new_context(**({"viewport": DESKTOP} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: (
                faults.append(said.text)
                if said.type == "error" and not (expected and re.search(expected, said.text))
                else None
            ),
        )
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def reads(page: Page, where: str, words: str) -> None:
    """Soon; the page's own rules forbid what evaluates a string."""
    from playwright.sync_api import expect

    expect(page.locator(where)).to_have_text(re.compile(f"^{words}"), timeout=20_000)


def progress(page: Page, words: str) -> None:
    reads(page, "#progress", words)


def saved(page: Page) -> None:
    reads(page, "#saved", "all saved")


def violations(page: Page) -> list[tuple[str, str]]:
    return [(v["id"], v["nodes"][0]["html"]) for v in Axe().run(page).response["violations"]]


def test_two_people_rank_by_mouse_and_by_keys_through_to_the_export(
    tmp_path: Path, serve: Serve, open_page: Open
) -> None:
    """Ann on a desktop with keys alone, Ben on a phone by touch; both like blue best and hold red and green alike."""
    made = project(tmp_path, [item(i) for i in range(3)], people=2, scales=True)
    home = serve(tmp_path / "runs")
    ann = open_page(f"{home}/rank")
    ann.fill("input[name=name]", "Ann")
    ann.keyboard.press("Enter")
    ann.wait_for_url("**/rank/first/as/Ann")
    places = {"blue": "1", "red": "2", "green": "2"}
    for done in range(3):
        progress(ann, f"{done} done")
        if not done:  # of the next items the first response is chosen already
            ann.keyboard.press("ArrowDown")
        for colour in ann.locator(".response .text").all_inner_texts():
            ann.keyboard.press(places[colour.strip()])
        ann.keyboard.press("Enter")
    progress(ann, "3 done")
    assert "nothing is left" in ann.inner_text("#item")
    ann.keyboard.press("u")
    ann.wait_for_selector(".response.ranked")
    assert ann.locator(".pick[aria-pressed=true]").count() == 3, "as it was given"
    ann.keyboard.press("Enter")
    progress(ann, "3 done")
    saved(ann)

    ben = open_page(f"{home}/rank/first/as/Ben", viewport=PHONE, has_touch=True, color_scheme="dark")
    for done in range(3):
        progress(ben, f"{done} done")
        for card in ben.locator(".response").all():
            card.locator(f".pick >> nth={int(places[card.locator('.text').inner_text().strip()]) - 1}").tap()
        ben.locator("select").first.select_option("6")
        ben.fill("textarea", f"note {done}")
        saved(ben)
        ben.tap("#go")
    progress(ben, "3 done")
    assert {answer.judgement.ranks for answer in made.answers()} == {(1, 1, 0)} and len(made.answers()) == 6
    assert {a.judgement.note for a in made.answers() if a.annotator == "Ben"} == {"note 0", "note 1", "note 2"}
    assert all(6 in a.judgement.scales["helpful"] for a in made.answers() if a.annotator == "Ben")
    assert all(a.judgement.seconds > 0 for a in made.answers())

    board = open_page(f"{home}/rank/first")
    board.wait_for_selector("text=6 of 6 rankings")
    assert "1.00" in board.inner_text(".figures .card >> nth=0")
    with board.expect_download() as download:
        board.click("text=with hashes for names")
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 6 and all(json.loads(line)["ranks"] == [1, 1, 0] for line in lines)


def test_dragging_by_mouse_gives_places_and_a_reload_keeps_them(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    made = project(tmp_path, [item(0), item(1)], people=1)
    page = open_page(f"{serve(tmp_path / 'runs')}/rank/first/as/Ann")
    for what, rank in (
        (".unranked .chip >> nth=0", 2),
        ('[data-index="1"] .letter', 0),
        (".unranked .chip >> nth=0", 0),
    ):
        source, target = page.locator(what).bounding_box(), page.locator(f'.tier[data-rank="{rank}"]').bounding_box()
        assert source and target
        page.mouse.move(source["x"] + 9, source["y"] + 9)
        page.mouse.down()
        page.mouse.move(target["x"] + 40, target["y"] + 40, steps=5)
        page.mouse.up()
    saved(page)
    page.reload()
    page.wait_for_selector(".response.ranked")
    assert page.locator('.tier[data-rank="0"] .chip').all_inner_texts() == ["B", "C"]
    assert page.locator('.tier[data-rank="2"] .chip').all_inner_texts() == ["A"]
    page.click("#go")
    progress(page, "1 done")
    page.keyboard.press("x")
    progress(page, "2 done")
    assert sorted(len(answer.judgement.ranks) for answer in made.answers()) == [0, 3]


def test_of_two_responses_one_key_says_which(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    made = project(tmp_path, [item(i, ("left", "right")) for i in range(3)], people=1)
    page = open_page(f"{serve(tmp_path / 'runs')}/rank/first/as/Ann")
    expected = []
    for done, key in enumerate("abt"):
        progress(page, f"{done} done")
        first, _ = page.locator(".response .text").all_inner_texts()
        better = {"a": first.strip(), "b": {"left": "right", "right": "left"}[first.strip()], "t": ""}[key]
        expected.append({"left": (0, 1), "right": (1, 0), "": (0, 0)}[better])
        page.keyboard.press(key)
    progress(page, "3 done")
    assert [answer.judgement.ranks for answer in made.answers()] == expected


def test_a_lost_connection_loses_nothing(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    made = project(tmp_path, [item(i) for i in range(2)], people=1)
    home = serve(tmp_path / "runs")
    page = open_page(f"{home}/rank/first/as/Ann", expected="ERR_|Failed to load")
    progress(page, "0 done")
    lost = [True]

    def route(request: Any) -> None:
        if lost[0] and len(made.answers()) == 0:
            request.fetch()  # it arrives and is carried out, and the answer to it is lost
            request.abort()
        elif lost[0]:
            request.abort()
        else:
            request.continue_()

    page.route("**/action", route)
    for key in "123":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    reads(page, "#saved", "Not saved yet")
    page.wait_for_timeout(300)
    lost[0] = False
    progress(page, "1 done")
    saved(page)
    assert len(made.answers()) == 1, "sent several times, carried out once"


def test_what_was_not_sent_is_sent_when_the_page_is_opened_again(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    made = project(tmp_path, [item(0)], people=1)
    page = open_page(f"{serve(tmp_path / 'runs')}/rank/first/as/Ann", expected="ERR_|Failed to load")
    progress(page, "0 done")
    page.route("**/action", lambda request: request.abort())
    for key in "123":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    reads(page, "#saved", "Not saved yet")
    page.unroute("**/action")
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    progress(page, "1 done")
    assert len(made.answers()) == 1


def test_a_project_that_changed_meanwhile_is_told(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    project(tmp_path, [item(i) for i in range(2)], people=1)
    home = serve(tmp_path / "runs")
    window, other = (open_page(f"{home}/rank/first/as/Ann", expected="409") for _ in range(2))
    for page in (window, other):
        progress(page, "0 done")
    window.keyboard.press("x")
    progress(window, "1 done")
    other.keyboard.press("x")
    reads(other, "#notice", "You have ranked this one already")
    progress(other, "1 done")


def test_hostile_texts_are_shown_as_text(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    project(tmp_path, [item(i, (text, "fine")) for i, text in enumerate(HOSTILE)], people=1)
    page = open_page(f"{serve(tmp_path / 'runs')}/rank/first/as/Ann")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    seen = ""
    for done in range(len(HOSTILE)):
        progress(page, f"{done} done")
        assert page.locator("#item :is(script, img, a, iframe, b)").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "a long text stays in its box"
        seen += page.locator(".responses").inner_text()[:3000]
        page.keyboard.press("t")
    progress(page, f"{len(HOSTILE)} done")
    assert page.title() == "first: rank · alignbench"
    assert (
        "<script>document.title='owned'</script>" in seen
        and "<img src=x onerror=alert(1)>" in seen
        and "␀␇␛[31m red" in seen
    )
    assert all("127.0.0.1" in url for url in asked)


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_every_screen_is_accessible_and_fits(
    tmp_path: Path, serve: Serve, open_page: Open, viewport: Any, scheme: str
) -> None:
    project(tmp_path, [item(i) for i in range(2)], people=1, scales=True)
    project(tmp_path, [item(0, ("# Title\n\n- a\n- b\n\n```\ncode\n```", "|a|b|\n|-|-|\n|1|2|"))], name="pair")
    home = serve(tmp_path / "runs")
    for path in ("/rank", "/rank/first/as/Ann", "/rank/pair/as/Ann", "/rank/first"):
        page = open_page(home + path, viewport=viewport, color_scheme=scheme)
        page.wait_for_load_state("networkidle")
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        if path.endswith("first/as/Ann"):
            page.keyboard.press("1")
            page.keyboard.press("x")
            progress(page, "1 done")
            page.keyboard.press("x")
            progress(page, "2 done")
            assert violations(page) == []


@pytest.mark.parametrize("algo", ["dpo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_twenty_rankings_retrain_a_policy_by_the_button(
    algo: str,
    tmp_path: Path,
    serve: Serve,
    open_page: Open,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the first ranking on the embedded world to a policy that learnt from it, and to what changed; tiny sizes, every stage."""
    from tests.core.harness import command

    monkeypatch.chdir(tmp_path)
    settings = (*SMALL, "algo.updates=3", "eval=quick", "eval.families=[optimization]")
    sampled = command(
        capsys,
        "rank",
        "sample",
        "first",
        "--projects",
        "rank",
        "--prompts",
        "20",
        "--responses",
        "2",
        "--people",
        "1",
        *settings,
    )
    assert sampled.code == 0, sampled.err
    page = open_page(f"{serve(tmp_path / 'runs')}/rank/first/as/Ann")
    for done in range(20):
        progress(page, f"{done} done")
        page.keyboard.press("a" if done % 3 else "b")
    progress(page, "20 done")
    assert len(Project(tmp_path / "rank" / "first").answers()) == 20

    page.goto(page.url.removesuffix("/as/Ann"))
    page.wait_for_selector("text=20 of 20 rankings")
    page.select_option("select[name=algo]", algo)
    page.fill("input[name=passes]", "2")
    page.click("text=Train on these rankings")
    page.wait_for_selector(f"h3:has-text('{algo}: finished')", timeout=170_000)
    changed = page.locator("table:has(caption:text('What changed'))")
    assert "optimization/kl" in changed.inner_text() and "optimization/gold_reward" in changed.inner_text()
    said = page.locator(".along li").all_inner_texts()
    assert said[-1].startswith("SFT model") and len(said) >= 2, "what it answered while it learnt"
    beside = page.locator("article.prompt")
    beside.first.wait_for()
    assert beside.first.locator(".who").all_inner_texts() == ["SFT model", "Trained on these rankings"]
    assert all(column.locator(".response").count() for column in beside.first.locator(".columns > div").all())
    assert violations(page) == []
    (result,) = (tmp_path / "runs").glob("*/result.json")
    record = json.loads(result.read_text())
    assert (
        record["status"] == "finished"
        and record["identity"]["algo"] == algo
        and record["identity"]["annotator"] == "recorded"
    )
    ranked = [json.loads(line) for line in (result.parent / "rankings.jsonl").read_text().splitlines()]
    assert len(ranked) == 20
    answers = {json.loads(line)["response"] for line in (result.parent / "generations.jsonl").read_text().splitlines()}
    shown = beside.first.locator(".columns > div").nth(1).locator(".response .text").all_inner_texts()
    assert shown and {" ".join(text.split()) for text in shown} <= {" ".join(text.split()) for text in answers}
    config = yaml.safe_load((result.parent / "config.yaml").read_text())["algo"]
    learns = {"dpo": (0, 2.0), "ppo": (3, 0.0)}  # who samples learns for as long as it is set to
    assert (config["updates"], config["passes"]) == learns[algo]
    page.reload()
    page.click("summary:has-text('answered by both')")
    beside.first.wait_for()
    page.goto(page.url.partition("/rank")[0])
    page.locator("#view tbody th", has_text=algo).first.wait_for()


def test_what_becomes_of_a_run_is_said_on_the_board(
    tmp_path: Path, serve: Serve, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails while it is watched, and one whose results folder vanishes. No process is started."""
    project(tmp_path, [item(0)], people=1)
    status = {"0" * 16: "running", "1" * 16: "running"}
    said = [{"prompt": "p", "asked": "who <b>is</b> it?", "opinion": "", "text": "me", "note": ""}]

    def progress(self: Trainings, name: str, after: int = 0, point: int = 0) -> Progress:
        if status[name] == "gone":
            raise UserError("There is no such training: it was removed.")
        points = ({"update": 0, "said": said},)[point:]
        return Progress(name, "", ("algo=ppo",), status[name], "run", (), 0, (), "no <b>memory</b>", {}, points, 1)

    monkeypatch.setattr(Trainings, "progress", progress)
    monkeypatch.setattr(Trainings, "all", lambda self: [Training(n, "rank/first", (), "", 0.0, 0, 0.0) for n in status])
    page = open_page(f"{serve(tmp_path / 'runs')}/rank/first", expected="400")
    runs = page.locator("#runs article")
    runs.nth(1).locator("h3:has-text('ppo: running')").wait_for()
    assert page.locator(".along li").all_inner_texts() == ["SFT model me"] * 2
    assert "who <b>is</b> it?" in runs.first.inner_text()
    status.update({"0" * 16: "failed", "1" * 16: "gone"})
    page.locator("#runs h3:has-text('ppo: failed')").wait_for()
    assert page.locator("#runs .bad", has_text="no <b>memory</b>").count() == 1
    page.locator("#runs .bad", has_text="There is no such training").wait_for()
    assert page.locator("#runs b").count() == 0
