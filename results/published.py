"""DPO and IPO on the bandits of Azar et al. (arXiv 2310.12036, section 5), against what that paper says of them:

    python results/published.py            # two minutes

A policy that is a table, a uniform reference, and preferences without noise: one response is always preferred to another. The paper
derives for two of them that IPO's optimum gives the better one the probability sigmoid(1 / (2 tau)), and DPO's 1 whatever tau is. For
three under a total order the same loss is a least-squares problem: log-ratios 1 / (3 tau) apart. A third data set never shows
one of three as preferred; the paper has DPO remove it, and IPO not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignbench import PreferenceBatch, Seeds
from alignbench.plugins import Kind, registry
from alignbench.testing.tabular import VOCABULARY, TabularPolicy
from alignbench.testing.world import World

TAUS = (0.1, 0.5, 1.0)
UPDATES = 6000
Pairs = Sequence[tuple[str, str]]
TWO: Pairs = (("a", "b"),)
ORDER: Pairs = (("a", "b"), ("b", "c"), ("a", "c"))
NEVER_BEST: Pairs = (("a", "b"), ("b", "a"), ("a", "c"))


@dataclass(frozen=True)
class Bandit:
    name: str
    pairs: Pairs
    arms: str

    def optimum(self, tau: float) -> list[float]:
        """Of IPO: the log-ratios whose differences come nearest to 1 / (2 tau) for every pair, and the distribution that they make."""
        places = [[(arm == better) - (arm == worse) for arm in self.arms] for better, worse in self.pairs]
        wanted = torch.full((len(self.pairs), 1), 1 / (2 * tau), dtype=torch.float64)
        ratios = torch.linalg.lstsq(torch.tensor(places, dtype=torch.float64), wanted, driver="gelsd").solution.squeeze(
            1
        )
        return torch.softmax(ratios, 0).tolist()


BANDITS = (
    Bandit("two responses, one always preferred", TWO, "ab"),
    Bandit("three responses in a total order", ORDER, "abc"),
    Bandit("a and b as often preferred to each other, c never preferred", NEVER_BEST, "abc"),
)


def trained(algo: str, price: dict[str, float], bandit: Bandit, updates: int = UPDATES) -> list[float]:
    """The probabilities of the bandit's responses among each other after training from a uniform start, on every pair in each batch."""
    world = World(0, prompts=1, tokens=1, spread=0.0)
    policy: TabularPolicy = world.policy(reward_role=False)
    component = registry().get(Kind.ALGORITHM, algo)
    rows = len(bandit.pairs)
    config = component.config(
        updates=updates,
        batch_size=rows,
        micro_batch_size=rows,
        learning_rate=0.01,
        adam_eps=1e-8,
        lr_schedule="constant",
        **price,
    )
    optimizer = component.load()(config, policy=policy, updates=updates, seeds=Seeds(0).child("algorithm"))
    asked = world.asked(rows)
    chosen, rejected = (
        policy.samples(asked, [(VOCABULARY.index(pair[side]),) for pair in bandit.pairs]).sequences for side in (0, 1)
    )
    reference = [policy.logprobs(part, role="reference").logprobs.sum(1).detach() for part in (chosen, rejected)]
    batch = PreferenceBatch(chosen, rejected, None, *reference)
    for _ in range(updates):
        optimizer.update(batch)
    arms = [VOCABULARY.index(arm) - 1 for arm in bandit.arms]
    return torch.softmax(policy.logits.detach().double()[0, 0, arms], 0).tolist()


def shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def main() -> None:
    for bandit in BANDITS:
        print(f"\n{bandit.name} (probabilities of {', '.join(bandit.arms)})\n")
        print(
            "| tau | IPO's optimum | `ipo` | largest error | `dpo` at beta = tau |\n| ---: | --- | --- | ---: | --- |"
        )
        for tau in TAUS:
            optimum = bandit.optimum(tau)
            ipo, dpo = trained("ipo", {"tau": tau}, bandit), trained("dpo", {"beta": tau}, bandit)
            error = max(abs(one - other) for one, other in zip(ipo, optimum, strict=True))
            print(f"| {tau} | {shown(optimum)} | {shown(ipo)} | {error:.4f} | {shown(dpo)} |", flush=True)
    print(f"\nOf two the paper states sigmoid(1 / (2 tau)): {shown([1 / (1 + math.exp(-0.5 / tau)) for tau in TAUS])}.")


if __name__ == "__main__":
    main()
