"""The loop of every training stage, and how it stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from alignbench import DemonstrationBatch, NonFiniteError, PolicyOptimizer, PreferenceBatch, ScoredRollout, UpdateReport
from alignbench.pipeline.training import Trained, tokens, train
from tests import tiny

Move = Callable[[tiny.HFPolicy, int], UpdateReport]
Steps = list[tuple[str, int, int, Mapping[str, float]]]


class Moving(PolicyOptimizer[DemonstrationBatch]):
    """Adds 1 to every weight, then does what the test wants at this update."""

    def __init__(self, policy: tiny.HFPolicy, then: Move) -> None:
        self.policy, self.then, self.updates = policy, then, 0

    def update(self, batch: DemonstrationBatch) -> UpdateReport:
        self.updates += 1
        with torch.no_grad():
            for parameter in self.policy.trainable():
                parameter += 1.0
        return self.then(self.policy, self.updates)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def good(policy: tiny.HFPolicy, update: int) -> UpdateReport:
    return UpdateReport({"loss": 1 / update}, optimizer_steps=2)


def weights(policy: tiny.HFPolicy) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in policy.trainable()]


def moved(policy: tiny.HFPolicy, start: list[Tensor]) -> float:
    """By how much every weight has grown."""
    (distance,) = {round(float((p.detach() - s).mean()), 3) for p, s in zip(policy.trainable(), start, strict=True)}
    return distance


def go(policy: tiny.HFPolicy, then: Move, updates: int = 4) -> tuple[Trained, Steps]:
    steps: Steps = []
    batch = DemonstrationBatch(tiny.sequences(policy))
    done = train(
        "stage",
        Moving(policy, then),
        lambda done: [batch] * (updates - done),
        policy=policy,
        updates=updates,
        step=lambda *a: steps.append(a[:4]),
    )
    return done, steps


def fails(policy: tiny.HFPolicy, then: Move, match: str) -> Steps:
    steps: Steps = []
    batch = DemonstrationBatch(tiny.sequences(policy))
    with pytest.raises(NonFiniteError, match=match) as caught:
        train(
            "stage",
            Moving(policy, then),
            lambda done: [batch] * 4,
            policy=policy,
            updates=4,
            step=lambda *a: steps.append(a[:4]),
        )
    assert "\n" not in str(caught.value)
    return steps


def test_every_update_is_counted_and_told() -> None:
    policy = tiny.scratch()
    start = weights(policy)
    done, steps = go(policy, good)
    assert (done.updates, done.optimizer_steps, done.stopped) == (4, 8, None)
    assert done.tokens == 4 * int(tiny.sequences(tiny.scratch()).response_mask.sum())
    assert done.metrics == {"loss": 0.25}, "the last ones"
    assert steps == [("stage", update, 4, {"loss": 1 / update}) for update in (1, 2, 3, 4)]
    assert moved(policy, start) == 4


def test_whoever_watches_is_shown_what_was_learnt_from_and_all_that_was_said() -> None:
    policy, seen = tiny.scratch(), []
    batches = [DemonstrationBatch(tiny.sequences(policy)) for _ in range(2)]
    train(
        "stage",
        Moving(policy, good),
        lambda done: batches[done:],
        policy=policy,
        updates=2,
        step=lambda *a: seen.append(a[4:]),
    )
    assert all(shown is batch for (shown, _), batch in zip(seen, batches, strict=True))
    assert [report.metrics for _, report in seen] == [{"loss": 1.0}, {"loss": 0.5}]
    assert [report.optimizer_steps for _, report in seen] == [2, 2]


def test_an_optimizer_may_stop_early() -> None:
    policy = tiny.scratch()
    done, steps = go(policy, lambda _, update: UpdateReport({"kl": 1.0}, 1, "enough" if update == 2 else None))
    assert (done.updates, done.stopped, len(steps)) == (2, "enough", 2)


def test_nothing_to_do() -> None:
    done, steps = go(tiny.scratch(), good, updates=0)
    assert (done, steps) == (Trained(), [])


@pytest.mark.parametrize("at", [1, 3])
def test_an_update_that_fails_is_undone_and_named(at: int) -> None:
    def then(policy: tiny.HFPolicy, update: int) -> UpdateReport:
        if update == at:
            raise NonFiniteError("the loss is NaN.")
        return good(policy, update)

    policy = tiny.scratch()
    start = weights(policy)
    steps = fails(policy, then, rf"^stage, update {at} of 4: the loss is NaN\.$")
    assert len(steps) == at - 1
    assert moved(policy, start) == at - 1, "the step that was already made is taken back"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_stops_the_stage(value: float) -> None:
    policy = tiny.scratch()
    start = weights(policy)
    report = UpdateReport({"kl": 1.0, "loss": value}, 1)
    steps = fails(
        policy, lambda p, update: report if update == 2 else good(p, update), rf"update 2 of 4: loss is {value}"
    )
    assert (len(steps), moved(policy, start)) == (1, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_stops_the_stage(value: float) -> None:
    """The step itself may overflow, after a loss and a gradient that were finite."""

    def then(policy: tiny.HFPolicy, update: int) -> UpdateReport:
        if update == 2:
            with torch.no_grad():
                policy.trainable()[-1].view(-1)[0] = value
        return good(policy, update)

    policy = tiny.scratch()
    start = weights(policy)
    steps = fails(policy, then, "update 2 of 4: a weight became NaN or infinite")
    assert (len(steps), moved(policy, start)) == (1, 1)


def test_a_batch_that_cannot_be_made_is_named_by_the_update_that_needed_it() -> None:
    policy = tiny.scratch()

    def batches() -> Iterator[DemonstrationBatch]:
        yield DemonstrationBatch(tiny.sequences(policy))
        raise NonFiniteError("the reward is NaN.")

    with pytest.raises(NonFiniteError, match=r"^stage, update 2 of 4: the reward is NaN\.$"):
        train("stage", Moving(policy, good), lambda done: batches(), policy=policy, updates=4, step=lambda *_: None)


def test_other_errors_are_left_alone() -> None:
    def then(policy: tiny.HFPolicy, update: int) -> UpdateReport:
        raise ZeroDivisionError("a fault of the plugin")

    with pytest.raises(ZeroDivisionError, match="^a fault of the plugin$"):
        go(tiny.scratch(), then)


def test_tokens_of_every_kind_of_batch() -> None:
    policy = tiny.scratch()
    scored = tiny.scored(policy)
    sequences = scored.rollout.samples.sequences
    responses = int(sequences.response_mask.sum())
    assert 0 < responses < sequences.response_ids.numel(), "there is padding that must not count"
    assert tokens(DemonstrationBatch(sequences)) == responses
    assert tokens(ScoredRollout(scored.rollout, scored.scores)) == responses
    assert tokens(PreferenceBatch(sequences, sequences.select(slice(0, 1)))) == responses + int(
        sequences.response_mask[0].sum()
    )
