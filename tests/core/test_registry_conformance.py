"""What holds for every component that is registered: a new plugin is tested here by being registered."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import io
import textwrap
import typing
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from alignbench import (
    REFERENCE,
    Annotator,
    Consumes,
    DataSource,
    DemonstrationBatch,
    Evaluation,
    OptimizerConfig,
    Policy,
    PolicyOptimizer,
    PreferenceBatch,
    PreferenceConfig,
    RewardSource,
    RolloutConfig,
    Seeds,
    Tracker,
)
from alignbench.experience import Batch, reference_logprobs
from alignbench.plugins import Component, Kind, registry
from tests import tiny

CONTRACTS: dict[Kind, type] = {
    Kind.ALGORITHM: PolicyOptimizer,
    Kind.MODEL: Policy,
    Kind.DATA: DataSource,
    Kind.REWARD: RewardSource,
    Kind.ANNOTATOR: Annotator,
    Kind.EVALUATION: Evaluation,
    Kind.TRACKER: Tracker,
}
WIRING = {
    Kind.ALGORITHM: {"policy", "updates", "seeds"},
    Kind.MODEL: {"tokenizer", "device", "seeds"},
    Kind.DATA: {"seeds"},
    Kind.REWARD: {"policy", "data", "seeds"},
    Kind.ANNOTATOR: {"data", "seeds"},
    Kind.EVALUATION: set(),
    Kind.TRACKER: {"directory", "run_name", "settings"},
}


def named(component: Component) -> str:
    return f"{component.kind.value}={component.name}"


EVERY = sorted(registry().components.values(), key=named)
ALGORITHMS = [
    component
    for component in EVERY
    if component.kind is Kind.ALGORITHM and component.config.consumes is not Consumes.NOTHING
]
every_component = pytest.mark.parametrize("component", EVERY, ids=named)
every_algorithm = pytest.mark.parametrize("component", ALGORITHMS, ids=named)


def test_every_kind_has_a_contract_and_a_component() -> None:
    assert set(CONTRACTS) == set(WIRING) == set(Kind) == {component.kind for component in EVERY}


# Configs


@every_component
def test_config_says_in_one_line_what_the_component_is(component: Component) -> None:
    assert dataclasses.is_dataclass(component.config)
    assert 10 < len(component.summary) <= 120
    assert component.summary[-1] in ".:" and "\n" not in component.summary


@every_component
def test_every_field_says_what_it_is(component: Component) -> None:
    for schema in component.config.__mro__:
        if not dataclasses.is_dataclass(schema):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation):
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert documented, f"{schema.__name__}.{ast.unparse(statement.target)} has no docstring"


@every_component
def test_config_survives_omegaconf(component: Component) -> None:
    config = component.config()
    node = OmegaConf.structured(component.config)
    assert OmegaConf.to_object(node) == config
    text = OmegaConf.to_yaml(node)
    again = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(component.config), OmegaConf.create(text)))
    assert type(again) is component.config
    assert again == config
    assert "component" not in {f.name for f in dataclasses.fields(component.config)}, "the core keeps its name there"


# Targets


@every_component
def test_target_keeps_its_contract(component: Component) -> None:
    target = component.load()
    made = target if inspect.isclass(target) else typing.get_type_hints(target)["return"]
    assert issubclass(made, CONTRACTS[component.kind])
    assert not inspect.isabstract(made)


@every_component
def test_target_takes_its_config_and_the_wiring_of_its_kind(component: Component) -> None:
    signature = inspect.signature(component.load())
    wiring = dict.fromkeys(WIRING[component.kind])
    signature.bind(component.config(), **wiring)
    (first, *_) = signature.parameters.values()
    assert first.default is inspect.Parameter.empty, "the config has no second default"


# Algorithms


def small(component: Component, **changes: Any) -> OptimizerConfig:
    """The algorithm's defaults at a small size; groups of responses keep theirs."""
    size = {"updates": 4, "batch_size": len(tiny.PROMPTS) * responses(component.config())}
    size |= {"micro_batch_size": 5, "learning_rate": 1e-2}
    return dataclasses.replace(component.config(), **(size | changes))  # type: ignore[call-overload]


def responses(config: Any) -> int:
    """To each prompt of a batch: as many as the algorithm compares, at least two."""
    return max(getattr(config, "samples_per_prompt", 1), 2)


def batch(policy: tiny.HFPolicy, config: OptimizerConfig, seed: int = 0) -> Batch:
    consumes = config.consumes
    if consumes is Consumes.ROLLOUTS:
        return tiny.scored(policy, n=responses(config), seed=seed)
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(tiny.PROMPTS), generator=rng).tolist() * 2
    prompts = [tiny.PROMPTS[i] for i in order]
    encoded = policy.encode(prompts, [" ".join("abc"[: 1 + i % 3]) for i in order]).sequences
    if consumes is Consumes.DEMONSTRATIONS:
        return DemonstrationBatch(encoded)
    rejected = policy.encode(prompts, ["h"] * len(prompts)).sequences
    known = torch.linspace(0.5, 0.9, len(prompts))
    ref = [reference_logprobs(policy, side) for side in (encoded, rejected)]
    return PreferenceBatch(encoded, rejected, known, *ref)


class Trial:
    """An algorithm on a small policy that stands at its reference, with the batches that it is fed."""

    def __init__(self, component: Component, *, adapters: bool = False, seed: int = 0, **changes: Any) -> None:
        self.policy = tiny.adapters() if adapters else tiny.scratch()
        self.policy.freeze_reference()
        self.config = small(component, **changes)
        self.optimizer: PolicyOptimizer[Any] = component.load()(
            self.config, policy=self.policy, updates=4, seeds=Seeds(seed)
        )
        self.updates = 0
        self.fixed = tiny.sequences(self.policy)
        self.at_start = self.logprobs(REFERENCE)

    def update(self) -> Any:
        self.updates += 1
        return self.optimizer.update(batch(self.policy, self.config, seed=self.updates))

    def weights(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.policy.trainable()]

    def logprobs(self, role: str) -> Tensor:
        with torch.no_grad():
            return self.policy.logprobs(self.fixed, role=role).logprobs


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@every_algorithm
def test_algorithm_declares_what_it_consumes(component: Component) -> None:
    assert issubclass(component.config, OptimizerConfig)
    assert isinstance(component.config.consumes, Consumes)
    assert issubclass(component.config, RolloutConfig) == (component.config.consumes is Consumes.ROLLOUTS)
    assert issubclass(component.config, PreferenceConfig) == (component.config.consumes is Consumes.PREFERENCES)
    assert "consumes" not in {f.name for f in dataclasses.fields(component.config)}, "no user may change it"


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "adapters"])
@every_algorithm
def test_update_moves_the_policy_and_nothing_else(component: Component, adapters: bool) -> None:
    trial = Trial(component, adapters=adapters)
    before = trial.weights()
    frozen = {id(p): p.detach().clone() for p in all_parameters(trial.policy) if not p.requires_grad}
    report = trial.update()
    assert not equal(trial.weights(), before)
    assert all(bool(torch.isfinite(weight).all()) for weight in trial.weights())
    assert torch.equal(trial.logprobs(REFERENCE), trial.at_start), "the reference stands still"
    assert all(torch.equal(p, frozen[id(p)]) for p in all_parameters(trial.policy) if id(p) in frozen)
    assert not torch.equal(trial.logprobs("policy"), trial.at_start)
    assert report.optimizer_steps > 0
    assert report.metrics
    for name, value in report.metrics.items():
        assert isinstance(value, float), f"{name} is {type(value).__name__}"
        assert torch.isfinite(torch.tensor(value)), f"{name} is {value}"


def all_parameters(policy: tiny.HFPolicy) -> list[torch.nn.Parameter]:
    roles = policy._roles
    models = [roles.use(role) for role in ("policy", REFERENCE)]
    return [parameter for model in models for parameter in model.parameters()]


@every_algorithm
def test_it_reports_the_steps_that_it_made(component: Component) -> None:
    trial, made = Trial(component), []
    hook = register_optimizer_step_post_hook(lambda *_: made.append(1))
    try:
        reported = [trial.update().optimizer_steps for _ in range(2)]
    finally:
        hook.remove()
    assert sum(reported) == len(made) > 0


@every_algorithm
def test_same_seed_same_updates(component: Component) -> None:
    def run(seed: int) -> tuple[list[dict[str, float]], list[Tensor]]:
        trial = Trial(component, seed=seed)
        return [dict(trial.update().metrics) for _ in range(2)], trial.weights()

    (metrics, weights), (again, same) = run(0), run(0)
    assert metrics == again
    assert equal(weights, same)


@every_algorithm
def test_micro_batches_change_memory_alone(component: Component) -> None:
    whole, pieces = Trial(component, micro_batch_size=64), Trial(component, micro_batch_size=5)
    one, other = whole.update(), pieces.update()
    assert one.optimizer_steps == other.optimizer_steps
    for left, right in zip(whole.weights(), pieces.weights(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-3)


@every_algorithm
def test_learning_rate_follows_its_schedule(component: Component) -> None:
    """With a rate of 0 an update moves nothing: the step is the optimizer's, and it asks the schedule."""
    trial = Trial(component, learning_rate=0.0)
    before = trial.weights()
    trial.update()
    assert equal(trial.weights(), before)


@every_algorithm
def test_goes_on_from_its_state(component: Component) -> None:
    """State is all that an optimizer keeps: put back, the next update is the one that would have come; the state of
    the start in its place gives another."""
    plain, restored, reset = Trial(component), Trial(component), Trial(component)
    start = saved(reset.optimizer.state_dict())
    for trial in (plain, restored, reset):
        trial.update()
    state = saved(restored.optimizer.state_dict())
    restored.optimizer.load_state_dict(start)
    restored.optimizer.load_state_dict(state)
    reset.optimizer.load_state_dict(start)
    reports = [trial.update() for trial in (plain, restored, reset)]
    assert equal(plain.weights(), restored.weights())
    assert reports[0].metrics == reports[1].metrics
    assert not equal(plain.weights(), reset.weights())


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file, as a resumed run would read it: plain values and tensors, no pickled objects."""
    buffer = io.BytesIO()
    torch.save(copy.deepcopy(state), buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded
