"""What the author of a component knows of it, for the conformance kit. See `contracts`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignbench.contracts.subject import Judge
from alignbench.records import Prompt


@dataclass(frozen=True)
class Case:
    """A response to a prompt, whether it ended by itself, and the score that it must get."""

    prompt: Prompt
    response: str
    value: float
    finished: bool = True


@dataclass(frozen=True)
class Known:
    """Settings of a component, and what it must give under them: written down by its author apart from its code, plainly, after the paper
    or the page that defines it. The conformance kit holds the component to it, and checks everything else under `options` too
    where the defaults alone cannot be built.

    `options`: of its config. In a text among them `{folder}` is a folder that holds `files` (text by name), and `{url}` an endpoint
    of the kit's that speaks OpenAI's chat completions and answers each question with `reply(its messages, as (role, content))`.

    `gives`, by kind. A reward: `(config, policy, data, samples)` to a number for each response. An annotator: `(config, data, prompt,
    responses, finished)` to the ranks, where chance plays no part. An evaluation: `(config, subject)` to `{metric: {example:
    value}}`, or the mean over examples in place of the latter, None where a metric is to be left out. A data source: `(config, source)` to what is wrong with it, in words, or nothing. `compares`, of a reward:
    `(config, first, second)` to what its `compare` gives of each pair. `cases`: of a reward that reads texts. `tolerance`: how far a
    number may be from what is stated, as a share of the largest.

    `loss`, of a reward that is fitted: `(config, scores, rankings)` to the loss of one batch whose responses got these scores, row
    after row, as a float64 tensor; `figures`, of the same: `(scores, rankings)` to figures of its report, by name, that follow
    from its raw scores of the held-out rankings.

    `answers`, of an evaluation: what a subject that reads ordinary text says to a prompt, `likely`: the log-probability that it gives to a
    text; `judge`: who judges then. Without `answers` the subjects are the kit's own."""

    options: Mapping[str, Any] = field(default_factory=dict)
    gives: Callable[..., Any] | None = None
    compares: Callable[..., Any] | None = None
    cases: Sequence[Case] = ()
    tolerance: float = 1e-4
    files: Mapping[str, str] = field(default_factory=dict)
    reply: Callable[[Sequence[tuple[str, str]]], str] | None = None
    loss: Callable[..., Any] | None = None
    figures: Callable[..., Mapping[str, float]] | None = None
    answers: Callable[[Prompt], str] | None = None
    likely: Callable[[Prompt, str], float] | None = None
    judge: Judge | None = None
