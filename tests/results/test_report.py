"""The HTML report: complete in itself, text stays text, and a real browser shows it."""

import base64
import dataclasses
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from alignbench import UserError
from alignbench.commands import compare
from alignbench.results.compared.table import build_table
from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import find_runs
from alignbench.results.shown import few, generations, report
from alignbench.results.shown.plots.text import shown
from tests.results.synthetic import HOSTILE, difference, read, write_run

IMAGES = int(importlib.util.find_spec("alignbench_example") is not None)
"""The example plugin has a section with one, where it is installed."""
PANELS = 11
"""Of the report's own plots, for runs of `write_run`: frontier 2, differences 1, training 3 and 1 more, sycophancy, diversity, cost."""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "img", "br", "input", "link"}


class Parsed(HTMLParser):
    """Elements as (tag, attributes, own text), in the order in which they start."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict, list[str]]] = []
        self._open: list[int] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        while self._open and self.elements[self._open.pop()][0] != tag:
            pass

    def handle_data(self, data):
        if self._open:
            self.elements[self._open[-1]][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict, str]]:
        return [
            (found, "".join(text))
            for name, found, text in self.elements
            if name == tag and all(found.get(key.rstrip("_")) == value for key, value in attributes.items())
        ]

    def text(self) -> str:
        return "\n".join("".join(text) for tag, _, text in self.elements if tag not in ("script", "style"))


def make(folder: Path, differences=()) -> str:
    runs, broken = find_runs([folder])
    return report.page(runs, build_table(runs, broken), differences)


def write_hostile(folder: Path) -> None:
    """Every hostile text in every place that a run has for text."""
    for i, text in enumerate(HOSTILE):
        settings = {} if "\ud800" in text else {"setting": text, text: i}  # YAML has no lone surrogates
        write_run(
            folder, f"algo{i}", settings, label=text, updates=2, text=text,
            packages={"torch": text, text: "1"}, hardware={text: text}, commit=text,
        )  # fmt: skip
        write_run(folder, f"failed{i}", status=Status.FAILED, error=text, updates=1)
    (folder / "broken").mkdir()
    (folder / "broken" / "result.json").write_text('{"schema_version": "<script>alert(1)</script>"}')


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    write_hostile(folder)
    table = read(folder)
    return make(folder, [difference(row.label, baseline=(HOSTILE[0],)) for row in table.rows if not row.baseline])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    for seed in range(2):
        write_run(folder, "ppo", seed=seed, updates=2)
    return folder, make(
        folder, [difference(("ppo",)), difference(("ppo",), metric="optimization/kl", significant=False)]
    )


class TestSelfContained:
    def test_nothing_is_loaded(self, plain):
        parsed = Parsed(plain[1])
        assert not [
            tag for tag, _, _ in parsed.elements if tag in ("link", "iframe", "object", "embed", "base", "form")
        ]
        for tag, attributes, _ in parsed.elements:
            for key, value in attributes.items():
                assert "url(" not in (value or "")
                if key in ("src", "href"):
                    assert value.startswith("data:image/svg+xml;base64," if tag == "img" else "#"), (tag, value[:40])
                assert not key.startswith("on") and key != "style"

    def test_the_policy_allows_this_script_and_style_alone(self, plain):
        parsed = Parsed(plain[1])
        ((meta, _),) = [found for found in parsed.all("meta") if "http-equiv" in found[0]]
        policy = dict(part.strip().split(" ", 1) for part in meta["content"].split(";"))
        assert policy.pop("default-src") == "'none'"
        assert policy.pop("img-src") == "data:"
        assert {policy.pop("base-uri"), policy.pop("form-action")} == {"'none'"}
        (style,) = parsed.all("style")
        script, data = parsed.all("script")
        assert data[0]["type"] == "application/json" and not script[0]
        for name, content in (("style-src", style[1]), ("script-src", script[1])):
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert policy.pop(name) == f"'sha256-{digest}'"
        assert not policy

    def test_every_plot_is_an_svg(self, plain):
        parsed = Parsed(plain[1])
        images, panels = parsed.all("img"), parsed.all("svg", class_="panel")
        assert len(images) == IMAGES and len(panels) == PANELS
        for attributes, _ in images:
            assert base64.b64decode(attributes["src"].partition(",")[2]).lstrip().startswith(b"<?xml")
            assert attributes["alt"]
        assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes, _ in panels)

    def test_plots_wear_the_page_s_colours(self, plain):
        """No colour is fixed in them, so that one drawing serves on light and on dark ground."""
        svgs = re.findall(r'<svg class="(?:panel|key)".*?</svg>', plain[1], re.DOTALL)
        colours = {colour for svg in svgs for colour in re.findall(r'(?:fill|stroke)="([^"]+)"', svg)}
        (style,) = Parsed(plain[1]).all("style")
        defined = set(re.findall(r"(--\w+): light-dark\(", style[1]))
        assert {"var(--ink)", "var(--row0)", "var(--sft)"} <= colours
        assert {colour for colour in colours if colour != "none"} <= {f"var({name})" for name in defined}


class TestContent:
    def test_the_table_holds_what_the_terminal_shows(self, plain):
        parsed = Parsed(plain[1])
        table = read(plain[0])
        cell = table.rows[1].cells["helpfulness/gold_reward"]
        cells = [text for _, text in parsed.all("td")]
        assert any(text.startswith(f"{cell.value:.2f}") and "±" in text for text in cells)
        assert "gold reward ↑" in parsed.text() and "half a 95% interval over seeds" in parsed.text()

    def test_significant_differences_stand_out(self, plain):
        page = plain[1]
        rows = re.findall(r'<tr( class="significant")?><td>(helpfulness/gold_reward|optimization/kl)</td>', page)
        assert rows == [(' class="significant"', "helpfulness/gold_reward"), ("", "optimization/kl")]
        assert "+0.500" in page and "[0.200, 1.000]" in page

    def test_what_is_not_in_the_table_is_said(self, tmp_path):
        write_run(tmp_path, "ppo", updates=1)
        write_run(tmp_path, "dpo", status=Status.FAILED, error="the loss is NaN", updates=1)
        text = Parsed(make(tmp_path)).text()
        assert "failed, the loss is NaN" in text
        assert "from 2 evaluated models; 3 were found" in text, "PPO and two copies of the SFT model"
        assert "; 1 more did not finish." in text

    def test_settings_that_all_rows_share_stand_once(self, tmp_path):
        for settings in ({}, {"kl_coef": 0.5}):
            write_run(tmp_path, "ppo", settings, updates=1)
        text = Parsed(make(tmp_path)).text()
        assert text.count("data.component") == 1 and text.count("algo.kl_coef") == 1
        assert "torch" in text and "c0ffee" in text

    def test_of_thousands_of_rows_some_of_each_algorithm_are_shown(self, tmp_path):
        for name in ("ppo", "dpo", "rloo"):
            write_run(tmp_path, name, updates=1)
        table = read(tmp_path)
        sft, *trained = table.rows
        many = [
            dataclasses.replace(row, label=(*row.label, f"kl_coef={i}"))
            for row in trained
            for i in range(1500 if row.label[0] == "ppo" else 3 if row.label[0] == "dpo" else 500)
        ]
        large = dataclasses.replace(table, rows=(sft, *many))
        shown, kept = few.few(large, [difference(many[0].label), difference(many[0].label, baseline=many[7].label)])
        of = Counter(row.label[0] for row in shown.rows)
        assert of == {"sft": 1, "dpo": 3, "ppo": 20, "rloo": 20}
        assert ("ppo", "kl_coef=0") in {row.label for row in shown.rows} >= {("ppo", "kl_coef=1499")}
        assert [d.baseline for d in kept] == [("sft",)]
        page = report.page([], large, [])
        assert "44 of 2004 rows are shown" in page and len(page) < 3_000_000
        assert few.few(table, []) == (table, [])

    def test_why_there_is_no_verdict_is_said(self, tmp_path):
        write_run(tmp_path, "ppo", has_gold=False, updates=1)
        table = read(tmp_path)
        alone = dataclasses.replace(table, rows=table.rows[1:])
        for each, found, why in (
            (alone, [], "it takes two rows"),
            (table, [], "no two rows were compared in a primary metric"),
            (table, [difference(("ppo",), metric="optimization/kl")], "do not belong in one table"),
        ):
            assert why in report.page([], each, found)
        said = dataclasses.replace(table, verdict=("ppo is <b>better</b>.",))
        page = report.page([], said, [])
        assert "There is no verdict" not in page and "ppo is &lt;b&gt;better&lt;/b&gt;." in page

    def test_no_run_at_all_still_makes_a_page(self):
        assert "No finished run." in report.page([], build_table([]), [])


class TestSideBySide:
    def test_prompts_and_responses_are_those_of_the_run(self, plain):
        ((_, text),) = Parsed(plain[1]).all("script", type="application/json")
        data = json.loads(text)["generations"]
        assert data["columns"] == ["sft", "ppo"]
        assert len(data["prompts"]) == generations.MOST_PROMPTS < 50
        town = data["prompts"][0]["messages"][0][1].split()[-2]
        sft, ppo = data["prompts"][0]["responses"]
        assert [r["text"] for r in sft] == [f"lemmo ? {town}"] * 2 and [r["text"] for r in ppo] == [
            f"kessa . {town}"
        ] * 2
        assert ppo[0]["note"] == "gold 3.00 · proxy 0.25 · 3 tokens · correct"

    def test_the_prompts_do_not_depend_on_what_was_answered(self, tmp_path):
        for name, text in (("one", "a"), ("two", "b")):
            write_run(tmp_path / name, "ppo", text=text, updates=1)
        one, two = (generations.side_by_side(read(tmp_path / name).rows) for name in ("one", "two"))
        assert [p.title for p in one.prompts] == [p.title for p in two.prompts]

    def test_a_response_is_cut_and_its_lines_kept(self, tmp_path):
        write_run(tmp_path, "ppo", text="line\n" * 5000, updates=1)
        found = generations.side_by_side(read(tmp_path).rows).prompts[0].responses[1][0].text
        assert len(found) == generations.LONGEST and found.startswith("line\nline\n") and found.endswith("…")

    def test_a_row_that_was_not_asked_has_no_response(self, tmp_path):
        path = write_run(tmp_path, "ppo", updates=1)
        write_run(tmp_path, "dpo", updates=1)
        kept = (path / "generations.jsonl").read_text().splitlines()[:3]
        (path / "generations.jsonl").write_text("\n".join([*kept, '{"prompt": 3}', "[]", '{"prompt": "pro']))
        found = generations.side_by_side(read(tmp_path).rows)
        assert found.columns == ("sft", "dpo", "ppo") and len(found.prompts) == 1  # what most rows were asked

    def test_damaged_lines_are_passed_over(self, tmp_path):
        path = write_run(tmp_path, "ppo", updates=1) / "generations.jsonl"
        strange = {"prompt": "odd", "response": "r", "messages": [1, {"role": None}], "tokens": "3", "opinion": 5}
        path.write_text(json.dumps(strange) + "\nnonsense\n")
        table = read(tmp_path)
        (prompt,) = generations.side_by_side([table.rows[1]]).prompts
        assert prompt.messages == (("None", "None"),) and prompt.responses[0][0].note == ""


class TestHostile:
    def test_no_element_comes_from_a_run(self, hostile):
        parsed = Parsed(hostile)
        tags = [tag for tag, _, _ in parsed.elements]
        assert tags.count("script") == 2 and tags.count("style") == 1 and tags.count("img") == IMAGES
        assert all(attributes["src"].startswith("data:") for attributes, _ in parsed.all("img"))
        assert not [key for _, attributes, _ in parsed.elements for key in attributes if key.startswith("on")]
        assert "b" not in {
            tag for tag, attributes, text in parsed.elements if "alert" in "".join(text) and tag != "bdi"
        }

    def test_every_text_is_shown_as_it_is(self, hostile):
        text = Parsed(hostile).text()
        for given in HOSTILE:
            assert text.count(shown(given)) >= 5, given

    def test_the_data_cannot_end_their_element_and_come_back_whole(self, hostile):
        ((_, data),) = Parsed(hostile).all("script", type="application/json")
        assert not set(data) & set("<>&") and data.isascii()
        responses = [
            r["text"]
            for prompt in json.loads(data)["generations"]["prompts"]
            for column in prompt["responses"]
            for r in column
        ]
        for given in HOSTILE:
            assert any(text.startswith(shown(given)) for text in responses)

    def test_nothing_that_acts_is_in_the_file(self, hostile):
        assert not set(hostile) & {"\x00", "\x1b", "\x07", "\u202e", "\u2066", "\ud800"}
        assert "49" not in re.findall(r"\{\{ 7 \* 7 \}\}|>49<", hostile)
        hostile.encode()


class TestFiles:
    def test_compare_writes_it(self, plain, tmp_path):
        assert compare.main([str(plain[0]), "--output", str(tmp_path / "table.html")]) == 0
        assert "side by side" in (tmp_path / "table.html").read_text(encoding="utf-8")

    def test_a_report_that_cannot_be_written_is_one_line(self, plain, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match=r"Cannot write .*page.html: .*"):
            report.write([], build_table([]), [], tmp_path / "file" / "page.html")
        with pytest.raises(UserError, match="Cannot make the folder"):
            report.save_plots(read(plain[0]), [], tmp_path / "file")

    def test_the_old_report_stays_until_the_new_one_is_whole(self, tmp_path, monkeypatch):
        path = tmp_path / "page.html"
        report.write([], build_table([]), [], path)
        before = path.read_text()

        def full(self, content):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="No space left"):
            report.write([], build_table([], []), [], path)
        assert path.read_text() == before and list(tmp_path.iterdir()) == [path]

    def test_plots_are_saved_as_png_and_svg(self, plain, tmp_path):
        written = report.save_plots(read(plain[0]), [difference(("ppo",))], tmp_path / "new" / "plots")
        names = ["frontier", "differences", "training", "sycophancy", "diversity", "cost", "training_more"]
        assert [path.name for path in written] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
        for path in written:
            assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH")
class TestBrowser:
    """What a real browser makes of the file. The page itself writes down errors and what it drew."""

    def opened(self, page: str, tmp_path: Path) -> Parsed:
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        command = [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--proxy-server=127.0.0.1:9",  # where nothing answers: the page must not need a network
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, encoding="utf-8")
        return Parsed(done.stdout)

    def test_it_opens_and_draws_everything(self, plain, tmp_path):
        ((root, _),) = self.opened(plain[1], tmp_path).all("html")
        assert root == {"lang": "en", "data-script": "done", "data-plots": str(PANELS + IMAGES)}  # and no data-errors

    def test_hostile_text_is_seen_and_does_nothing(self, hostile, tmp_path):
        parsed = self.opened(hostile, tmp_path)
        ((root, _),) = parsed.all("html")
        assert root == {
            "lang": "en",
            "data-script": "done",
            "data-plots": str(hostile.count('<svg class="panel"') + IMAGES),
        }
        cards = [text for attributes, text in parsed.all("bdi") if attributes.get("class") == "said"]
        for given in HOSTILE:
            assert any(text.startswith(shown(given)) for text in cards), given
        assert len(parsed.all("script")) == 2 and len(parsed.all("img")) == IMAGES

    def test_a_script_that_got_in_would_be_blocked_and_seen(self, plain, tmp_path):
        """The check of the other tests can fail."""
        page = plain[1].replace(
            "</main>", "<script>document.title = 'in'</script><img src='http://example.org/x'></main>"
        )
        ((root, _),) = self.opened(page, tmp_path).all("html")
        assert "blocked: script-src" in root["data-errors"] and "blocked: img-src" in root["data-errors"]
