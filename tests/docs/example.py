"""The plugins that pages speak of, as if they were installed: the example of docs/plugins.md, and what their readers have written for them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from alignbench import plugins
from alignbench.scaffold import command as scaffold
from alignbench.scaffold.kinds import TEMPLATES
from tests.docs.commands import ROOT, shown

EXAMPLE = ROOT / "tests" / "third_party" / "alignbench_example"


def written() -> dict[str, str]:
    """What pages have their readers write and then use: the kind of each name."""
    ours = [one.alignbench for one in shown() if one.alignbench]
    made = {words[1]: _kind(words) for words in ours if words[0] == "new-plugin" and words[1:]}
    return {name: kind for name, kind in made.items() if any(f"={name}" in word for words in ours for word in words)}


def _kind(words: tuple[str, ...]) -> str:
    return words[words.index("--kind") + 1] if "--kind" in words else "algorithm:rollouts"


@contextlib.contextmanager
def with_example() -> Iterator[None]:
    pytest.importorskip("copier", reason="copier is not installed: pip install 'alignbench[scaffold]'")
    known = {one.name for one in entry_points(group="alignbench")}
    points = [] if "example" in known else [EntryPoint("example", "alignbench_example", "alignbench")]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        for name, kind in written().items():
            package = Path(folder) / name
            scaffold.write(name, TEMPLATES[kind], package)
            patch.syspath_prepend(str(package / "src"))
            points.append(EntryPoint(name, f"alignbench_{name}", "alignbench"))
        patch.setattr(plugins, "entry_points", lambda group: [*entry_points(group=group), *points])
        plugins.registry.cache_clear()
        yield
        plugins.registry.cache_clear()
