"""The kit as its users meet it: the command, the classes to subclass, and the configs that it refuses."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from alignbench import Consumes, OptimizerConfig, RolloutConfig, UserError
from alignbench import testing as kit
from alignbench.commands.check import main, resolve
from alignbench.plugins import Kind, Registry, registry
from alignbench.testing import PropertyBroken, Status, check, checks_of, conformance
from tests.testing.faults import FAULTS, planted

# The command


def test_a_component_that_conforms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluation=helpfulness", "length", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "evaluation=helpfulness (alignbench" in out
    assert "ok      specs_cover_every_metric: " in out
    assert "reward=length: 8 ok, 0 failed, 6 not applicable, in " in out


def test_a_component_that_does_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == "a metric without its spec")
    faulty = planted(fault)
    known = {**registry().components, (faulty.kind, faulty.name): faulty}
    monkeypatch.setattr("alignbench.plugins.registry", lambda: Registry(registry().manager, known, ()))
    assert main(["helpfulness"]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "FAILED" in line)
    assert "'helpfulness/accuracy' is returned and not specified." in line
    assert "Broken: `specs` names each metric" in line
    assert "Likely causes: a metric without a MetricSpec" in line


def test_settings_of_the_components_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A length of 0 cannot be divided by: the setting reaches the component."""
    assert main(["length", "reward.scale=-2"]) == 0
    with pytest.raises(UserError, match="reward.scale=0"):
        main(["length", "reward.scale=0"])
    with pytest.raises(UserError, match=r"^algo\.\*: no algo was named beside it"):
        main(["length", "algo.epochs=2"])
    for odd in ("[1", "{a", "${x"):
        with pytest.raises(UserError, match="^reward.scale="):
            main(["length", f"reward.scale={odd}"])


def test_a_model_that_cannot_be_loaded_is_one_line_and_no_broken_plugin(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder or GGUF file"):
        main(["model=hf", f"model.path={tmp_path / 'nowhere'}"])


def test_without_a_name_it_lists_and_imports_no_torch() -> None:
    code = "import sys; from alignbench.commands.cli import run_command; run_command(['check']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    for kind in Kind:
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"{kind.value}: "))
        assert line.partition(": ")[2].split(", ") == [component.name for component in registry().of(kind)]


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("ppo") == resolve("algo=ppo") == registry().get(Kind.ALGORITHM, "ppo")
    with pytest.raises(UserError, match=r"Unknown component 'pppo'\. Did you mean 'ppo'\? Choices: "):
        resolve("pppo")
    with pytest.raises(UserError, match="Unknown kind of component 'algorithm'"):
        resolve("algorithm=ppo")
    twin = replace(registry().get(Kind.ALGORITHM, "ppo"), kind=Kind.REWARD)
    known = {**registry().components, (Kind.REWARD, "ppo"): twin}
    monkeypatch.setattr("alignbench.plugins.registry", lambda: Registry(registry().manager, known, ()))
    with pytest.raises(UserError, match="choose one of algo=ppo, reward=ppo"):
        resolve("ppo")


# In a plugin's own tests


TESTS = """
import pytest
from alignbench.testing import AlgorithmConformance, EvaluationConformance, RewardConformance

class TestBestOfN(AlgorithmConformance):
    @pytest.fixture
    def component(self):
        return "best_of_n"

class TestHelpfulness(EvaluationConformance):
    @pytest.fixture
    def component(self):
        return "helpfulness"

class TestLength(RewardConformance):
    seed = 5

    @pytest.fixture
    def component(self):
        return "reward=length"
"""


def test_classes_to_subclass(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(textwrap.dedent(TESTS))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
    kinds = (kit.AlgorithmConformance, kit.EvaluationConformance, kit.RewardConformance)
    skipped = 6 + len(conformance.ALGORITHM_CHECKS) - len(conformance.STILL_CHECKS)
    assert f"{sum(len(kind.checks) for kind in kinds) - skipped} passed, {skipped} skipped" in done.stdout


def test_the_kit_imports_no_test_framework() -> None:
    code = "import alignbench.testing, sys; print('pytest' in sys.modules or '_pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_it_offers_is_there() -> None:
    assert sorted(kit.__all__) == kit.__all__
    assert all(hasattr(kit, name) for name in kit.__all__)


def test_what_raises_fails_and_does_not_stop_the_others() -> None:
    broken = replace(resolve("helpfulness"), target="tests.testing.test_kit:Raises")
    results = {result.check.name: result for result in check(broken)}
    assert len(results) == len(checks_of(broken))
    assert results["examples_are_scored_once"].detail == "It raised RuntimeError: no more."
    assert results["config_round_trips"].status is Status.OK


class Raises:
    def __init__(self, config: object) -> None:
        raise RuntimeError("no more")


# Configs


@dataclass
class Undocumented(RolloutConfig):
    """A config of which one option has no docstring."""

    mine: int = 1


@dataclass
class Odd(RolloutConfig):
    """A config with an option of a type that OmegaConf does not know."""

    mine: complex = 1j
    """An option."""


@dataclass
class Baseless(OptimizerConfig):
    """An algorithm that learns from rollouts, without their base."""

    consumes: ClassVar[Consumes] = Consumes.ROLLOUTS


@pytest.mark.parametrize(
    ("config", "name", "said"),
    [
        (Undocumented, "config_is_documented", "Undocumented.mine has no docstring"),
        (Odd, "config_round_trips", "Odd cannot be made"),
        (Undocumented, "config_imports_nothing_heavy", "torch"),
        (Baseless, "algorithm_declares_what_it_consumes", "does not derive from RolloutConfig"),
    ],
)
def test_configs_that_are_refused(config: type, name: str, said: str) -> None:
    component = replace(resolve("ppo"), config=config)
    (found,) = (check for check in checks_of(component) if check.name == name)
    with pytest.raises(PropertyBroken, match=said):
        found.run(component, 0)


def test_a_target_that_is_refused() -> None:
    (found,) = (check for check in checks_of(resolve("ppo")) if check.name == "target_keeps_its_contract")
    for target, said in (
        ("tests.testing.test_kit:Raises", "does not derive from PolicyOptimizer"),
        ("alignbench.contracts:PolicyOptimizer", "leaves out load_state_dict, state_dict, update"),
    ):
        with pytest.raises(PropertyBroken, match=said):
            found.run(replace(resolve("ppo"), target=target), 0)


assert torch  # heavy, so that these configs are
