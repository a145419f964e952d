"""The pictures of docs/report.md: the report as a browser shows it, light and dark, on a desk and on a phone.

python -m alignbench -m algo=ppo,dpo,rloo,best_of_n seed=0,1 eval=quick sft.updates=200 results_dir=shown
python docs/pictures/report.py shown
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from alignbench.commands.compare import main as compare

HERE = Path(__file__).parent
COLOURS = 200
LARGEST = 150_000
"""Bytes of a picture."""


@dataclass(frozen=True)
class Picture:
    """`part`: what is scrolled to, after it was unfolded; `scale`: of the picture to the page."""

    name: str
    scheme: str
    size: tuple[int, int]
    part: str
    scale: float


PICTURES = (
    Picture("desk-light", "light", (1280, 1900), "verdict", 0.6),
    Picture("desk-dark", "dark", (1280, 1500), "frontier", 0.6),
    Picture("phone-light", "light", (390, 844), "frontier", 1.0),
    Picture("phone-dark", "dark", (390, 844), "table", 1.0),
)


def take(page: Page, picture: Picture) -> bytes:
    target = page.locator(f"#{picture.part}")
    if target.evaluate("part => !!part.closest('details')"):
        target.click()
    if picture.part == "verdict":
        page.evaluate("scrollTo(0, 0)")
    else:
        target.evaluate("part => part.scrollIntoView()")
    page.wait_for_timeout(300)  # the cues come with the next frame
    image = Image.open(io.BytesIO(page.screenshot()))
    width, height = (round(side * picture.scale) for side in picture.size)
    small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).quantize(COLOURS, kmeans=3)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = Path(folder) / "report.html"
        compare([*sys.argv[1:], "--output", str(report)])
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for picture in PICTURES:
            width, height = picture.size
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=picture.scheme)  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(report.as_uri())
            content = take(page, picture)
            assert len(content) <= LARGEST, f"{picture.name}: {len(content)} bytes"
            (HERE / f"report-{picture.name}.png").write_bytes(content)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
