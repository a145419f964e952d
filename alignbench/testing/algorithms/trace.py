"""One update watched step by step: which rows each step learnt from, by which gradients, and where the weights went."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from alignbench import functional
from alignbench.optimizer_config import CorrectedConfig, RolloutConfig
from alignbench.pipeline.experience import Batch
from alignbench.records import POLICY, RewardParts, Rollout, Samples, ScoredRollout, Sequences, UpdateReport
from alignbench.records.batches import DemonstrationBatch, LabelledBatch, PreferenceBatch
from alignbench.seeds import Seeds
from alignbench.testing.tabular import TabularPolicy
from alignbench.testing.trial import Trial

SAMPLER_OFF = 0.1
"""Nats a token, the standard deviation of a sampler that is not the policy: within half of the default of sampler_gap_limit."""


@dataclass(frozen=True)
class RoleStep:
    """What a step did to the weights of one role. `gradient` is what the optimizer used, after any clipping; `betas` are None where
    it has none."""

    role: str
    before: Tensor
    gradient: Tensor
    after: Tensor
    rate: float
    betas: tuple[float, float] | None


@dataclass(frozen=True)
class Step:
    """`rows` of the batch that were asked for with gradients, of the policy or else of a scalar role, `most` of them at a time."""

    rows: Tensor
    most: int
    roles: tuple[RoleStep, ...]

    def role(self, name: str) -> RoleStep:
        return next(role for role in self.roles if role.role == name)


@dataclass(frozen=True)
class Update:
    """`start`: the weights of each role before the update."""

    batch: Batch
    start: dict[str, Tensor]
    steps: tuple[Step, ...]
    report: UpdateReport


def weights(policy: TabularPolicy) -> dict[str, torch.nn.Parameter]:
    """The table of each role, by its name."""
    return {POLICY: policy.logits, **{name: policy.role(name).table for name in policy.scalars()}}


def sequences_of(batch: Batch) -> Sequences:
    """Every response of a batch; of pairs, the chosen ones and below them the rejected ones."""
    if isinstance(batch, ScoredRollout):
        return batch.rollout.samples.sequences
    if isinstance(batch, PreferenceBatch):
        return functional.stacked(batch.chosen, batch.rejected)
    return batch.sequences


def traced(trial: Trial, batch: Batch) -> Update:
    """Makes an update and tells what happened in it."""
    policy = trial.policy
    tables = weights(policy)
    names = {id(table): name for name, table in tables.items()}
    keys = {int(key): row for row, key in enumerate(_keys(policy, sequences_of(batch)))}
    start = {name: table.detach().clone() for name, table in tables.items()}
    asked: list[Sequences] = []
    valued: list[Sequences] = []
    pending: list[list[Any]] = []
    steps: list[Step] = []

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        pending.append(
            [
                (names[id(p)], p, p.detach().clone(), torch.zeros_like(p) if p.grad is None else p.grad.clone(), group)
                for group in optimizer.param_groups
                for p in group["params"]
                if id(p) in names
            ]
        )

    def after(*_: Any) -> None:
        roles = tuple(
            RoleStep(name, old, gradient, p.detach().clone(), float(group["lr"]), group.get("betas"))
            for name, p, old, gradient, group in pending.pop()
        )
        # A step of a value network alone asks the policy nothing.
        passes = [[keys.get(int(key), -1) for key in _keys(policy, part)] for part in asked or valued]
        asked.clear()
        valued.clear()
        rows = torch.tensor([row for part in passes for row in part], dtype=torch.long)
        steps.append(Step(rows, max(map(len, passes), default=0), roles))

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    policy.listener, policy._value_listener = asked.append, valued.append
    try:
        report = trial.update(batch)
    finally:
        policy.listener = policy._value_listener = None
        for hook in hooks:
            hook.remove()
    return Update(batch, start, tuple(steps), report)


def _keys(policy: TabularPolicy, sequences: Sequences) -> Tensor:
    """One number for each prompt with its response."""
    prompts, states = policy.states(sequences)
    last = states.gather(1, sequences.response_mask.sum(1, keepdim=True).long()).squeeze(1)
    return prompts * policy._nodes(policy.max_response_tokens + 1) + last


def varied_batch(trial: Trial) -> Batch:
    """A batch in which no response comes twice, some scores tie, one pair is a toss-up and good labels are fewer than bad ones. Where
    the algorithm corrects for it, a sampler that is not quite the policy drew the responses. The scores of every second batch are sums of
    parts."""
    rng = Seeds(trial.seed).torch(f"varied batch {trial.updates}")
    if isinstance(trial.config, RolloutConfig):
        return _rollout(trial, trial.config, rng)
    batch = trial.batch()
    if isinstance(batch, PreferenceBatch) and batch.probability is not None:
        probability = batch.probability.clone()
        probability[0] = 0.5
        return dataclasses.replace(batch, probability=probability)
    if isinstance(batch, LabelledBatch):
        good = batch.good.clone()
        good[torch.randint(len(good), (len(good) // 4,), generator=rng)] = False
        return dataclasses.replace(batch, good=good)
    assert isinstance(batch, DemonstrationBatch | PreferenceBatch)
    return batch


def _rollout(trial: Trial, config: RolloutConfig, rng: torch.Generator) -> ScoredRollout:
    world, n = trial.world, config.samples_per_prompt
    groups = config.batch_size // n
    if -(-groups // len(world.prompts)) * n > len(world.problem.completions):
        raise ValueError(f"{config.batch_size} responses in groups of {n} cannot all differ in this world.")
    chances = world.distribution(trial.policy, config.samples_from).float()
    each = -(-groups // len(world.prompts)) * n
    columns = [torch.multinomial(row, each, generator=rng) for row in chances]
    prompts = torch.arange(groups) % len(world.prompts)
    taken = torch.stack(
        [columns[p][n * (g // len(columns)) : n * (g // len(columns)) + n] for g, p in enumerate(prompts.tolist())]
    )
    asked = [world.prompts[p] for p in prompts.tolist() for _ in range(n)]
    samples: Samples = trial.policy.samples(asked, [world.problem.completions[c] for c in taken.flatten().tolist()])
    scores = world.rewards_of(samples).reshape(groups, n)
    scores[0] = scores[0, 0]
    scores[1:2] = scores[1:2].round()
    by = [trial.policy.drawn_logprobs(samples.sequences, source, config.temperature) for source in config.sources]
    turn = torch.arange(len(samples))
    sampled, corrects = torch.stack(by)[turn % len(by), turn], isinstance(config, CorrectedConfig)
    if corrects:
        noise = SAMPLER_OFF * torch.randn(sampled.shape, generator=rng)
        sampled = torch.where(samples.sequences.response_mask.bool(), sampled + noise, 0.0)
    rollout = Rollout(samples, sampled, config.temperature, corrects)
    return ScoredRollout(rollout, scores.flatten(), None if trial.updates % 2 else split(scores, rng))


def split(scores: Tensor, rng: torch.Generator) -> RewardParts:
    """Parts that add up to the scores [N, k]: they differ where scores are all equal, and one of them is all equal in some groups."""
    first, second = (torch.randn(scores.shape, generator=rng) for _ in range(2))
    second[1::2] = second[1::2, :1]
    weights = (0.5, -1.5, 2.0)
    rest = (scores - weights[0] * first - weights[1] * second) / weights[2]
    return RewardParts(("first", "second", "rest"), weights, torch.stack([first, second, rest], -1).flatten(0, 1))
