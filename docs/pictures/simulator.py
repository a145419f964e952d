"""The pictures of the simulator, from one-file exports:

alignbench page --export docs/pictures/simulator.html && python docs/pictures/simulator.py
alignbench page RUNS --export docs/pictures/simulator-hacking.html && python docs/pictures/simulator.py hacking

RUNS: of `experiment=hacking_smollm2`, one seed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
SHOWN = {
    "": (HERE / "simulator.html", HERE.parent / "simulator.png", "Reward hacking", 1060),
    "hacking": (HERE / "simulator-hacking.html", HERE / "simulator-hacking.png", "Reward hacking, as trained", 1700),
}
COLOURS = 128
LARGEST = 200_000
"""Bytes of the picture."""


def main() -> int:
    file, picture, preset, height = SHOWN[sys.argv[1] if len(sys.argv) > 1 else ""]
    if not file.is_file():
        sys.exit(f"{file} is not there: alignbench page --export {file}")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": height})
        page.goto(file.as_uri())
        page.get_by_role("button", name=preset, exact=True).click()
        page.wait_for_selector("svg path")
        page.screenshot(path=picture)
        chromium.close()
    Image.open(picture).convert("RGB").quantize(COLOURS).save(picture, optimize=True)
    size = picture.stat().st_size
    print(f"{picture} {size // 1000} kB")
    return 0 if size <= LARGEST else 1


if __name__ == "__main__":
    sys.exit(main())
