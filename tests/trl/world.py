"""A smaller exact world, a policy of a few thousand weights over it, and batches for any algorithm, drawn anew for every update."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from alignbench_exact.config import ExactDataConfig
from alignbench_exact.evaluation import every_completion
from alignbench_exact.source import ExactData
from alignbench_hf.build import build_scratch
from alignbench_hf.config import ScratchConfig
from torch import Tensor

from alignbench import (
    POLICY,
    REFERENCE,
    Consumes,
    ExactProblem,
    LabelledBatch,
    Prompt,
    Sampling,
    ScoredRollout,
    Seeds,
    Split,
    functional,
)
from alignbench.pipeline.experience import Batch, reference_logprobs
from alignbench.plugins import resolve
from alignbench.records.batches import PreferenceBatch

CPU = torch.device("cpu")


@dataclass
class World:
    """Two contexts, three letters, responses of at most two tokens: thirteen of them."""

    seed: int = 0

    def __post_init__(self) -> None:
        self.data = ExactData(
            ExactDataConfig(letters=3, contexts=2, train_prompts=2), seeds=Seeds(self.seed).child("data")
        )
        self.prompts: list[Prompt] = list(self.data.prompts(Split.EVALUATION))
        tokenizer = self.data.tokenizer()
        config = ScratchConfig(
            hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, initializer_range=0.4, max_prompt_tokens=2,
            max_response_tokens=2, scalar_head="linear", suppress_tokens=["<pad>"],
        )  # fmt: skip
        self.policy = build_scratch(config, tokenizer=tokenizer, device=CPU, seeds=Seeds(self.seed))
        self.policy.freeze_reference()
        found = every_completion(len(tokenizer), tokenizer.eos_token_id, 2)
        self.completions = tuple(c for c in found if tokenizer.pad_token_id not in c)
        self.sequences = self.policy.given(
            [p for p in self.prompts for _ in self.completions], [list(c) for c in self.completions] * len(self.prompts)
        )
        texts = self.policy.response_texts(self.completions)
        ended = [c[-1] == tokenizer.eos_token_id for c in self.completions]
        self.rewards = torch.tensor(
            [
                [self.data.reward(p, t, finished=e) for t, e in zip(texts, ended, strict=True)]
                for p in self.prompts
            ],
            dtype=torch.float64,
        )  # fmt: skip
        self.problem = ExactProblem(self.completions, self.distribution(REFERENCE), self.rewards)

    def distribution(self, role: str = POLICY) -> Tensor:
        with torch.no_grad():
            found = functional.summed_logprobs(self.policy, self.sequences, role=role)
        return found.double().exp().reshape(len(self.prompts), -1)

    def apart(self, optimum: Tensor) -> float:
        return float(functional.total_variation(self.distribution(), optimum).mean())

    def batch(self, config: Any, update: int) -> Batch:
        """Pairs and labels: of two responses of the reference that differ, the chosen one drawn by Bradley-Terry on their rewards."""
        rng = Seeds(self.seed).torch(f"batch {update}")
        if config.consumes is Consumes.ROLLOUTS:
            n = config.samples_per_prompt
            chosen = [self.prompts[i % len(self.prompts)] for i in range(config.batch_size // n)]
            rollout = self.policy.generate(chosen, Sampling(temperature=config.temperature), n=n, rng=rng)
            rows = zip(rollout.samples.prompts, rollout.samples.texts, rollout.samples.finished.tolist(), strict=True)
            return ScoredRollout(rollout, torch.tensor([self.data.reward(p, t, finished=e) for p, t, e in rows]))
        width = len(self.completions)
        context = torch.arange(config.batch_size) % len(self.prompts)
        two = torch.multinomial(self.problem.reference[context], 2, generator=rng)
        gap = self.rewards[context, two[:, 0]] - self.rewards[context, two[:, 1]]
        swapped = torch.rand(len(gap), generator=rng, dtype=torch.float64) > torch.sigmoid(gap)
        won, lost = torch.where(swapped[:, None], two.flip(1), two).unbind(1)
        sides = [self.sequences.select(context * width + side) for side in (won, lost)]
        ref = [reference_logprobs(self.policy, side) for side in sides]
        if config.consumes is Consumes.PREFERENCES:
            return PreferenceBatch(*sides, None, *ref)
        both = functional.stacked(*sides)
        order = torch.arange(len(both)).reshape(2, -1).T.flatten()
        good = torch.arange(len(both)) < config.batch_size
        return LabelledBatch(both, good, torch.cat(ref)).select(order)


class Trial:
    """An algorithm by name in a world of its own, fed update by update."""

    def __init__(self, name: str, *, seed: int = 0, updates: int = 4, **settings: Any) -> None:
        self.world, self.component = World(), resolve(name)
        small = {"updates": updates, "batch_size": 16, "micro_batch_size": 64}
        self.config: Any = dataclasses.replace(self.component.config(), **(small | settings))  # type: ignore[type-var]
        self.optimizer: Any = self.component.load()(
            self.config, policy=self.world.policy, updates=updates, seeds=Seeds(seed).child(name)
        )
        self.done = 0

    def update(self, times: int = 1) -> Any:
        for _ in range(times):
            report = self.optimizer.update(self.world.batch(self.config, self.done))
            self.done += 1
        return report

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten().clone() for p in self.world.policy.trainable()])

    @property
    def optimum(self) -> Tensor:
        found = self.component.load().optimum(self.config, self.world.problem)
        assert found is not None
        return found
