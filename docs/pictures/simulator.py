"""The picture of the simulator, from its one-file export: alignbench page --export docs/pictures/simulator.html && python docs/pictures/simulator.py."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
FILE, PICTURE = HERE / "simulator.html", HERE.parent / "simulator.png"
PRESET = "Reward hacking"
COLOURS = 64
LARGEST = 200_000
"""Bytes of the picture."""


def main() -> int:
    if not FILE.is_file():
        sys.exit(f"{FILE} is not there: alignbench page --export docs/pictures/simulator.html")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 1060})
        page.goto(FILE.as_uri())
        page.get_by_role("button", name=PRESET).click()
        page.wait_for_selector("svg path")
        page.screenshot(path=PICTURE)
        chromium.close()
    Image.open(PICTURE).convert("RGB").quantize(COLOURS).save(PICTURE, optimize=True)
    size = PICTURE.stat().st_size
    print(f"{PICTURE} {size // 1000} kB")
    return 0 if size <= LARGEST else 1


if __name__ == "__main__":
    sys.exit(main())
