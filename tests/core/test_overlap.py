"""While somebody elsewhere scores a batch, the policy learns from the one before."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from alignbench_group.config import RLOOConfig
from alignbench_group.rloo import RLOO
from alignbench_ppo.config import PPOConfig
from alignbench_ppo.ppo import PPO
from torch import Tensor

from alignbench import PolicyOptimizer, RewardSource, Samples, ScoredRollout, Seeds, UserError
from alignbench.pipeline.experience import Overlapped, rollout_batches
from alignbench.pipeline.training import Trained, train
from alignbench.store import checkpoints
from alignbench.store.checkpoints import Checkpoints
from tests import tiny
from tests.core.harness import Command

UPDATES = 4
SEEDS = Seeds(0).child("overlap")
PPO_CONFIG = PPOConfig(updates=UPDATES, batch_size=4, learning_rate=2e-3, overlap=1, epochs=2, minibatches=1)
RLOO_CONFIG = RLOOConfig(updates=UPDATES, batch_size=8, learning_rate=2e-3, overlap=1)
ALGORITHMS = [(PPO, PPO_CONFIG), (RLOO, RLOO_CONFIG)]
SECONDS = 60.0


class Elsewhere(RewardSource):
    """The length of a response, by somebody who may be kept waiting."""

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.wait, self.threads = wait, set[str]()

    def score(self, samples: Samples) -> Tensor:
        self.threads.add(threading.current_thread().name)
        self.wait()
        return samples.sequences.response_mask.sum(1).float()


def go(
    kind: type[PolicyOptimizer[ScoredRollout]],
    config: PPOConfig | RLOOConfig,
    reward: RewardSource,
    *,
    told: Callable[[int, ScoredRollout], None] = lambda update, batch: None,
    folder: Path | None = None,
) -> tuple[tiny.HFPolicy, Trained]:
    policy = tiny.scratch()
    policy.freeze_reference()
    optimizer = kind(config, policy=policy, updates=UPDATES, seeds=SEEDS)
    ahead = Overlapped(policy, reward, tiny.PROMPTS, config, SEEDS)
    done = train(
        "stage",
        optimizer,
        lambda start: ahead.batches(UPDATES, start),
        policy=policy,
        updates=UPDATES,
        step=lambda stage, update, updates, metrics, batch, report: told(update, batch),
        checkpoints=Checkpoints(folder, "key") if folder else None,
        ahead=ahead,
    )
    return policy, done


@pytest.mark.parametrize(("kind", "config"), ALGORITHMS)
def test_a_batch_is_scored_while_the_one_before_is_learnt_from(kind: type, config: PPOConfig) -> None:
    """The scores of every batch but the first come only once the update before has ended: in turn, nothing would ever end."""
    updated = [threading.Event() for _ in range(UPDATES)]
    asked = iter(range(UPDATES))

    def wait() -> None:
        number = next(asked)
        assert number == 0 or updated[number - 1].wait(SECONDS), "the update before waits for these scores"

    reward = Elsewhere(wait)
    _, done = go(kind, config, reward, told=lambda update, batch: updated[update - 1].set())
    assert done.updates == UPDATES
    assert reward.threads and threading.current_thread().name not in reward.threads


@pytest.mark.parametrize(("kind", "config"), ALGORITHMS)
def test_a_batch_is_of_the_weights_of_one_update_earlier_and_says_so(kind: type, config: PPOConfig) -> None:
    seen: list[ScoredRollout] = []
    kept: list[list[Tensor]] = [[p.detach().clone() for p in tiny.scratch().trainable()]]

    def told(update: int, batch: ScoredRollout) -> None:
        seen.append(batch)
        kept.append([p.detach().clone() for p in policies[0].trainable()])

    policies: list[tiny.HFPolicy] = []
    scratch = tiny.scratch

    def once() -> tiny.HFPolicy:
        policies.append(scratch())
        return policies[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "scratch", once)
        _, done = go(kind, config, Elsewhere(), told=told)
    assert [batch.rollout.off_policy for batch in seen] == [False, True, True, True]
    assert done.metrics["sampler_gap"] > 0, "it is logged, and corrected for"
    policy = scratch()
    for number, batch in enumerate(seen):
        with torch.no_grad():
            for parameter, then in zip(policy.trainable(), kept[max(number - 1, 0)], strict=True):
                parameter.copy_(then)
        rollout = batch.rollout
        own = policy.logprobs(rollout.samples.sequences).logprobs.detach()
        assert torch.allclose(own, rollout.logprobs, atol=1e-5), number
        assert torch.equal(batch.scores, rollout.samples.sequences.response_mask.sum(1).float())


def test_the_prompts_are_those_that_are_asked_in_turn() -> None:
    """Ahead or not, batch after batch of the same prompts and chances; the first batch is the same altogether."""
    policy = tiny.scratch()
    ahead = list(Overlapped(policy, Elsewhere(), tiny.PROMPTS, PPO_CONFIG, SEEDS).batches(UPDATES, 0))
    turn = list(rollout_batches(policy, Elsewhere(), tiny.PROMPTS, PPO_CONFIG, updates=UPDATES, seeds=SEEDS))
    assert len(ahead) == len(turn) == UPDATES
    for mine, theirs in zip(ahead, turn, strict=True):  # nobody trains here: the weights never move
        assert mine.rollout.samples.texts == theirs.rollout.samples.texts
        assert mine.rollout.samples.prompts == theirs.rollout.samples.prompts
        assert torch.equal(mine.scores, theirs.scores)


@pytest.mark.parametrize(("kind", "config"), ALGORITHMS)
@pytest.mark.parametrize("at", [1, 2, UPDATES - 1])
def test_a_stopped_run_goes_on_with_what_it_had_sampled(
    kind: type, config: PPOConfig, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0)  # after every update
    whole, done = go(kind, config, Elsewhere())

    def stop(update: int, batch: ScoredRollout) -> None:
        if update == at + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(kind, config, Elsewhere(), told=stop, folder=tmp_path)
    first: list[ScoredRollout] = []
    again, finished = go(kind, config, Elsewhere(), told=lambda update, batch: first.append(batch), folder=tmp_path)
    assert len(first) == UPDATES - at, "it goes on, and does not begin again"
    assert first[0].rollout.off_policy
    assert all(torch.equal(a, b) for a, b in zip(whole.trainable(), again.trainable(), strict=True))
    assert finished.metrics == done.metrics


def test_what_the_scorer_raises_ends_the_training_with_its_words() -> None:
    calls: list[int] = []

    def wait() -> None:
        calls.append(1)
        if len(calls) == 2:
            time.sleep(0.2)  # so that the next batch is waiting already
            raise UserError("The judge gave no answer.")

    with pytest.raises(UserError, match=r"^The judge gave no answer\.$"):
        go(PPO, PPO_CONFIG, Elsewhere(wait))
    time.sleep(0.2)
    assert len(calls) == 2, "the judge is not asked again for a run that has ended"


def test_nothing_is_scored_after_the_end() -> None:
    calls: list[int] = []
    go(PPO, PPO_CONFIG, Elsewhere(lambda: calls.append(1)))
    assert len(calls) == UPDATES
    policy = tiny.scratch()
    assert list(Overlapped(policy, Elsewhere(), tiny.PROMPTS, PPO_CONFIG, SEEDS).batches(UPDATES, UPDATES)) == []


@pytest.fixture
def small_run(command: Command, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    yield lambda *options: command("model=micro", f"results_dir={tmp_path}", "algo.overlap=1", *options)


@pytest.mark.parametrize("algo", ["ppo", "grpo", "rloo"])
def test_a_reward_of_this_process_is_refused_in_one_line(algo: str, small_run: Callable[..., Command]) -> None:
    done = small_run(f"algo={algo}")
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if "overlap" in line]
    assert "reward=learned computes in this one" in line and "algo.overlap=0" in line


def test_only_0_and_1_are_taken() -> None:
    with pytest.raises(UserError, match="overlap"):
        dataclasses.replace(PPO_CONFIG, overlap=2)
