"""CONTRIBUTING.md tells the house as it stands, and its rooms stay small enough to be read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_FILES, MOST_LINES = 15, 400


def tracked(*patterns: str) -> list[Path]:
    """Files of the checkout; of an unpacked sdist, which is none, all that are there."""
    done = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("not a checkout")
    return [path for name in done.stdout.splitlines() if (path := ROOT / name).exists()]


def named() -> set[str]:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Layout")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([\w/]+)/` \|", table, re.MULTILINE))


def test_every_folder_that_is_named_exists() -> None:
    assert {name for name in named() if not (ROOT / name).is_dir()} == set()


def test_every_folder_that_exists_is_named() -> None:
    files = tracked(".")
    top = {path.relative_to(ROOT).parts[0] for path in files if path.parent != ROOT}
    wings = {
        path.parent.relative_to(ROOT).as_posix()
        for path in files
        if path.suffix == ".py" and ROOT / "alignbench" in path.parents
    }
    assert {name for name in top | wings if not name.startswith(".")} - named() == set()


def test_no_folder_has_too_many_files() -> None:
    counts: dict[str, int] = {}
    for path in tracked("alignbench/*.py", "plugins/*.py"):
        if path.stem not in ("__init__", "__main__"):
            folder = path.parent.relative_to(ROOT).as_posix()
            counts[folder] = counts.get(folder, 0) + 1
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_no_file_is_too_long() -> None:
    files = [path for path in tracked("*.py") if "tests" not in path.relative_to(ROOT).parts]
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_the_core_names_no_plugin() -> None:
    packages = {path.name for path in (ROOT / "plugins").iterdir() if path.name.startswith("alignbench_")}
    assert packages
    naming = [
        f"{path.relative_to(ROOT)}: {package}"
        for path in tracked("alignbench/*.py")
        for package in packages
        if package in path.read_text(encoding="utf-8")
    ]
    assert naming == []
