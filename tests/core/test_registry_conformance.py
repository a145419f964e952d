"""What the conformance kit cannot see, for every algorithm that is registered: updates of real models, adapters included.

Everything else that holds for a component is checked by the kit, in tests/testing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from alignbench import (
    REFERENCE,
    Consumes,
    DemonstrationBatch,
    LabelledBatch,
    OptimizerConfig,
    PolicyOptimizer,
    PreferenceBatch,
    Seeds,
    UserError,
    functional,
)
from alignbench.pipeline.experience import Batch, reference_logprobs
from alignbench.plugins import Component, Kind, registry
from alignbench.testing.checks import declined
from alignbench.testing.config import CONTRACTS, WIRING
from tests import tiny


def named(component: Component) -> str:
    return f"{component.kind.value}={component.name}"


EVERY = sorted(registry().components.values(), key=named)
ALGORITHMS = [
    component
    for component in EVERY
    if component.kind is Kind.ALGORITHM and component.config.consumes is not Consumes.NOTHING
]
every_algorithm = pytest.mark.parametrize("component", ALGORITHMS, ids=named)


def test_every_kind_has_a_contract_and_a_component() -> None:
    assert set(CONTRACTS) == set(WIRING) == set(Kind) == {component.kind for component in EVERY}


def small(component: Component, **changes: Any) -> OptimizerConfig:
    """The algorithm's defaults at a small size; groups of responses keep theirs."""
    size = {"updates": 4, "batch_size": len(tiny.PROMPTS) * responses(component.config())}
    size |= {"micro_batch_size": 5, "learning_rate": 1e-2, "adam_eps": 1e-5}
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
    if consumes is Consumes.LABELS:
        both = functional.stacked(encoded, rejected)
        return LabelledBatch(both, torch.arange(len(both)) < len(encoded), torch.cat(ref))
    return PreferenceBatch(encoded, rejected, known, *ref)


class Trial:
    """An algorithm on a small policy that stands at its reference, with the batches that it is fed."""

    def __init__(self, component: Component, *, adapters: bool = False, seed: int = 0, **changes: Any) -> None:
        self.policy = tiny.adapters() if adapters else tiny.scratch()
        self.policy.freeze_reference()
        self.config = small(component, **changes)
        if hasattr(self.config, "environment"):  # it trains in one of its own, which is not everywhere
            try:
                self.config.ready()
            except UserError as missing:
                pytest.skip(str(missing))
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
def test_micro_batches_change_memory_alone(component: Component) -> None:
    if reason := declined(component).get("micro_batches_change_memory_alone"):
        pytest.skip(f"declined: {reason}")
    whole, pieces = Trial(component, micro_batch_size=64), Trial(component, micro_batch_size=5)
    one, other = whole.update(), pieces.update()
    assert one.optimizer_steps == other.optimizer_steps
    for left, right in zip(whole.weights(), pieces.weights(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-3)
