"""Every command of a page that needs nothing but this machine is run, in the order of the page, at the smallest size:
`python -m pytest -m slow tests/docs` runs all pages (minutes), `-k tutorial` those of that name."""

from __future__ import annotations

import glob
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from omegaconf import DictConfig

from alignbench import plugins
from alignbench.app.compose import composed
from alignbench.commands.cli import run_command
from tests.core.harness import SMALL
from tests.docs import commands_page
from tests.docs.commands import PAGES, ROOT, Shown
from tests.docs.example import with_example
from tests.docs.test_commands import OURS, needs, of_a_run

SMALLEST = dict(
    word.split("=", 1)
    for word in (
        *SMALL,
        *("algo.updates=2", "algo.passes=0", "algo.epochs=1", "reward.passes=1"),
        *("eval.questions=12", "eval.frontier_prompts=4"),
    )
)
"""What every run is given, as far as its components have it: the pages' runs share the stages before the algorithm."""
CUT = {"eval.every": "1", "seed": "0"}
"""What is put in place of the page's own value, where it gives one."""
ELSEWHERE = {
    "page": "serves for ever: tests/page",
    "rank": "wants people: tests/page",
    "check": "minutes each: tests/testing, and tests/scaffold for plugins that were written",
    "tutorial": "tests/core/test_tutorial.py; its runs are on its page too, and are run",
    "evaluate": "a model of the reader's: tests/core/test_evaluate.py",
}
"""Commands that are run by tests of their own."""
LACKING = {
    r"hydra/": "launchers and the tuner: tests/sweeps, where they are installed",
    r"torchrun": "several processes: tests/distributed",
    r"config-dir": "what a study of the tuner has found",
    r"instruction-data|data\.path|model\.path|annotator\.path": "a file of the reader's",
    r"\[RESULTS\]|\$algo": "a blank of the page's",
}
"""Of what is left: words that only a machine unlike this one can follow."""
BLOCK = re.compile(r"^```python\n# (my_\w+\.py)\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""A file that a page has its reader write."""


def not_run(one: Shown) -> str:
    """Why a command is only composed; empty for what is run."""
    if one.blank or needs(one):
        return "a blank, or what a machine may lack"
    arguments = one.alignbench or ()
    if arguments and arguments[0] in ELSEWHERE:
        return ELSEWHERE[arguments[0]]
    return next((why for pattern, why in LACKING.items() if re.search(pattern, " ".join(one.words))), "")


HERE = [one for one in OURS if not not_run(one)]


@pytest.fixture(autouse=True, scope="module")
def example() -> Iterator[None]:
    with with_example():
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of a reader who comes to a page that only compares: two algorithms, two seeds, one of them swept, looked at along its way."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for algorithm in (("algo=ppo", "algo.kl_coef=0.02,0.5"), ("algo=dpo",)):
            arguments = ("-m", *algorithm, "eval.every=1")
            assert run_command([*smallest(arguments), "seed=0,1", "results_dir=runs"]) == 0
    return folder / "runs"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with what pages have their reader write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [{"prompt": f"What is {i} + 1?", "chosen": str(i + 1), "rejected": "I do not know."} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    winners = "".join(f"ppo,dpo,{('ppo', 'dpo', 'tie')[i % 3]},{i}\n" for i in range(30))
    (tmp_path / "judged.csv").write_text("left,right,winner,item\n" + winners)
    for page in PAGES:
        for name, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            (tmp_path / name).write_text(text)
    yield tmp_path
    plugins.registry.cache_clear()


def test_what_is_run_is_most_of_what_can_be() -> None:
    assert len(HERE) >= 80
    assert {one.page.name for one in HERE} >= {"README.md", "tutorial.md", "plugin.md", "exact.md", "results.md"}


def test_a_run_is_cut_down_and_is_still_the_page_s() -> None:
    arguments = smallest(
        ("-m", "experiment=exact", "algo=ppo,dpo", "algo.updates=400", "seed=0,1", "algo.learning_rate=6e-3")
    )
    assert arguments[:6] == (
        "-m",
        "experiment=exact",
        "algo=ppo,dpo",
        "algo.updates=2",
        "seed=0",
        "algo.learning_rate=6e-3",
    )
    assert "sft.updates=3" in arguments and len({word.split("=")[0] for word in arguments}) == len(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({one.page for one in HERE}), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_s_commands_run(
    page: Path,
    desk: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "slow" not in (request.config.option.markexpr or ""):
        pytest.skip("takes minutes: python -m pytest -m slow tests/docs")
    for one in HERE:
        if one.page != page:
            continue
        arguments = one.alignbench or ()
        name = next(iter(arguments), "")
        if name == "compare" and not (desk / "results" / "runs").exists():
            shutil.copytree(request.getfixturevalue("runs"), desk / "results" / "runs")
        for committed in (word for word in arguments if word.startswith("results/records/")):
            shutil.copytree(ROOT / committed, desk / committed)
        with monkeypatch.context() as patch:
            if name == "new-plugin":
                blocked(patch, arguments[1])
            capsys.readouterr()
            assert run_command(list(followed(arguments))) == 0, f"{one}\n{capsys.readouterr().err}"
        if name == "new-plugin":
            install(desk, arguments, monkeypatch)


def followed(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments as a shell gives them, and small."""
    arguments = tuple(word for word in arguments if not word.startswith("$"))
    name = next(iter(arguments), "")
    if name not in commands_page.commands():
        # best_of_n has no updates to cut down, and what one combination lacks no other may have
        return smallest(tuple(word.replace(",best_of_n", "") for word in arguments))
    if name == "evaluate-reward":
        return (name, *smallest(arguments[1:]), "--best-of", "4", "--questions", "4")
    # pages name runs of the year in which they were written
    return tuple(path for word in arguments for path in (sorted(glob.glob(re.sub(r"20\d\d\*", "*", word))) or [word]))


def smallest(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """With small sizes in place of the page's, and in place of the defaults that every combination of the command has."""
    cut = []
    for word in arguments:
        key, equals, _ = word.partition("=")
        small = {**SMALLEST, **CUT}.get(key)
        cut.append(f"{key}={small}" if equals and small else word)
    configs = [composed(overrides)[0] for overrides in of_a_run(tuple(cut))]
    given = {word.split("=")[0] for word in cut}
    wanted = {key: value for key, value in SMALLEST.items() if key not in given}
    return (*cut, *(f"{key}={value}" for key, value in wanted.items() if all(has(config, key) for config in configs)))


def has(config: DictConfig, key: str) -> bool:
    node: object = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node[part]
    return True


def blocked(patch: pytest.MonkeyPatch, name: str) -> None:
    """Without the plugin of that name, which later commands have: it is about to be written."""
    found: Callable[..., list[EntryPoint]] = plugins.entry_points
    patch.setattr(plugins, "entry_points", lambda group: [one for one in found(group=group) if one.name != name])
    patch.setattr(sys, "path", [part for part in sys.path if name not in part])
    forgotten(patch, name)
    plugins.registry.cache_clear()


def forgotten(patch: pytest.MonkeyPatch, name: str) -> None:
    for module in [one for one in sys.modules if one.split(".")[0] == f"alignbench_{name}"]:
        patch.delitem(sys.modules, module)


def install(desk: Path, arguments: tuple[str, ...], patch: pytest.MonkeyPatch) -> None:
    """What pip would do with the folder that was written."""
    name = arguments[1]
    (package,) = desk.rglob(f"src/alignbench_{name}")
    patch.syspath_prepend(str(package.parent))
    forgotten(patch, name)
    found: Callable[..., list[EntryPoint]] = plugins.entry_points
    point = EntryPoint(name, package.name, "alignbench")
    patch.setattr(
        plugins, "entry_points", lambda group: [*(one for one in found(group=group) if one.name != name), point]
    )
    plugins.registry.cache_clear()
