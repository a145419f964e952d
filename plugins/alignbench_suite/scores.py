"""What the families share: one score per prompt, the mean over its responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from alignbench import ExampleScore, Generation, Opinion

Groups = Sequence[Sequence[Generation]]
"""Generations grouped by prompt; no group is empty."""


def mean(values: Iterable[float]) -> float | None:
    """The mean, or None of nothing."""
    present = list(values)
    return sum(present) / len(present) if present else None


def per_group(
    metric: str, groups: Groups, measure: Callable[[Sequence[Generation]], float | None]
) -> list[ExampleScore]:
    """One score per prompt; prompts for which `measure` gives None are left out, never counted as zero."""
    scores = []
    for group in groups:
        value = measure(group)
        if value is not None:
            prompt = group[0].prompt
            scores.append(ExampleScore(metric, prompt.id, float(value), prompt.cluster))
    return scores


def per_prompt(metric: str, groups: Groups, measure: Callable[[Generation], float | None]) -> list[ExampleScore]:
    """One score per prompt: the mean of `measure` over those of its responses for which it is not None.

    The prompt, not the response, is the example: responses to one prompt are not independent."""
    return per_group(metric, groups, lambda group: mean(v for g in group if (v := measure(g)) is not None))


def with_opinion(groups: Groups, opinion: Opinion) -> Groups:
    """The prompts in which the user states such an opinion."""
    return [group for group in groups if group[0].prompt.opinion is opinion]


def gold_reward(generation: Generation) -> float | None:
    return None if generation.verdict is None else generation.verdict.gold_reward


def correct(generation: Generation) -> float | None:
    return (
        None if generation.verdict is None or generation.verdict.correct is None else float(generation.verdict.correct)
    )
