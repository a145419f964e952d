"""The simulator as people use it: in a browser, on a desktop and a phone, by keyboard, and as a file without a server."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from alignbench import UserError
from alignbench.app.compose import load_config
from alignbench.evaluation import tilt
from alignbench.page.simulator import columns, export
from alignbench.page.training import Progress, Training, Trainings, checked
from tests.page.conftest import DESKTOP, PHONE, needs_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_browser
GAUGES = ("proxy", "gold", "kl", "agreement", "accuracy", "entropy", "unique", "length")


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`opened(address, viewport, scheme)`: a page that may say nothing on its console."""
    said: list[str] = []
    contexts = []

    def open_page(address: str, viewport: Any = DESKTOP, scheme: str = "light", offline: bool = False) -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=offline)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#simulator:not([hidden])", timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # What the server refuses in words the browser notes too.
    assert [text for text in said if not text.startswith("Failed to load resource")] == []


def value(page: Page, name: str) -> float:
    text = page.inner_text(f"#value-{name}")
    return float(text.replace("−", "-").rstrip("%")) / (100 if text.endswith("%") else 1)


def move(page: Page, slider: str, to: float) -> None:
    page.eval_on_selector(
        slider, "(s, to) => { s.value = to; s.dispatchEvent(new Event('input', {bubbles: true})); }", to
    )
    page.wait_for_timeout(60)


@pytest.fixture(scope="session")
def file(simulated: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("exported") / "simulator.html"
    export.export(simulated, path)
    return path.as_uri()


def test_the_file_works_with_the_network_off(opened: Callable[..., Page], file: str) -> None:
    page = opened(file, offline=True)
    presets = page.locator("#presets button")
    assert presets.count() == 6
    seen = set()
    for k in range(6):
        presets.nth(k).click()
        assert page.inner_text("#look")
        seen.add(tuple(page.inner_text(f"#value-{name}") for name in GAUGES))
    assert len(seen) == 6, "every preset shows something else"
    page.click("#presets button:has-text('Best of n')")
    assert page.is_hidden("#coefficient-row") and page.is_visible("#n-row")
    move(page, "#n", 0)
    assert value(page, "kl") == 0.0, "the best of one is the SFT model"
    before = page.inner_text("#answers-tilted")
    page.click("#presets button:has-text('Sycophancy')")
    page.click("#generate")
    page.wait_for_function("before => document.getElementById('answers-tilted').innerText !== before", arg=before)
    assert page.locator("#answers-sft li").count() == page.locator("#answers-tilted li").count() == 4
    assert page.locator("#train, #own").count() == 0, "nothing is offered that needs a server"


def test_gauges_follow_the_sliders(opened: Callable[..., Page], file: str, simulated: dict[str, Any]) -> None:
    page = opened(file)
    page.select_option("#annotator", label="honest")
    move(page, "#coefficient", 100)
    near = {name: value(page, name) for name in GAUGES}
    move(page, "#coefficient", 60)
    far = {name: value(page, name) for name in GAUGES}
    assert page.inner_text("#coefficient-name") == "0.2"
    assert far["proxy"] > near["proxy"] and far["kl"] > near["kl"]
    page.select_option("#annotator", label="sycophantic")
    assert page.inner_text("#weight-2") == "43 : 57", "3 x the right value, 4 x agreement"
    assert "3.0 × the right value" in page.inner_text("#formula")
    move(page, "#term-2", 80)
    assert value(page, "agreement") > far["agreement"]
    assert "1.4 × the right value" in page.inner_text("#formula") and "5.6 × agreement" in page.inner_text("#formula")
    assert (
        page.get_attribute("#term-2", "aria-valuetext")
        == "20 percent the right value, 80 percent agreement with the user"
    )
    assert page.locator("#terms .row").count() == 5 and page.locator("#term-0").count() == 0, "one slider for the two"
    page.wait_for_function("document.getElementById('why-agreement').textContent.length > 0")
    page.evaluate("simulator.state.weights[0] = simulator.state.weights[2] = 0")
    for k in (1, 3, 4, 5):
        move(page, f"#term-{k}", page.eval_on_selector(f"#term-{k}", "s => s.min <= 0 && s.max >= 0 ? 0 : s.max"))
    assert "nothing is wanted" in page.inner_text("#formula")
    assert (value(page, "kl"), value(page, "proxy")) == (0.0, 0.0)
    page.select_option("#reward", simulated["rewards"][0]["name"])
    assert page.is_disabled("#term-2") and "really trained with" in page.inner_text("#meaning")
    assert "about" in page.inner_text("#formula") or not page.inner_text("#formula")


def test_too_few_samples_are_said_and_shown(opened: Callable[..., Page], file: str) -> None:
    page = opened(file)
    move(page, "#coefficient", 100)
    assert page.inner_text("#too-few") == ""
    page.select_option("#annotator", label="sycophantic")
    move(page, "#term-3", 1.5)
    move(page, "#coefficient", 0)
    assert page.inner_text("#coefficient-name") == "none"
    assert "no longer tell" in page.inner_text("#too-few")
    assert "unsure" in (page.get_attribute("#gauges", "class") or "")
    move(page, "#coefficient", 100)
    assert page.inner_text("#too-few") == "" and "unsure" not in (page.get_attribute("#gauges", "class") or "")


def test_the_browser_counts_as_python_does(opened: Callable[..., Page], file: str, simulated: dict[str, Any]) -> None:
    """Weights, KL and effective samples of every prompt, from repeated responses as from all that were drawn."""
    page = opened(file)
    page.select_option("#reward", simulated["rewards"][0]["name"])
    move(page, "#coefficient", 60)
    sizes, counts = simulated["pool"]["sizes"], columns.read(simulated["pool"]["counts"])
    drawn, start = [], 0
    scores = columns.read(simulated["pool"]["columns"][simulated["rewards"][0]["name"]])
    gold = columns.read(simulated["pool"]["columns"]["gold"])
    golds = []
    for size in sizes:
        rows = range(start, start + size)
        drawn.append([scores[i] for i in rows for _ in range(int(counts[i]))])
        golds.append([gold[i] for i in rows for _ in range(int(counts[i]))])
        start += size
    r = torch.tensor(drawn, dtype=torch.double)
    r = (r - r.mean()) / r.std(correction=0)
    beta = page.evaluate("simulator.beta")
    found = tilt.tilt(r, beta)
    assert page.evaluate("simulator.found.kl") == pytest.approx(found.kl.tolist(), abs=1e-6)
    assert page.evaluate("simulator.found.ess") == pytest.approx(found.ess.tolist(), rel=1e-6)
    now = page.evaluate("simulator.now")
    assert now["gold"] == pytest.approx(float(found.expected(torch.tensor(golds)).mean()), abs=1e-6)
    assert now["proxy"] == pytest.approx(float(found.expected(r).mean()), abs=1e-6)
    best = page.evaluate("""() => { simulator.state.method = 'best'; simulator.state.n = 4; simulator.refresh();
        return [simulator.now.proxy, simulator.now.kl]; }""")
    ordered, n = r.sort(1).values, r.shape[1]
    ranks = torch.arange(1, n + 1, dtype=torch.double) / n
    expected = (ordered * (ranks**4 - (ranks - 1 / n) ** 4)).sum(1).mean()
    assert best[0] == pytest.approx(float(expected), abs=1e-6)
    assert 0 < best[1] <= math.log(4) - 3 / 4


def test_a_checkpoint_is_chosen_by_its_dot(opened: Callable[..., Page], file: str, simulated: dict[str, Any]) -> None:
    page = opened(file)
    dot = page.locator("#plot-gold .dot")
    assert dot.count() == 1
    dot.focus()
    page.keyboard.press("Enter")
    assert "Trained: ppo, mild" in page.inner_text("#answers-title")
    assert page.is_visible("#legend") and page.locator("#answers-tilted .token").count() > 0
    texts = set(simulated["checkpoints"][0]["texts"])
    for said in page.locator("#answers-tilted .said").all_inner_texts():
        assert said.strip() in texts or said.strip() == ""
    page.select_option("#checkpoint", "")
    assert "tilted" in page.inner_text("#answers-title") and page.is_hidden("#legend")


def test_what_models_say_stays_text(opened: Callable[..., Page], simulated: dict[str, Any], tmp_path: Path) -> None:
    hostile = json.loads(json.dumps(simulated))
    hostile["pool"]["texts"] = ["<img src=x onerror=alert(1)>"] * len(hostile["pool"]["texts"])
    hostile["prompts"] = [{**p, "text": "<b>prompt</b>"} for p in hostile["prompts"]]
    export.export(hostile, tmp_path / "hostile.html")
    page = opened((tmp_path / "hostile.html").as_uri())
    assert page.inner_text("#asked") == "<b>prompt</b>"
    assert page.locator("main img, main b").count() == 0


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")]
)
def test_it_is_accessible(opened: Callable[..., Page], file: str, viewport: Any, scheme: str, browser: Browser) -> None:
    from axe_playwright_python.base import AXE_FILE_PATH

    page = opened(file, viewport, scheme)
    page.select_option("#checkpoint", "0")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    move(page, "#coefficient", 0)
    page.wait_for_timeout(200)
    page.evaluate(AXE_FILE_PATH.read_text())
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []


def test_behind_a_server(
    opened: Callable[..., Page], serve: Callable[[Path], str], results: Path, simulated: dict[str, Any]
) -> None:
    """By keyboard alone: a question of one's own, and one that the model does not know."""
    page = opened(f"{serve(results)}/simulator")
    assert page.inner_text("#start option:checked") == "tiny on world, seed 0 (1 run)"
    page.focus("#own-text")
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    page.wait_for_selector("#own-error:has-text('Ask for example')", timeout=60_000)
    known = simulated["prompts"][3]["text"]
    page.fill("#own-text", known)
    page.keyboard.press("Enter")
    page.wait_for_function("known => document.getElementById('asked').textContent === known", arg=known, timeout=60_000)
    assert page.inner_text("#own-error") == ""
    assert page.locator("#answers-tilted li").count() == 4


def test_without_a_run_it_says_what_to_do(browser: Browser, serve: Callable[[Path], str], tmp_path: Path) -> None:
    page = browser.new_page()
    try:
        page.goto(f"{serve(tmp_path)}/simulator")
        page.wait_for_selector("#status:has-text('Train one first')")
    finally:
        page.close()


def test_a_question_of_ones_own_is_sampled_once(opened: Callable[..., Page], file: str) -> None:
    """However often something is moved meanwhile; and a refusal that comes late changes nothing that was chosen since."""
    page = opened(file)
    found = page.evaluate("""async () => {
        const { answers } = simulator;
        const asked = [];
        answers.source = { ask: (text) => new Promise((take, refuse) => asked.push({ take, refuse })) };
        const first = answers.ask("mine");
        answers.generate();
        answers.generate();
        asked.forEach(({ take }) => take({ known: false, pool: simulator.data.pool }));
        await first;
        const kept = answers.own;
        const second = answers.ask("other").catch((error) => error.message);
        answers.own = null;
        answers.generate();
        asked.forEach(({ refuse }) => refuse(new Error("too many")));
        const refused = [await second, answers.own];
        answers.own = { text: "moved to" };
        answers.generate();
        answers.generate();
        asked.forEach(({ refuse }) => refuse(new Error("gone")));
        await new Promise((done) => setTimeout(done));
        answers.generate();
        return [asked.length, kept.text, kept.set.starts.length > 1, refused];
    }""")
    assert found == [4, "mine", True, ["too many", None]], "asked again after a refusal"


def test_only_a_run_that_was_watched_becomes_a_dot(
    opened: Callable[..., Page],
    serve: Callable[[Path], str],
    results: Path,
    simulated: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = Pretended(monkeypatch, "finished-long-ago")
    runs.status = "finished"
    monkeypatch.setattr(Trainings, "all", lambda self: [Training("2" * 16, "", (), "run", 0.0, 0, 0.0)])
    page = opened(f"{serve(results)}/simulator")
    words = page.locator("#trainings li.card p:has-text('Finished: gold reward 3.25')")
    words.wait_for()
    page.wait_for_load_state("networkidle")
    assert words.inner_text() == "Finished: gold reward 3.25 at KL 1.50.", "nothing is read for the plots"


class Pretended:
    """Processes that train nothing: tests/page/test_training.py has real ones."""

    def __init__(self, patch: pytest.MonkeyPatch, run: str = "run") -> None:
        self.started: list[list[str]] = []
        self.titles: list[str] = []
        self.status, self.run, self.error = "running", run, ""
        self.lines = [{"stage": "ppo", "update": k, "reward": k / 10, "kl": 0.1 * k} for k in range(1, 6)]
        self.points: list[dict[str, Any]] = []
        for name in ("start", "progress", "stop", "resume"):
            patch.setattr(Trainings, name, getattr(self, name))

    def start(self, choices: Any, *, fixed: Any = (), title: str = "", rows: int = 0) -> Training:
        self.started.append([*fixed, *checked(choices)])
        self.titles.append(title)
        if len(self.started) == 1:
            raise UserError("4 runs are being trained already: stop one.")
        return Training(f"{len(self.started):016d}", "", (), "run", 0.0, 0, 0.0)

    def answered(self, update: int, text: str, gold: float) -> None:
        said = [{"prompt": f"p{k}", "asked": f"ask {k}", "opinion": "wrong" if k else "", "text": f"{text} {k}", "note": f"gold {gold}"} for k in (0, 1)]  # fmt: skip
        self.points.append({"update": update, "gold": gold, "kl": 0.1 * update, "said": said})

    def progress(self, name: str, after: int = 0, point: int = 0) -> Progress:
        if self.status == "gone":
            raise UserError("There is no such training: it was removed.")
        metrics = {"optimization/gold_reward": 3.25, "optimization/kl": 1.5}
        new = (tuple(self.lines[after:]), len(self.lines), (), self.error, metrics)
        return Progress(
            name, "<b>mine</b>", (), self.status, self.run, *new, tuple(self.points[point:]), len(self.points)
        )

    def stop(self, name: str) -> None:
        self.status = "interrupted"

    def resume(self, name: str) -> None:
        self.status = "running"


def test_a_run_is_trained_with_the_reward_that_is_shown(
    opened: Callable[..., Page],
    serve: Callable[[Path], str],
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The annotator's own utility, which a reward model learns anew, or one that a run had, from the annotator that it was learnt from."""
    shutil.copytree(results, tmp_path / "runs")
    (first,) = (tmp_path / "runs").glob("*ppo*")
    runs = Pretended(monkeypatch, first.name + "-2")
    page = opened(f"{serve(tmp_path / 'runs')}/simulator")
    shown = page.eval_on_selector_all("#reward option", "options => options.map((o) => [o.value, o.textContent])")
    assert len(shown) > 1 and shown[0][0] == "utility"
    for number, (value, label) in enumerate(shown, 1):
        page.select_option("#reward", value)
        with page.expect_response("**/simulator/trainings"):
            page.click("#train")
        assert len(runs.started) == number
        weights = [part for part in runs.started[-1] if part.startswith("annotator.")]
        assert bool(weights) == (value == "utility"), (
            "the sliders say what the annotator wants, or the run's own settings do"
        )
        assert load_config(runs.started[-1]).reward.label == "learned"
        assert (f", {label}, " in runs.titles[-1]) == (value != "utility")


def test_a_run_is_started_watched_stopped_and_becomes_a_dot(
    opened: Callable[..., Page],
    serve: Callable[[Path], str],
    results: Path,
    simulated: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(results, tmp_path / "runs")
    (first,) = (tmp_path / "runs").glob("*ppo*")
    runs = Pretended(monkeypatch, first.name + "-2")
    page = opened(f"{serve(tmp_path / 'runs')}/simulator")
    page.click("#presets button:has-text('Sycophancy')")
    page.click("#train")
    page.wait_for_selector("#train-error:has-text('trained already')")
    assert page.is_hidden("#live")
    page.click("#train")
    card = page.locator("#trainings li.card")
    card.locator("p:has-text('running: ppo, update 5')").wait_for()
    assert card.locator("h3").inner_text() == "<b>mine</b>"
    assert card.locator(".spark text").all_text_contents() == ["reward 0.5", "KL 0.5"]
    assert page.inner_text("#train-error") == "" and page.is_hidden("#live-asked")

    runs.answered(0, "<i>before</i>", 2.5)
    card.locator("li:has-text('SFT model <i>before</i> 0')").wait_for()
    runs.answered(2, "after two", 3.0)
    card.locator("li:has-text('update 2 after two 0')").wait_for()
    assert card.locator(".along li").all_inner_texts()[0].startswith("update 2"), "the latest first"
    assert card.locator(".measured text").all_text_contents() == ["gold, held out 3", "KL, held out 0.2"]
    page.select_option("#live-prompt", label="ask 1  (wrong opinion)")
    assert "after two 1" in card.locator(".along li").first.inner_text()

    card.locator("button:has-text('Stop')").click()
    card.locator("p:has-text('Stopped at ppo, update 5')").wait_for()
    card.locator("button:has-text('Go on')").click()
    card.locator("p:has-text('running: ppo, update 5')").wait_for()
    assert card.locator(".along li").count() == 2, "told again, shown once"
    assert page.locator("#plot-gold .dot").count() == 1
    shutil.copytree(first, tmp_path / "runs" / runs.run)
    runs.status = "finished"
    card.locator("p:has-text('Finished: gold reward 3.25 at KL 1.50. It is a diamond')").wait_for(timeout=60_000)
    assert page.locator("#plot-gold .dot").count() == 2, "without a reload"
    for plot in ("proxy", "gold"):
        places = page.locator(f"#plot-{plot} .dot path").evaluate_all(
            "found => found.map((one) => one.getAttribute('d'))"
        )
        assert places[0] == places[1], "the same run by another name is the same dot"
    said = []
    for k in ("0", "1"):
        page.select_option("#checkpoint", k)
        said.append(page.inner_text("#answers-tilted"))
    assert said[0] == said[1] and "gold" in said[0]
    assert card.locator("button:visible").count() == 0
    assert f"run={runs.run}%2Fsft&run={runs.run}" in str(card.locator("a >> nth=1").get_attribute("href"))
    wanted = {"algo=ppo", "annotator=sycophantic", "annotator.b_agree=4", "model=tiny", "data=world", "seed=0", "sft.updates=3"}  # fmt: skip
    assert all(wanted <= set(overrides) for overrides in runs.started)
    assert any(choice.startswith("algo.kl_coef=0.1") for choice in runs.started[1])


def test_two_runs_side_by_side_and_what_may_go_wrong_is_said(
    opened: Callable[..., Page],
    serve: Callable[[Path], str],
    results: Path,
    simulated: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = Pretended(monkeypatch)
    runs.started.append([])  # nothing is refused
    runs.answered(0, "hello", 2.5)
    page = opened(f"{serve(results)}/simulator")
    page.click("#train-two")
    cards = page.locator("#trainings li.card")
    cards.nth(1).locator("p:has-text('running: ppo, update 5')").wait_for()
    assert [choice for started in runs.started for choice in started if "kl_coef" in choice] == [
        "algo.kl_coef=0", "algo.kl_coef=0.2",
    ]  # fmt: skip
    told = [title.rpartition(", ")[2] for title in runs.titles]
    assert told == ["KL coefficient none", "KL coefficient 0.2"]
    left, right = (cards.nth(k).bounding_box() for k in (0, 1))
    assert left and right and left["y"] == right["y"] and left["x"] != right["x"]
    page.select_option("#live-prompt", label="ask 1  (wrong opinion)")
    assert all("hello 1" in text for text in cards.locator(".along").all_inner_texts()), "one prompt for all of them"
    runs.status, runs.error = "failed", "the disk is <b>full</b>"
    for k in (0, 1):
        cards.nth(k).locator("p.warning:has-text('It failed: the disk is <b>full</b>')").wait_for()
    assert cards.locator("b, i").count() == 0
    cards.nth(0).locator("button:has-text('Go on')").click()
    cards.nth(0).locator("p:has-text('running: ppo, update 5')").wait_for()
    runs.status = "gone"
    cards.locator("p:has-text('There is no such training: it was removed.')").wait_for()
