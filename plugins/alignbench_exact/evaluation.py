"""What an algorithm reached, against what could be reached: every response is written down and nothing is sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignbench import (
    DataSource,
    Direction,
    Evaluation,
    ExactProblem,
    ExampleScore,
    Generation,
    MetricSpec,
    Prompt,
    Split,
    Subject,
    UserError,
    functional,
)
from alignbench.functional import kl_divergence, total_variation
from alignbench_exact.config import ExactEvaluationConfig

SPECS = (
    MetricSpec("exact/total_variation", Direction.LOWER, "from pi* = pi_ref exp(r / beta) / Z, within [0, 1]"),
    MetricSpec("exact/own_total_variation", Direction.LOWER, "from the algorithm's own optimum, within [0, 1]"),
    MetricSpec("exact/kl_to_optimum", Direction.LOWER, "KL(pi || pi*), nats per response"),
    MetricSpec("exact/objective", Direction.HIGHER, "J = E[r] - beta KL(pi || pi_ref), reward"),
    MetricSpec("exact/objective_optimum", Direction.NEITHER, "J* = beta log Z, reward"),
    MetricSpec("exact/objective_gap", Direction.LOWER, "J* - J, reward"),
    MetricSpec("exact/kl", Direction.NEITHER, "KL(pi || pi_ref), nats per response"),
    MetricSpec("exact/uncovered_mass", Direction.NEITHER, "probability of responses that no data ever showed"),
)

KNOWN = {"length", "beta", "uncovered"}
"""What a prompt of the exact world tells."""


class ExactEvaluation(Evaluation):
    """Left out for prompts of any other data source."""

    def __init__(self, config: ExactEvaluationConfig) -> None:
        self.config = config

    def applies(self, data: DataSource, *, ordinary_text: bool) -> bool:
        return all(set(prompt.info) >= KNOWN for prompt in data.prompts(Split.EVALUATION)[:1])

    def specs(self) -> Sequence[MetricSpec]:
        return SPECS

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        prompts = [group[0].prompt for group in subject.by_prompt()]
        if not prompts or any(KNOWN - set(prompt.info) for prompt in prompts):
            return []
        beta, length = float(prompts[0].info["beta"]), int(prompts[0].info["length"])
        if (longest := max(generation.tokens for generation in subject.generations)) > length:
            raise UserError(
                f"The model gives responses of {longest} tokens where data.length={length}: set model.max_response_tokens="
                f"{length}, or choose model=micro."
            )
        world = written_down(subject, prompts, length)
        problem, reached = world.problem, world.reached
        best = functional.kl_optimum(problem.reference, problem.rewards, beta)
        divergence = kl_divergence(reached, problem.reference)
        objective = (reached * problem.rewards).sum(1) - beta * divergence
        highest = (best * problem.rewards).sum(1) - beta * kl_divergence(best, problem.reference)
        columns = {
            "exact/total_variation": total_variation(reached, best),
            "exact/kl_to_optimum": kl_divergence(reached, best),
            "exact/objective": objective,
            "exact/objective_optimum": highest,
            "exact/objective_gap": highest - objective,
            "exact/kl": divergence,
        }
        if (own := subject.optimum(problem)) is not None:
            columns["exact/own_total_variation"] = total_variation(reached, own)
        if bool(world.uncovered.any()):
            columns["exact/uncovered_mass"] = (reached * world.uncovered).sum(1)
        return [
            ExampleScore(name, prompt.id, value, prompt.cluster)
            for name, values in columns.items()
            for prompt, value in zip(prompts, values.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Enumerated:
    """The world, the distribution that the checkpoint gives [X, Y], and whether a response is uncovered [X, Y]."""

    problem: ExactProblem
    reached: Tensor
    uncovered: Tensor


def written_down(subject: Subject, prompts: Sequence[Prompt], length: int) -> Enumerated:
    """Every response to every prompt; those that a policy rules out (`model.suppress_tokens`) are left out."""
    completions = every_completion(len(subject.tokenizer), subject.tokenizer.eos_token_id, length)
    measured = [subject.measure([prompt] * len(completions), completions) for prompt in prompts]
    reference, reached = (distribution(measured, of) for of in (lambda g: g.ref_logprob, lambda g: g.logprob))
    if subject.candidates > 1:
        scores = torch.tensor([[chosen_by(g) for g in row] for row in measured], dtype=torch.double)
        reached = functional.best_of_n(reached, scores, subject.candidates)
    rewards = torch.tensor([[gold(g) for g in row] for row in measured], dtype=torch.double)
    uncovered = torch.tensor(
        [[(g.response, g.finished) in g.prompt.info["uncovered"] for g in row] for row in measured]
    )
    possible = (reference > 0).any(0)
    kept = tuple(y for y, can in zip(completions, possible.tolist(), strict=True) if can)
    problem = ExactProblem(kept, reference[:, possible], rewards[:, possible])
    return Enumerated(problem, reached[:, possible], uncovered[:, possible])


def every_completion(vocabulary: int, eos: int, length: int) -> tuple[tuple[int, ...], ...]:
    """Every response of at most `length` tokens: ended by EOS, or cut off."""
    found: list[tuple[int, ...]] = []
    prefixes: list[tuple[int, ...]] = [()]
    for _ in range(length):
        found += [(*prefix, eos) for prefix in prefixes]
        prefixes = [(*prefix, token) for prefix in prefixes for token in range(vocabulary) if token != eos]
    return tuple(found + prefixes)


def distribution(measured: Sequence[Sequence[Generation]], of: Callable[[Generation], float]) -> Tensor:
    """Probabilities of all responses, [X, Y] float64; rows sum to 1."""
    found = torch.tensor([[of(g) for g in row] for row in measured], dtype=torch.double).exp()
    assert float((found.sum(1) - 1).abs().max()) < 1e-3, "some response was not written down"
    return found / found.sum(1, keepdim=True)


def gold(generation: Generation) -> float:
    assert generation.verdict is not None, "the exact world knows the truth"
    return generation.verdict.gold_reward


def chosen_by(generation: Generation) -> float:
    assert generation.proxy_reward is not None, "candidates are chosen by a score"
    return generation.proxy_reward
