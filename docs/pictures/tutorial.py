"""The pictures of docs/tutorial.md, from the runs of `alignbench tutorial`: each is a part of the page as a browser shows it.

alignbench tutorial && python docs/pictures/tutorial.py [RESULTS]
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from alignbench.commands.tutorial import DEFAULT
from alignbench.page.server import create_app
from alignbench.page.settings import PageSettings
from alignbench.results.compared.table import Row, build_table
from alignbench.results.disk.runs import find_runs

HERE = Path(__file__).parent
COLOURS = 64
LARGEST = 150_000
"""Bytes of a picture."""
SHOWN = (
    "helpfulness/gold_reward",
    "helpfulness/accuracy",
    "sycophancy/agreement",
    "diversity/entropy",
    "optimization/kl",
)
WRONG = "article:has-text('states a wrong opinion')"
READY = "#view:not([aria-busy])"


@dataclass(frozen=True)
class Picture:
    """The part of the page at `asked` that `part`, a selector, names."""

    name: str
    asked: list[tuple[str, str]]
    part: str
    width: int = 1060


def pictures(results: Path) -> list[Picture]:
    rows = build_table(*find_runs([results])).rows
    sft = _row(rows, algo="sft", annotator="mild")
    close, ppo, free = (_row(rows, algo="ppo", annotator="mild", kl_coef=k) for k in (1.0, 0.1, 0.0))
    dpo = _row(rows, algo="dpo", annotator="mild")
    of_sft, of_ppo = (row.runs[0].path.relative_to(results).as_posix() for row in (sft, ppo))
    plots = ("view", "plots")
    mild = ("only", "annotator=mild")
    return [
        Picture("page", [mild, *(("metric", name) for name in SHOWN), ("sort", "-helpfulness/gold_reward")], "body", 980),
        Picture("sft", [("view", "runs"), ("run", of_ppo), ("stage", "sft")], "figure.panel"),
        Picture("rankings", [("view", "responses"), ("run", of_sft), ("q", "i think")], WRONG, 620),
        Picture("reward-model", [("view", "runs"), ("run", of_ppo), ("stage", "reward")], "figure.panel"),
        Picture("ppo", [("view", "responses"), ("run", of_sft), ("run", of_ppo), ("q", "guess")], WRONG, 760),
        Picture("kl-penalty", [plots, ("plot", "frontier"), mild, ("hide", _text(dpo))], ".drawn"),
        Picture(
            "reward-hacking", [plots, ("plot", "overoptimisation"), mild, ("hide", _text(dpo)), ("hide", _text(close))], ".drawn"
        ),
        Picture("sycophancy", [plots, ("plot", "sycophancy")], ".drawn", 560),
        Picture("mode-collapse", [plots, ("plot", "diversity"), mild], ".drawn", 560),
        Picture(
            "dpo",
            [
                *(("row", _text(row)) for row in (sft, ppo, free, dpo)),
                *(("metric", f"optimization/{name}") for name in ("gold_reward", "proxy_reward", "kl", "length")),
                *(("metric", name) for name in ("sycophancy/agreement", "diversity/entropy")),
            ],
            ".scroll",
        ),
    ]  # fmt: skip


def _row(rows: tuple[Row, ...], *, algo: str, annotator: str, kl_coef: float | None = None) -> Row:
    for row in rows:
        settings = row.runs[0].settings
        if (row.identity.algo, row.identity.annotator) == (algo, annotator) and (
            kl_coef is None or settings.get("algo.kl_coef") == kl_coef
        ):
            return row
    sys.exit(f"no finished run of {algo}, annotator {annotator}, KL coefficient {kl_coef}: run `alignbench tutorial`")


def _text(row: Row) -> str:
    return " ".join(row.label)


def main() -> int:
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    chosen = pictures(results)
    server = uvicorn.Server(uvicorn.Config(create_app(PageSettings(results)), port=0, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    home = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for picture in chosen:
            page = chromium.new_page(viewport={"width": picture.width, "height": 1000})
            page.goto(f"{home}/?{urlencode(picture.asked)}")
            page.wait_for_selector(READY, timeout=60_000)
            path = HERE / f"tutorial-{picture.name}.png"
            page.locator(picture.part).first.screenshot(path=path)
            page.close()
            Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)
            print(f"{path.name} {path.stat().st_size // 1000} kB")
            if path.stat().st_size > LARGEST:
                sys.exit(f"{path} is larger than {LARGEST:,} bytes")
        chromium.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
