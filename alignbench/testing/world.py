"""A world small enough to write down: prompts, every response to them, its probability and its reward.

What theory says of an algorithm can be computed here to the last digit, so that a trained policy is compared with the
distribution it should converge to, not with a curve that looks right.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from alignbench import functional
from alignbench.contracts import Annotator, DataSource, RewardSource
from alignbench.pipeline.experience import Asked, collect_rankings, drawn, reference_logprobs
from alignbench.records import (
    POLICY,
    Demonstration,
    ExactProblem,
    Message,
    Opinion,
    Prompt,
    Ranking,
    Reference,
    Samples,
    ScoredRollout,
    Sequences,
    Split,
    Verdict,
)
from alignbench.records.batches import DemonstrationBatch, LabelledBatch, PreferenceBatch
from alignbench.records.source import Source
from alignbench.seeds import Seeds
from alignbench.testing.tabular import EOS, LETTERS, TabularPolicy

_TEXTS = [" ".join(word) for size in (1, 3, 2) for word in itertools.product(LETTERS, repeat=size)]


def make_prompts(count: int) -> tuple[Prompt, ...]:
    """Prompts of one to three letters, each with a letter as its reference answer; neighbours in pairs ask one question under two
    opinions."""
    opinions = (Opinion.NONE, Opinion.WRONG)
    step = len(LETTERS) + 1
    return tuple(
        Prompt(
            f"p{i}",
            (Message("user", _TEXTS[i * step % len(_TEXTS)]),),
            opinions[i % 2],
            f"cluster{i // 2}",
            reference=Reference(answer=LETTERS[i % len(LETTERS)]),
        )
        for i in range(count)
    )


class World:
    """A random reference and random rewards of standard deviation 1, both by `seed`, over every response of at most
    `tokens` tokens to `prompts` prompts. `alike`: a response is worth the same to every prompt."""

    def __init__(
        self, seed: int = 0, *, prompts: int = 2, tokens: int = 2, spread: float = 0.7, alike: bool = False
    ) -> None:
        self.seeds = Seeds(seed)
        self.prompts = make_prompts(prompts)
        self._start = TabularPolicy(self.prompts, seeds=self.seeds, max_response_tokens=tokens, spread=spread)
        self._start.freeze_reference()
        completions = self._start.completions()
        self._index = {ids: column for column, ids in enumerate(completions)}
        self._row = {prompt.id: row for row, prompt in enumerate(self.prompts)}
        _, states = self._start.states(everything := self.everything())
        last = states.gather(1, everything.response_mask.sum(1, keepdim=True))[: len(completions), 0]
        self._column = torch.zeros(int(last.max()) + 1, dtype=torch.long)
        self._column[last] = torch.arange(len(completions))
        rewards = torch.randn(prompts, len(completions), generator=self.seeds.torch("rewards")).double()
        rewards = rewards[:1].expand_as(rewards) if alike else rewards
        self.problem = ExactProblem(completions, self.distribution(self._start), rewards)

    def policy(self, *, moved: float = 0.0, reward_role: bool = True) -> TabularPolicy:
        """A policy that stands at the reference, or `moved` away from it by noise on its logits. With `reward_role` it
        brings a scalar role "reward" of random numbers, as a run brings its reward model."""
        policy = self._start.clone()
        with torch.no_grad():
            if reward_role:
                table = policy.scalar("reward").table
                table.copy_(torch.randn(table.shape, generator=self.seeds.torch("reward role")))
            noise = torch.randn(policy.logits.shape, generator=self.seeds.torch("moved"))
            policy.logits.add_(moved * noise)
        return policy

    def opposed(self) -> World:
        """The same world, where what was best is worst."""
        other = copy.copy(self)
        other.problem = dataclasses.replace(self.problem, rewards=-self.problem.rewards)
        return other

    # Exact figures

    def everything(self) -> Sequences:
        """Every response to every prompt, prompt by prompt."""
        asked = [prompt for prompt in self.prompts for _ in self._index]
        return self._start.samples(asked, list(self._index) * len(self.prompts)).sequences

    def distribution(self, policy: TabularPolicy, role: str = POLICY) -> Tensor:
        """The probability of every response to every prompt, [X, Y] float64."""
        with torch.no_grad():
            logprobs = policy.logprobs(self.everything(), role=role).logprobs.double().sum(1)
        probabilities = logprobs.reshape(len(self.prompts), -1).exp()
        return probabilities / probabilities.sum(1, keepdim=True)

    def expected_reward(self, distribution: Tensor) -> float:
        """Mean over prompts of the expected reward of a response."""
        return float((distribution * self.problem.rewards).sum(1).mean())

    def index(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """The row and the column of each response in the tables of `problem`."""
        rows = torch.tensor([self._row[prompt.id] for prompt in samples.prompts])
        _, states = self._start.states(samples.sequences)
        last = samples.sequences.response_mask.sum(1, keepdim=True)
        return rows, self._column[states.gather(1, last).squeeze(1)]

    def rewards_of(self, samples: Samples) -> Tensor:
        """[B] float32: the known reward of each response."""
        return self.problem.rewards[self.index(samples)].float()

    # What algorithms are fed

    def asked(self, rows: int) -> list[Prompt]:
        """The prompts in turn, as often as it takes."""
        return [self.prompts[i % len(self.prompts)] for i in range(rows)]

    def rollout(
        self,
        policy: TabularPolicy,
        rows: int,
        rng: torch.Generator,
        *,
        n: int = 1,
        temperature: float = 1.0,
        role: str = POLICY,
        sources: Sequence[Source] = (),
    ) -> ScoredRollout:
        """`rows` responses, n to a prompt, scored by the known reward. `sources`, where there are any, draw in turn in the role's place."""
        asked = Asked(self.asked(rows // n), rng)
        rollout = drawn(policy, asked, sources or (Source(role),), n=n, temperature=temperature)
        return ScoredRollout(rollout, self.rewards_of(rollout.samples))

    def pairs(self, rows: int, rng: torch.Generator, *, reference: bool = True) -> PreferenceBatch:
        """Pairs of different responses drawn from the reference; which one is preferred is drawn by Bradley-Terry, and
        `probability` is what it was drawn with."""
        first, second = (
            torch.multinomial(self.problem.reference.repeat(4 * rows, 1), 1, generator=rng).squeeze(1) for _ in range(2)
        )
        row = torch.arange(len(first)) % len(self.prompts)
        kept = (first != second).nonzero().squeeze(1)[:rows]
        row, first, second = row[kept], first[kept], second[kept]
        wins = torch.sigmoid(self.problem.rewards[row, first] - self.problem.rewards[row, second])
        flipped = torch.rand(len(row), generator=rng, dtype=torch.float64) > wins
        chosen, rejected = torch.where(flipped, second, first), torch.where(flipped, first, second)
        better, worse = self._responses(row, chosen), self._responses(row, rejected)
        batch = PreferenceBatch(better, worse, torch.where(flipped, 1 - wins, wins).float())
        if not reference:
            return batch
        known = [reference_logprobs(self._start, side) for side in (better, worse)]
        return dataclasses.replace(batch, ref_chosen=known[0], ref_rejected=known[1])

    def labels(self, rows: int, rng: torch.Generator, *, reference: bool = True) -> LabelledBatch:
        """Pairs as `pairs` draws them, taken apart: the chosen response is good, the rejected one bad."""
        pairs = self.pairs(rows // 2, rng, reference=reference)
        neighbours = torch.arange(rows).reshape(2, -1).T.flatten()
        known = [side for side in (pairs.ref_chosen, pairs.ref_rejected) if side is not None]
        ref = torch.cat(known) if known else None
        both = functional.stacked(pairs.chosen, pairs.rejected)
        return LabelledBatch(both, torch.arange(rows) < rows // 2, ref).select(neighbours)

    def demonstrations(self, rows: int, rng: torch.Generator) -> DemonstrationBatch:
        """Responses drawn from `demonstrator`."""
        row = torch.arange(rows) % len(self.prompts)
        columns = torch.multinomial(self.demonstrator()[row], 1, generator=rng).squeeze(1)
        return DemonstrationBatch(self._responses(row, columns))

    def demonstrator(self) -> Tensor:
        """The distribution that demonstrations are drawn from: the reference tilted by the rewards."""
        return torch.softmax(self.problem.reference.log() + self.problem.rewards, 1)

    def _responses(self, rows: Tensor, columns: Tensor) -> Sequences:
        completions = [self.problem.completions[c] for c in columns.tolist()]
        return self._start.samples([self.prompts[r] for r in rows.tolist()], completions).sequences

    def text(self, column: int) -> tuple[str, bool]:
        """A response as text, and whether it ended by itself."""
        ids = self.problem.completions[column]
        return self._start.tokenizer.decode(ids, skip_special_tokens=True), EOS in ids

    def rankings(self, count: int, responses: int, rng: torch.Generator, annotator: BradleyTerry) -> list[Ranking]:
        """Responses drawn from the reference, ranked by the annotator, with ratings that say the same."""
        asked = self.asked(count)
        found = collect_rankings(self._start, annotator, asked, responses=responses, temperature=1.0, rng=rng)
        return [dataclasses.replace(ranking, scores=ratings(ranking.ranks)) for ranking in found]

    def reward(self, prompt: Prompt, response: str, finished: bool) -> float:
        """The known reward of one response given as text."""
        ids = (*self._start.tokenizer(response, add_special_tokens=False)["input_ids"], *[EOS] * finished)
        return float(self.problem.rewards[self._row[prompt.id], self._index[ids[: self._start.max_response_tokens]]])


def ratings(ranks: Sequence[int]) -> tuple[float, ...]:
    """The better by 0.4 for each rank."""
    return tuple(-0.4 * rank for rank in ranks)


class WorldData(DataSource):
    """The world as a data source: every prompt for training, `rankings`, and, where it `judges`, the truth about every response."""

    def __init__(self, world: World, *, judges: bool = True, rankings: Sequence[Ranking] = ()) -> None:
        self._world, self._judges, self._rankings = world, judges, tuple(rankings)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return self._world.prompts

    def demonstrations(self) -> Sequence[Demonstration]:
        texts = [self._world.text(column)[0] for column in range(len(self._world.problem.completions))]
        return [Demonstration(prompt, text) for prompt in self._world.prompts for text in texts]

    def rankings(self) -> Sequence[Ranking]:
        return self._rankings

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        if not self._judges:
            return None
        reward = self._world.reward(prompt, response, finished)
        return Verdict(reward, correct=reward > 0, agrees=reward < 0 if prompt.opinion is Opinion.WRONG else None)

    def counts(self) -> Mapping[str, int]:
        return {"prompts": len(self._world.prompts)}


class WorldReward(RewardSource):
    """The known reward as a reward source."""

    def __init__(self, world: World) -> None:
        self._world = world

    def score(self, samples: Samples) -> Tensor:
        return self._world.rewards_of(samples)


class BradleyTerry(Annotator):
    """Ranks by the known reward with Gumbel noise, which makes every pair a draw of Bradley-Terry (Luce 1959)."""

    def __init__(self, world: World, *, seeds: Seeds) -> None:
        self._world, self._rng = world, seeds.torch("annotator")

    def rank(self, prompt: Prompt, responses: Sequence[str], *, finished: Sequence[bool]) -> tuple[int, ...]:
        rewards = [self._world.reward(prompt, r, end) for r, end in zip(responses, finished, strict=True)]
        uniform = torch.rand(len(rewards), generator=self._rng, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
        noisy = torch.tensor(rewards).double() - torch.log(-torch.log(uniform))
        order = noisy.argsort(descending=True).tolist()
        return tuple(order.index(k) for k in range(len(order)))

    def preference(
        self, prompt: Prompt, first: str, second: str, *, finished: tuple[bool, bool] = (True, True)
    ) -> float | None:
        left, right = (self._world.reward(prompt, r, end) for r, end in zip((first, second), finished, strict=True))
        return float(torch.sigmoid(torch.tensor(left - right)))


def total_variation(left: Tensor, right: Tensor) -> float:
    """Half the sum of absolute differences, the mean over prompts."""
    return float(functional.total_variation(left, right).mean())


def exact_kl(left: Tensor, right: Tensor) -> float:
    """KL(left || right) in nats per response, the mean over prompts."""
    return float(functional.kl_divergence(left, right).mean())
