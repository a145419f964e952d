"""Hooks of the site (mkdocs.yml): links that work on a Git host work on the site too, and pages outside docs/ are part of it.

A link in a page is relative to the page's own file in the repository. Here it is turned into one between pages of the site; a file
that is no page (code, a preset) is put onto the site as text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs/"
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Pages at the repository's root, and what they are called on the site. Those of results/ keep their names."""
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"(^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
SIMULATOR, EXPORT = "<!-- simulator -->", "pictures/simulator.html"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = [one for entry in config.nav or [] for one in _expanded(entry)]
    return config


def _expanded(entry: Any) -> Iterator[Any]:
    """An entry with a star stands for all the pages that it matches, a folder's own page first."""
    if isinstance(entry, dict):
        for title, below in entry.items():
            yield {title: [one for part in below for one in _expanded(part)] if isinstance(below, list) else below}
    elif "*" in entry:
        home = ROOT if entry.startswith("results/") else ROOT / DOCS
        found = sorted(home.glob(entry), key=lambda path: (path.name != "README.md", path.name))
        yield from (path.relative_to(home).as_posix() for path in found)
    else:
        yield entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    outside = dict(OUTSIDE)
    outside |= {name: name for name in (f"results/{path.name}" for path in (ROOT / "results").glob("*.*"))}
    for source, page in outside.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    own = page.file.src_uri
    source = next(
        (path for path, name in OUTSIDE.items() if name == own), own if own.startswith("results/") else DOCS + own
    )

    def moved(link: re.Match[str]) -> str:
        return link[1] + _on_site(link[2], source, own, config, files) + link[3]

    parts = CODE.split(markdown)  # code is every second part
    text = "".join(part if i % 2 else LINK.sub(moved, part) for i, part in enumerate(parts))
    return text.replace(SIMULATOR, _simulator(own)) if SIMULATOR in text else text


def _on_site(target: str, source: str, own: str, config: MkDocsConfig, files: Files) -> str:
    """A link of the file `source`, from the page `own`. What leads nowhere stays as it is, and the build refuses it."""
    path, mark, anchor = target.partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return target
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if (ROOT / place / "README.md").is_file():
        place += "/README.md"
    name = OUTSIDE.get(place, place.removeprefix(DOCS))
    if files.get_file_from_path(name) is None and (ROOT / place).exists():
        name = f"source/{place}.txt"
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, content=_as_text(ROOT / place)))
    if files.get_file_from_path(name) is None:
        return target
    return posixpath.relpath(name, posixpath.dirname(own) or ".") + mark + anchor


def _as_text(place: Path) -> str:
    """A file, or the files of a folder one below another."""
    if place.is_file():
        return place.read_text(encoding="utf-8")
    return "\n".join(
        f"==== {path.name}\n\n{path.read_text(encoding='utf-8')}"
        for path in sorted(place.glob("*.*"))
        if path.is_file()
    )


def _simulator(own: str) -> str:
    """The simulator's one-file export, where it was made before the site was."""
    if not (ROOT / DOCS / EXPORT).is_file():
        return "*This copy of the site was built without the simulator's file.*"
    place = posixpath.relpath(EXPORT, posixpath.dirname(own) or ".")
    return f'<iframe src="{place}" title="RLHF simulator" style="width: 100%; height: 80vh; border: 0"></iframe>'
