"""The README is short, its figures are those of a committed table, and whoever starts there finds every page."""

from __future__ import annotations

import posixpath
import re

from tests.docs.commands import ROOT

README = "README.md"
LONGEST = 80
"""Lines: one screen and a half."""
CLICKS = 3
TASKS = {
    "which algorithm should I use on my data and how sure is that": "docs/how-to/choose.md",
    "what is in the KL column": "docs/explanation/kl.md",
    "how do I add my reward": "docs/how-to/reward.md",
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def links(page: str) -> set[str]:
    """The pages that a page links to, as paths in the repository."""
    found = set()
    for target in re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", text_of(page)):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if (ROOT / path / README).is_file():
            path += f"/{README}"
        if path.endswith(".md") and (ROOT / path).is_file():
            found.add(path)
    return found


def clicks() -> dict[str, int]:
    known, edge = {README: 0}, {README}
    while edge:
        edge = {target for page in edge for target in links(page)} - set(known)
        known |= dict.fromkeys(edge, max(known.values()) + 1)
    return known


def test_it_is_short() -> None:
    assert len(text_of(README).splitlines()) <= LONGEST


def test_every_page_is_few_clicks_away() -> None:
    known = clicks()
    pages = {
        path.relative_to(ROOT).as_posix() for folder in ("docs", "results") for path in (ROOT / folder).rglob("*.md")
    }
    pages = {page for page in pages if not page.startswith(("results/runs/", "results/rank/"))}
    assert {page: known.get(page) for page in pages if known.get(page, CLICKS + 1) > CLICKS} == {}
    assert {task: known[page] for task, page in TASKS.items()} == dict.fromkeys(TASKS, 1)


def test_its_figures_are_those_of_the_table_that_it_names() -> None:
    """Each row of an algorithm is the column of that algorithm there."""
    readme = text_of(README)
    ours = [line.strip("| ").split(" | ") for line in readme.splitlines() if re.match(r"\| \w+ \|.*±", line)]
    ((page, section),) = re.findall(r"\[The whole table\]\(([^)#]+)#([^)]+)\)", readme)
    heading = re.compile("## " + section.replace("-", r"\W+") + "\n", re.IGNORECASE)
    _, text = heading.split(text_of(page))
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head = lines[0]
    metrics = (
        "helpfulness/gold_reward",
        "helpfulness/accuracy",
        "sycophancy/agreement",
        "diversity/entropy",
        "optimization/kl",
    )
    theirs = {line[0].split()[0]: line for line in reversed(lines)}
    assert len(ours) >= 4
    for algorithm, *cells in ours:
        column = head.index(algorithm)
        for metric, cell in zip(metrics, cells, strict=True):
            assert theirs[metric][column].rstrip(" ▲▼◆") == cell, f"{algorithm}, {metric}"
