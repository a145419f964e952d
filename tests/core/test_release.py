"""What a release is made of says the same everywhere: its version, its notebook, its container, its workflows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import alignbench
from alignbench.app.compose import load_config
from tests.core import tutorial_notebook

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"{name} is not in an sdist")
    return path.read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere() -> None:
    assert yaml.safe_load(read("CITATION.cff"))["version"] == alignbench.__version__
    headings = re.findall(r"^## \[([\d.]+)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == alignbench.__version__


def test_the_notebook_is_the_tutorial() -> None:
    assert read("docs/tutorial.ipynb") == tutorial_notebook.written(), "python tests/core/tutorial_notebook.py"
    sources = [
        "".join(cell["source"])
        for cell in json.loads(read("docs/tutorial.ipynb"))["cells"]
        if cell["cell_type"] == "code"
    ]
    said = [line.removeprefix("!") for source in sources for line in source.splitlines()]
    given = tutorial_notebook.commands(read("docs/tutorial.md"))
    assert said == [tutorial_notebook.INSTALL, *given]
    assert len(given) >= 9
    for command in given:
        if "alignbench algo=" in command:
            load_config(command.partition("alignbench ")[2].split())


def test_the_notebook_is_a_valid_one() -> None:
    nbformat = pytest.importorskip("nbformat")
    book = nbformat.reads(read("docs/tutorial.ipynb"), as_version=4)
    nbformat.validate(book)
    assert all(cell.source.strip() for cell in book.cells), "a picture alone leaves nothing to say"


def test_the_container_has_all_that_is_built_from() -> None:
    """What .dockerignore lets through is what the wheel needs, and nothing of somebody's runs."""
    admitted = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in admitted)
    assert {"alignbench", "conf", "plugins", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} == admitted
    lines = read("Dockerfile")
    assert "USER alignbench" in lines and 'ENTRYPOINT ["alignbench"]' in lines
    assert re.search(r"^ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu$", lines, re.MULTILINE)


@pytest.mark.parametrize("name", ["ci", "release"])
def test_workflows_are_workflows_with_few_rights(name: str) -> None:
    flow = yaml.safe_load(read(f".github/workflows/{name}.yml"))
    assert flow["permissions"] == {"contents": "read"}
    assert all(job["runs-on"] == "ubuntu-latest" and job["steps"] for job in flow["jobs"].values())


def test_the_release_tries_the_wheel_before_it_publishes() -> None:
    jobs = yaml.safe_load(read(".github/workflows/release.yml"))["jobs"]
    assert (jobs["wheel"]["needs"], jobs["publish"]["needs"]) == ("build", "wheel")
    steps = [step.get("run", "") for step in jobs["wheel"]["steps"]]
    (main_job,) = (step for step in steps if "experiment=" in step)
    assert load_config(main_job.split()[1:]).model.label == "micro"
    assert "alignbench check ppo" in steps
