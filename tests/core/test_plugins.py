"""Discovery of plugins: what is registered, what is refused, and what registering must not import."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

import alignbench
from alignbench import RunFinished, RunStarted, RunStep, UserError, functional, plugins, pretrained
from alignbench.plugins import Kind, Place, Registry

PLUGINS = Path(plugins.__file__).parents[1] / "plugins"
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "lm_eval",
    "accelerate",
    "datasets",
    "polars",
    "numpy",
    "scipy",
}

MODULE = """
from dataclasses import dataclass
from typing import ClassVar
from alignbench import Consumes, OptimizerConfig, hookimpl

@dataclass
class Algorithm(OptimizerConfig):
    '''An algorithm of a test.'''
    consumes: ClassVar[Consumes] = Consumes.ROLLOUTS

@dataclass
class Config:
    '''A component of a test.

    More words.'''
    strength: float = 1.0

@hookimpl
def {hook}({argument}):
    {body}
"""

Install = Callable[..., list[EntryPoint]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs distributions, each with one plugin module, and returns the entry points of all of them."""
    monkeypatch.syspath_prepend(tmp_path)
    fresh = (f"fake_plugin_{tmp_path.name}_{number}" for number in itertools.count())

    def install(distribution: str, source: str, point: str = "fake", version: str = "1.0") -> list[EntryPoint]:
        module = re.sub(r"\W", "_", next(fresh))
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[alignbench]\n{point} = {module}\n")
        found = distributions(path=[str(tmp_path)])
        return [point for dist in found for point in dist.entry_points.select(group="alignbench")]

    return install


def source(body: str, hook: str = "register_rewards", argument: str = "register", **replace: str) -> str:
    text = MODULE.format(hook=hook, argument=argument, body=body)
    for old, new in replace.items():
        text = text.replace(old, new)
    return text


def refused(points: list[EntryPoint], *words: str, blocked: tuple[str, ...] = ()) -> str:
    """The message of the UserError that loading raises: one line, holding all of the words."""
    with pytest.raises(UserError) as caught:
        plugins.load(points, blocked)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


REWARD = "register('reward_of_a_test', Config, 'somewhere:Reward')"


# What a plugin may register: one test for each hook


def registers(install: Install, hook: str, kind: Kind, config: str = "Config") -> None:
    registry = plugins.load(
        install("fake-dist", source(f"register('thing', {config}, 'pack.age:Thing')", hook), version="2.5")
    )
    (component,) = registry.components.values()
    assert component is registry.get(kind, "thing")
    assert (component.kind, component.name, component.target) == (kind, "thing", "pack.age:Thing")
    assert (component.distribution, component.version) == ("fake-dist", "2.5")
    assert component.config.__name__ == config


def test_hook_register_algorithms(install: Install) -> None:
    registers(install, "register_algorithms", Kind.ALGORITHM, "Algorithm")


def test_hook_register_models(install: Install) -> None:
    registers(install, "register_models", Kind.MODEL)


def test_hook_register_data(install: Install) -> None:
    registers(install, "register_data", Kind.DATA)


def test_hook_register_rewards(install: Install) -> None:
    registers(install, "register_rewards", Kind.REWARD)


def test_hook_register_annotators(install: Install) -> None:
    registers(install, "register_annotators", Kind.ANNOTATOR)


def test_hook_register_evaluations(install: Install) -> None:
    registers(install, "register_evaluations", Kind.EVALUATION)


def test_hook_register_trackers(install: Install) -> None:
    registers(install, "register_trackers", Kind.TRACKER)


def test_hook_register_optimizers(install: Install) -> None:
    registers(install, "register_optimizers", Kind.OPTIMIZER)


def test_hook_register_schedules(install: Install) -> None:
    registers(install, "register_schedules", Kind.SCHEDULE)


def test_hook_register_samplers(install: Install) -> None:
    registers(install, "register_samplers", Kind.SAMPLER)


STAGE = "place: ClassVar[StagePlace] = StagePlace.AFTER_REWARD\n    strength: float = 1.0"
"""What a stage declares, in the place of a plain option."""


def stage(declared: str) -> str:
    body = source("register('thing', Config, 'pack.age:Thing')", "register_stages")
    return body.replace("strength: float = 1.0", declared).replace("Consumes,", "Consumes, StagePlace,")


def test_hook_register_stages(install: Install) -> None:
    (component,) = plugins.load(install("fake-dist", stage(STAGE))).components.values()
    assert (component.kind, component.name, component.kind.hook) == (Kind.STAGE, "thing", "register_stages")


@pytest.mark.parametrize(
    ("declared", "word"),
    [
        ("strength: float = 1.0", "declare `place`"),
        (STAGE.replace("StagePlace.AFTER_REWARD", "'after_reward'"), "declare `place`"),
        (f"needs = ('rankins',)\n    {STAGE}", "Did you mean 'rankings'?"),
    ],
)
def test_stage_that_is_badly_declared(install: Install, declared: str, word: str) -> None:
    refused(install("sloppy-dist", stage(declared)), word, "sloppy-dist", "ALIGNBENCH_BLOCK=fake")


def test_hook_register_formats(install: Install) -> None:
    registers(install, "register_formats", Kind.FORMAT)


def adds(install: Install, hook: str, place: Place) -> None:
    body = source("register('word-count', 'Counts words.', 'json:loads')", hook)
    registry = plugins.load(install("fake-dist", body, version="2.5"))
    (function,) = registry.functions_of(place)
    assert (function.name, function.summary, function.target) == ("word-count", "Counts words.", "json:loads")
    assert (function.distribution, function.version, function.load()("[1]")) == ("fake-dist", "2.5", [1])


def test_hook_register_commands(install: Install) -> None:
    adds(install, "register_commands", Place.COMMAND)


def test_hook_register_sections(install: Install) -> None:
    adds(install, "register_sections", Place.SECTION)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        ("register('Upper', 'A word.', 'a:b')", "lower-case"),
        ("register('fine', ' ', 'a:b')", "one line"),
        ("register('fine', 'A word.', 'a.b')", "package.module:function"),
        ("register('twice', 'A word.', 'a:b'); register('twice', 'A word.', 'c:d')", "registered twice"),
    ],
)
@pytest.mark.parametrize("hook", ["register_commands", "register_sections"])
def test_function_that_is_badly_declared(install: Install, hook: str, call: str, word: str) -> None:
    refused(install("sloppy-dist", source(call, hook)), word, "sloppy-dist", "ALIGNBENCH_BLOCK=fake")


def test_a_function_that_is_not_there(install: Install) -> None:
    body = source("register('gone', 'Is not there.', 'json:gone')", "register_commands")
    (function,) = plugins.load(install("fake-dist", body)).functions_of(Place.COMMAND)
    with pytest.raises(UserError, match="command 'gone' of fake-dist cannot be imported from 'json:gone'"):
        function.load()


def test_hook_register_presets(install: Install) -> None:
    install("first", source("register('b_package')", "register_presets"), "first")
    points = install("second", source("register('a_package')", "register_presets"), "second")
    assert plugins.load(points).preset_packages == ("a_package", "b_package")


def hears(install: Install, hook: str, event: object) -> None:
    """A hook around a run reaches every plugin that implements it."""
    install("first", source("event.metrics['first'] = 1", hook, "event"), "first")
    points = install("second", source("event.metrics['second'] = 2", hook, "event"), "second")
    assert plugins.HOOK_OF[type(event)] == hook
    plugins.load(points).tell(event)  # type: ignore[arg-type]
    assert event.metrics == {"first": 1, "second": 2}  # type: ignore[attr-defined]


def test_hook_run_started(install: Install) -> None:
    event = RunStarted("directory", "ppo", "tiny", "world", 0)
    object.__setattr__(event, "metrics", {})  # an event brings no place to write to; this one does
    hears(install, "run_started", event)


def test_hook_run_step(install: Install) -> None:
    hears(install, "run_step", RunStep("directory", "ppo", 3, {}))


def test_hook_run_finished(install: Install) -> None:
    hears(install, "run_finished", RunFinished("directory", "finished", {}))


# What is refused, and how the message helps


def test_plugin_that_cannot_be_imported_stops_the_run_unless_blocked(install: Install) -> None:
    install("good-dist", source(REWARD), "good")
    points = install("broken-dist", "import package_that_does_not_exist", "broken")
    refused(points, "'broken'", "broken-dist", "package_that_does_not_exist", "ALIGNBENCH_BLOCK=broken")
    assert [component.distribution for component in plugins.load(points, ["broken"]).components.values()] == [
        "good-dist"
    ]


def test_any_error_at_import_is_reported(install: Install) -> None:
    refused(install("broken-dist", "1 / 0"), "ZeroDivisionError", "broken-dist", "ALIGNBENCH_BLOCK=fake")


def test_error_while_registering_is_reported(install: Install) -> None:
    refused(install("broken-dist", source("{}['no such key']")), "KeyError", "broken-dist", "ALIGNBENCH_BLOCK=fake")


def test_two_components_of_one_name(install: Install) -> None:
    install("first-dist", source(REWARD), "first")
    points = install("second-dist", source(REWARD), "second")
    refused(points, "reward=reward_of_a_test", "first-dist", "second-dist", "ALIGNBENCH_BLOCK=")
    assert plugins.load(points, ["first"]).get(Kind.REWARD, "reward_of_a_test").distribution == "second-dist"


def test_one_name_may_serve_two_kinds(install: Install) -> None:
    install("first-dist", source("register('same', Config, 'a:B')"), "first")
    points = install("second-dist", source("register('same', Config, 'a:B')", "register_data"), "second")
    assert set(plugins.load(points).components) == {(Kind.REWARD, "same"), (Kind.DATA, "same")}


@pytest.mark.parametrize("same_module", [False, True])
def test_two_distributions_with_one_entry_point_name(install: Install, tmp_path: Path, same_module: bool) -> None:
    install("first-dist", source(REWARD), "twin")
    points = install("second-dist", source(REWARD), "twin")
    if same_module:  # a fork that was installed beside its original
        points = [EntryPoint("twin", points[0].value, "alignbench")._for(point.dist) for point in points]  # type: ignore[attr-defined]
    refused(points, "'twin'", "first-dist", "second-dist", "ALIGNBENCH_BLOCK=twin")


def test_unknown_hook(install: Install) -> None:
    message = refused(
        install("typo-dist", source(REWARD, hook="register_reward")),
        "register_reward",
        "typo-dist",
        "ALIGNBENCH_BLOCK=fake",
    )
    assert "register_rewards" in message, "the hooks that exist are listed"


def test_hook_with_a_wrong_argument(install: Install) -> None:
    refused(install("typo-dist", source("pass", argument="registry")), "registry", "typo-dist", "ALIGNBENCH_BLOCK=fake")


def test_plugin_without_a_hook_is_refused(install: Install) -> None:
    for number, text in enumerate((source(REWARD, **{"@hookimpl\n": ""}), "")):
        points = install(f"silent-dist{number}", text, f"silent{number}")
        mine = [point for point in points if point.name == f"silent{number}"]
        refused(
            mine, f"'silent{number}'", f"silent-dist{number}", "brings no hook", "@hookimpl", "ALIGNBENCH_BLOCK=silent"
        )


def test_project_folder_in_the_way_of_its_package_is_refused(install: Install, tmp_path: Path) -> None:
    """As where a project's folder, which has no __init__.py, is found before the package of the same name inside of it."""
    (tmp_path / f"project_{tmp_path.name}" / "inside").mkdir(parents=True)
    dist = install("project-dist", source(REWARD))[0].dist
    point = EntryPoint("project", f"project_{tmp_path.name}", "alignbench")._for(dist)  # type: ignore[attr-defined]
    refused([point], "'project'", "project-dist", "without an __init__.py", str(tmp_path), "ALIGNBENCH_BLOCK=project")


@pytest.mark.parametrize(
    ("hint", "word"),
    [
        ("tuple[int, ...] = (1, 2)", "tuple[int, ...]"),
        ("tuple = ()", "tuple"),
        ("set[str] | None = None", "set[str]"),
        ("bytes = b''", "bytes"),
        ("dict[int, str] | None = None", "dict[int, str]"),
        ("list[tuple[int, int]] | None = None", "list[tuple[int, int]]"),
        ("NoSuchName = 1", "NoSuchName"),
    ],
)
def test_option_of_a_type_that_no_configuration_holds_is_refused(install: Install, hint: str, word: str) -> None:
    body = source("register('fine', Config, 'a:B')").replace("strength: float = 1.0", f"strength: {hint}")
    refused(
        install("sloppy-dist", f"from __future__ import annotations\n{body}"), word, "Config", "ALIGNBENCH_BLOCK=fake"
    )


@pytest.mark.parametrize(
    ("call", "replace", "word"),
    [
        ("register('Upper-Case', Config, 'a:B')", {}, "lower-case"),
        ("register('', Config, 'a:B')", {}, "lower-case"),
        ("register('1st', Config, 'a:B')", {}, "lower-case"),
        ("register('fine', Config, 'a.B')", {}, "package.module:Class"),
        ("register('fine', dict, 'a:B')", {}, "must be a dataclass"),
        ("register('fine', Config(), 'a:B')", {}, "must be a dataclass"),
        (
            "register('fine', Config, 'a:B')",
            {"@dataclass\n": "@dataclass(frozen=True)\n", "(OptimizerConfig)": ""},
            "frozen",
        ),
    ],
)
def test_component_that_is_badly_declared(install: Install, call: str, replace: dict[str, str], word: str) -> None:
    refused(install("sloppy-dist", source(call, **replace)), word, "sloppy-dist", "ALIGNBENCH_BLOCK=fake")


def test_algorithm_must_declare_what_it_consumes(install: Install) -> None:
    body = source("register('fine', Config, 'a:B')", "register_algorithms")
    refused(install("sloppy-dist", body), "`consumes`", "rollouts", "sloppy-dist", "ALIGNBENCH_BLOCK=fake")


# What the registry answers


@pytest.fixture
def registry(install: Install) -> Registry:
    body = "register('keyword', Config, 'json:JSONDecoder'); register('length', Config, 'json:Missing')"
    return plugins.load(install("fake-dist", source(body)))


def test_unknown_name_lists_the_choices(registry: Registry) -> None:
    with pytest.raises(UserError, match=r"Unknown reward 'keywrd'.*'keyword'\?.*Choices: keyword, length"):
        registry.get(Kind.REWARD, "keywrd")


def test_component_is_imported_only_by_load(registry: Registry) -> None:
    import json

    assert registry.get(Kind.REWARD, "keyword").load() is json.JSONDecoder
    with pytest.raises(UserError, match=r"reward=length of fake-dist cannot be imported from 'json:Missing'"):
        registry.get(Kind.REWARD, "length").load()


def test_summary_is_the_first_line_of_the_docstring(registry: Registry) -> None:
    assert registry.get(Kind.REWARD, "keyword").summary == "A component of a test."


def test_config_without_a_docstring_has_no_summary(install: Install) -> None:
    body = source("register('bare', Bare, 'a:B')").replace(
        "@hookimpl", "@dataclass\nclass Bare:\n    x: int = 1\n\n@hookimpl"
    )
    (component,) = plugins.load(install("fake-dist", body)).components.values()
    assert component.summary == "", "the signature that dataclasses write is no summary"


# The plugins of this repository


def test_registering_every_built_in_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, alignbench, alignbench.plugins as p; components = p.registry().components;"
        f"print(len(components), sorted({HEAVY!r} & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if name != plugins.BLOCK_VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    count, heavy = done.stdout.split(maxsplit=1)
    assert int(count) >= 10
    assert heavy.strip() == "[]"


def test_blocking_by_environment() -> None:
    code = "import alignbench.plugins as p; print({c.name for c in p.registry().of(p.Kind.ALGORITHM)})"
    environment = {**os.environ, plugins.BLOCK_VARIABLE: "ppo, sft"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "'ppo'" not in done.stdout
    assert "'sft'" not in done.stdout


def test_built_in_components_can_be_built_from_what_they_declare() -> None:
    registry = plugins.registry()
    for component in registry.components.values():
        assert component.summary, f"{component.kind.value}={component.name}: the config has no docstring"
        assert callable(component.load())
        component.config()


def test_built_in_plugins_use_only_the_public_door() -> None:
    files = sorted(PLUGINS.rglob("*.py"))
    assert files
    modules = {"functional": functional, "pretrained": pretrained}
    doors = {"alignbench": {*alignbench.__all__, *modules}}
    doors.update({f"alignbench.{name}": set(vars(module)) for name, module in modules.items()})
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported = {(alias.name, "") for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: relative imports hide where a name comes from"
                imported = {(node.module or "", alias.name) for alias in node.names}
            else:
                continue
            for module, name in imported:
                if module.split(".")[0] == "alignbench":
                    door = doors.get(module, set())
                    assert name in door and not name.startswith("_"), (
                        f"{file}: {module} {name} is not in the public door"
                    )
