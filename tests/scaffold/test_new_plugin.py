"""`alignbench new-plugin`: every kind is written, built, installed beside the running packages, checked, tested and run."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import alignbench
from alignbench.commands.cli import run_command
from alignbench.plugins import Kind
from alignbench.scaffold.kinds import TEMPLATES

pytest.importorskip("copier", reason="copier is not installed: pip install 'alignbench[scaffold]'")

NAMES = {kind: f"own_{template.folder}" for kind, template in TEMPLATES.items()}
COMPONENTS = {kind: f"{template.kind.value}={NAMES[kind]}" for kind, template in TEMPLATES.items()}

# Two runs of the smallest size that use every kind. Nothing is asserted about what they learn: the kit's checks do that.
IN_THE_EXACT_WORLD = [
    *("experiment=exact", "algo=own_algorithm_rollouts", "reward=own_reward", "algo.optimizer=own_optimizer"),
    *("algo.lr_schedule=own_schedule", "model.sampler=own_sampler", "tracker=own_tracker"),
    *("eval.families=[exact,own_evaluation]", "sft.updates=2", "algo.updates=2", "algo.batch_size=32"),
    *("algo.micro_batch_size=32", "data.demonstrations=100", "stages=[own_stage]"),
]
ON_ITS_OWN_DATA = [
    *("data=own_data", "model=own_model", "algo=own_algorithm_pairs", "annotator=own_annotator", "reward=gold"),
    *("eval.families=[own_evaluation]", "eval.samples=2", "data.evaluation_prompts=8", "sft.updates=2"),
    *("algo.updates=2", "data.demonstrations=100", "rankings.prompts=20", "rankings.responses=3"),
]
RUNS = """
import json, sys
from alignbench.commands.cli import run_command
for arguments in json.loads(sys.argv[1]):
    if run_command(arguments):
        sys.exit(f"failed: {arguments}")
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of every kind, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("written")
    for kind, name in NAMES.items():
        assert run_command(["new-plugin", name, "--kind", kind, "--output", str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="module")
def site(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them as pip installs them, from their wheels, in a layer over what is installed: nothing is downloaded."""
    build = pytest.importorskip("hatchling.build", reason="hatchling is not installed: pip install hatchling")
    site, here = tmp_path_factory.mktemp("site"), Path.cwd()
    try:
        for package in sorted(written.iterdir()):
            os.chdir(package)
            with zipfile.ZipFile(site / build.build_wheel(str(site))) as wheel:
                wheel.extractall(site)
    finally:
        os.chdir(here)
    return site


def python(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


# What is written


def test_uses_the_public_door_alone(written: Path) -> None:
    files = [path for path in written.rglob("*.py") if "src" in path.parts]
    assert len(files) >= 3 * len(TEMPLATES)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.split(".")[0] == "alignbench"], file
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alignbench":
                assert node.module == "alignbench", f"{file}: from {node.module}"
                assert {alias.name for alias in node.names} <= {*alignbench.__all__, "functional"}, file


def test_every_file_is_rendered_and_says_where_ones_own_goes(written: Path) -> None:
    for kind, name in NAMES.items():
        package = written / name
        texts = {path: path.read_text() for path in package.rglob("*") if path.is_file()}
        assert [path for path, text in texts.items() if "{{ " in text and "message" not in text] == []
        code = "".join(text for path, text in texts.items() if path.suffix == ".py")
        assert kind == "tracker" or "PAPER" in code, kind
        assert (package / ".github" / "workflows" / "tests.yml").is_file()
        assert COMPONENTS[kind] in (package / "README.md").read_text()
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        assert project["entry-points"]["alignbench"] == {name: f"alignbench_{name}"}


def test_an_algorithm_brings_settings_for_the_exact_world(site: Path) -> None:
    for name in ("own_algorithm_rollouts", "own_algorithm_pairs"):
        assert (site / f"alignbench_{name}" / "conf" / "tuned" / f"micro-{name}.yaml").is_file(), (
            "left out of the wheel"
        )


def test_what_is_written_has_no_fault_that_ruff_knows(written: Path) -> None:
    pytest.importorskip("ruff", reason="ruff is not installed: pip install ruff")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", str(written)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


# That it works as it is


@pytest.mark.slow
def test_its_own_tests_pass(site: Path, written: Path, tmp_path: Path) -> None:
    """Each is the conformance kit, an algorithm's optimum and stated loss among the checks."""
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(written)]
    done = python(site, tmp_path, "-m", "pytest", *options, str(written))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_passes_check_and_runs(site: Path, written: Path, tmp_path: Path) -> None:
    """The algorithms' checks, which take seconds, are those of their tests."""
    quick = [COMPONENTS[kind] for kind, template in TEMPLATES.items() if template.kind is not Kind.ALGORITHM]
    results = f"results_dir={tmp_path / 'runs'}"
    looked = ["data", str(written / NAMES["format"] / "rows.jsonl"), f"data.format={NAMES['format']}"]
    commands = [["check", *quick], looked, [*IN_THE_EXACT_WORLD, results], [*ON_ITS_OWN_DATA, results]]
    done = python(site, tmp_path, "-c", RUNS, json.dumps(commands))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert all(f"{component}: " in done.stdout for component in quick)
    chosen = "".join(path.read_text() for path in (tmp_path / "runs").glob("*/config.yaml"))
    assert [name for kind, name in NAMES.items() if name not in chosen and kind != "format"] == []
    assert f"Read as: 6 {NAMES['format']}" in done.stdout
    (curves,) = (tmp_path / "runs").glob("*/curves.tsv")
    assert "\ttrain/reward\t" in curves.read_text()


# What is refused


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], *words: str) -> None:
    """One line with all of the words, exit code 2."""
    assert run_command(["new-plugin", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize(
    "name", ["Upper", "my-reward", "1st", "a__b", "a_", "_a", "", "../x", "a b", "é", "x" * 41, "a\nb", "a;b"]
)
def test_a_name_that_no_package_could_have(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, ["--", name], "lower-case letters")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("ppo", "algorithm:rollouts", "algo=ppo is installed"),
        ("adamw", "optimizer", "optimizer=adamw is installed"),
        ("hf", "reward", "is taken"),
        ("world", "reward", "is taken"),
        ("policy", "algorithm:pairs", "class Policy"),
        ("rollout", "algorithm:rollouts", "class Rollout"),
        ("none", "algorithm:rollouts", "class None"),
        ("lambda", "schedule", "class lambda"),
    ],
)
def test_a_name_that_means_something_else(
    name: str, kind: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, [name, "--kind", kind, "--output", str(tmp_path / "new")], word, "Choose another")
    assert not (tmp_path / "new").exists()


def test_an_unknown_kind_lists_the_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["mine", "--kind", "algorithm:pair"], "Did you mean 'algorithm:pairs'?", *TEMPLATES)


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for folder in ("there", "file", "dangling"):
        refused(capsys, ["mine", "--output", str(tmp_path / folder)], "is there already")
    refused(capsys, ["mine", "--output", str(tmp_path / "file" / "new")], "is a file, not a folder")
    with pytest.raises(SystemExit, match="2"):
        run_command(["new-plugin", "mine", "--output", "a\0b"])
    assert "--output: a\\x00b: no path holds such a character" in capsys.readouterr().err
    refused(capsys, ["mine", "--output", "/proc/mine"], "cannot be written")
    assert (tmp_path / "there" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert run_command(["new-plugin", "mine", "--kind", "schedule", "--output", str(tmp_path)]) == 0
    assert (tmp_path / "pyproject.toml").is_file()


def test_without_copier_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "copier", None)
    refused(capsys, ["mine", "--output", str(tmp_path / "new")], "pip install 'alignbench[scaffold]'")
