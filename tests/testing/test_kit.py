"""The kit as its users meet it: the command, the classes to subclass, and the configs that it refuses."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import textwrap
import unittest
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from alignbench import Consumes, FitReport, FittableRewardSource, OptimizerConfig, RolloutConfig, UserError, functional
from alignbench import testing as kit
from alignbench.commands.check import main, resolve
from alignbench.plugins import Component, Kind, Registry, registry
from alignbench.selection import with_defaults
from alignbench.testing import PropertyBroken, Status, check, checks_of, conformance
from alignbench.testing.checks import run_checks
from tests.testing.faults import FAULTS, planted

# The command


def counted(out: str, name: str) -> tuple[int, int]:
    """How many checks the last line of a component counts, and how many of them as declined; none failed."""
    (found,) = re.findall(rf"^{name}: (\d+) ok, 0 failed, (\d+) not applicable, (\d+) declined, in ", out, re.MULTILINE)
    assert int(found[0]) > 2
    return sum(map(int, found)), int(found[2])


def test_a_component_that_conforms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluation=helpfulness", "length", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "evaluation=helpfulness (alignbench" in out
    assert "ok       specs_cover_every_metric: " in out
    assert counted(out, "reward=length") == (len(checks_of(resolve("length"))), 0)
    (line,) = (line for line in out.splitlines() if "scores_do_not_depend_on_padding" in line)
    assert line.endswith("change no score. [a difference of 0, of at most 1e-05]")


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
    with pytest.raises(UserError, match=r"^algo\.\*: no algo was named beside it.* Choices: .*dpo, "):
        main(["length", "algo.epochs=2"])
    with pytest.raises(UserError, match=r"no algo was named beside it"):
        main(["algo.epochs=2"])
    with pytest.raises(
        UserError, match=r"^Unknown kind of component 'rewards' in rewards.scale=2\. Did you mean 'reward'\?"
    ):
        main(["length", "rewards.scale=2"])
    with pytest.raises(UserError, match=r"^Unknown key 'scal' in reward\. Did you mean 'scale'\? Choices: "):
        main(["length", "reward.scal=2"])
    with pytest.raises(UserError, match=r"^Unknown kind of component 'scale'\..*Choices: .*as algo\.scale=2\.$"):
        main(["length", "scale=2"])
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
    made = [result.status for name in ("best_of_n", "helpfulness", "reward=length") for result in check(name)]
    skipped = made.count(Status.NOT_APPLICABLE) + len(conformance.ALGORITHM_CHECKS) - len(conformance.STILL_CHECKS)
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
    assert results["config_round_trips"].status is Status.OK
    failed = [result for result in results.values() if result.status is Status.FAILED]
    place = f"tests/testing/test_kit.py:{RAISES} in __init__"
    told, *others = (result.line() for result in failed if result.check.name != "target_keeps_its_contract")
    assert told == f"FAILED   {CHECKED}: It raised RuntimeError at {place}: no more after 1."
    assert len(others) > 2
    assert all(line.endswith(f": As above: the RuntimeError of {CHECKED} at {place}.") for line in others)


def test_an_exception_in_place_of_another_is_shown_with_its_line() -> None:
    """A property may be broken by an exception."""
    config = make_dataclass("Own", [], bases=(resolve("rloo").config,))
    broken = replace(resolve("rloo"), config=config, target="tests.testing.test_kit:Stumbles")
    checks = [each for each in checks_of(broken) if each.name == "refuses_what_is_not_finite"]
    (result,) = run_checks(checks, broken)
    (line,) = (n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# Stumbles"))
    assert result.detail.endswith(
        f"IndexError in place of NonFiniteError. See tests/testing/test_kit.py:{line} in update."
    )


class Raises:
    made = 0

    def __init__(self, config: object) -> None:
        Raises.made += 1
        raise RuntimeError(f"no more after {Raises.made}")


RAISES = Raises.__init__.__code__.co_firstlineno + 2
CHECKED = "specs_cover_every_metric"


class Stumbles(resolve("rloo").load()):  # type: ignore[misc]
    def update(self, batch: Any) -> Any:
        if not bool(batch.scores.isfinite().all()):
            raise IndexError("nothing there")  # Stumbles
        return super().update(batch)


# Checks that an author declines


def declining(**attributes: Any) -> Component:
    """`length`, whose author declines checks."""
    known = resolve("length")
    told = {"__doc__": known.config.__doc__, "__module__": known.config.__module__}
    return replace(known, config=type("Mine", (known.config,), told | attributes))


def test_a_check_may_be_declined_with_a_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    component = declining(declines={"scoring_changes_nothing": "it asks an endpoint"})
    monkeypatch.setattr("alignbench.commands.check.resolve", lambda name: component)
    assert main(["length"]) == 0
    out = capsys.readouterr().out
    assert "  declined scoring_changes_nothing: it asks an endpoint\n" in out
    assert counted(out, "reward=length") == (len(checks_of(component)), 1)
    with pytest.raises(unittest.SkipTest, match="^declined: it asks an endpoint"):
        kit.RewardConformance().test_scoring_changes_nothing(component)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("declines", "said"),
    [
        (
            {"scoring_changes": "no"},
            r"^Unknown check 'scoring_changes' in Mine\.declines\. .*Choices: .*scoring_changes_nothing",
        ),
        ({"scoring_changes_nothing": " "}, r"^Mine\.declines gives no reason for declining 'scoring_changes_nothing'"),
        ({"reaches_its_optimum": "no"}, r"^Unknown check 'reaches_its_optimum'"),
        (["scoring_changes_nothing"], r"^Mine\.declines must map the name of a check to the reason"),
    ],
)
def test_what_cannot_be_declined(declines: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        list(check(declining(declines=declines)))


def test_a_user_declines_nothing() -> None:
    option = field(default_factory=lambda: {"scoring_changes_nothing": "no"})
    config = make_dataclass("Mine", [("declines", dict[str, str], option)], bases=(resolve("length").config,))
    with pytest.raises(UserError, match="^Mine.declines is an option, so that a user could change it"):
        list(check(replace(resolve("length"), config=config)))


# What a check must let pass


class Timid(resolve("dpo").load()):  # type: ignore[misc]
    """Learns as DPO does, and names no optimum."""

    @classmethod
    def optimum(cls, config: Any, problem: Any) -> None:
        return None


class Deaf(resolve("rloo").load()):  # type: ignore[misc]
    """Learns to write at length, whatever the score."""

    @classmethod
    def optimum(cls, config: Any, problem: Any) -> None:
        return None

    def update(self, batch: Any) -> Any:
        return super().update(replace(batch, scores=batch.rollout.samples.sequences.response_mask.sum(1).float()))


class PromptBlind(FittableRewardSource):
    """A number for every text, whatever it answers, by Bradley-Terry."""

    sign = 1.0

    def __init__(self, config: Any, *, policy: Any, data: Any, seeds: Any) -> None:
        self.worth: dict[str, float] = {}

    def fit(
        self, rankings: Any, held_out: Any, baseline: Any, *, annotator: Any, progress: Any, state: Any = None
    ) -> FitReport:
        pairs = [pair for ranking in rankings for pair in functional.ranking_to_pairs(ranking)]
        for number in range(20):
            for pair in pairs:
                better, worse = self.worth.get(pair.chosen, 0.0), self.worth.get(pair.rejected, 0.0)
                step = self.sign * 0.05 / (1 + math.exp(better - worse))
                self.worth |= {pair.chosen: better + step, pair.rejected: worse - step}
            progress(number + 1, 20, {})
        return FitReport({})

    def score(self, samples: Any) -> torch.Tensor:
        return torch.tensor([self.worth.get(text, 0.0) for text in samples.texts])

    def save(self, path: Path) -> None:
        (path / "worth.json").write_text(json.dumps(self.worth))

    def load(self, path: Path) -> None:
        self.worth = json.loads((path / "worth.json").read_text())


class Perverse(PromptBlind):
    sign = -1.0


def ran(name: str, check_name: str, seed: int = 0, **changes: Any) -> str | None:
    """The margin of one check of a component."""
    component = replace(resolve(name), **changes)
    (found,) = (each for each in checks_of(component) if each.name == check_name)
    return found.run(component, seed)


@pytest.mark.parametrize("target", ["alignbench_dpo.offline:DPO", "tests.testing.test_kit:Timid"])
def test_a_small_rise_is_a_rise(target: str) -> None:
    """With beta=10 the reward can rise by .06 to .15 of its standard deviation, and no more."""
    config = with_defaults(resolve("dpo"), {"beta": 10.0}).config
    for seed in (0, 1):
        assert "of a standard deviation" in str(ran("dpo", "rewards_rise", seed, config=config, target=target))


def test_a_score_that_is_not_used_is_no_rise() -> None:
    for seed in (0, 1):
        with pytest.raises(
            PropertyBroken, match=r"^It rose by .* and by .* where all rewards are opposite: both above 0"
        ):
            ran("rloo", "rewards_rise", seed, target="tests.testing.test_kit:Deaf")


def test_a_reward_may_ignore_prompts() -> None:
    for seed in range(3):
        assert str(ran("learned", "fitting_predicts_rankings", seed, target="tests.testing.test_kit:PromptBlind"))
    with pytest.raises(PropertyBroken, match=r"^Its accuracy .* at least 0\.58\."):
        ran("learned", "fitting_predicts_rankings", target="tests.testing.test_kit:Perverse")


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


def test_the_schedule_is_judged_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the helper that algorithms share must not be shared by the kit."""

    def constant(update: int, *, updates: int, schedule: str, warmup: int, options: object = None) -> float:
        return 1.0

    # Of the function itself, wherever it was imported to.
    monkeypatch.setattr(functional.learning_rate_at, "__code__", constant.__code__)
    component = registry().get(Kind.ALGORITHM, "sft")
    found = {one.name: one for one in checks_of(component)}
    for name in ("learning_rate_follows_its_schedule", "steps_are_those_of_adamw", "metrics_are_what_they_are_called"):
        with pytest.raises(PropertyBroken):
            found[name].run(component, 0)
