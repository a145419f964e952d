"""Runs the chosen evaluations on a checkpoint."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from alignbench.app.config import EvalSettings
from alignbench.contracts import DataSource, Evaluation, Policy, RewardSource
from alignbench.contracts.subject import MeasuredRanking, Subject
from alignbench.evaluation.frontier import Frontier
from alignbench.evaluation.judge import SourceJudge
from alignbench.evaluation.preferences import measured
from alignbench.evaluation.respond import complete, given_samples, likelihoods, measure, respond
from alignbench.optimizer_config import ImplicitReward
from alignbench.records import (
    ExactProblem,
    ExampleScore,
    Generation,
    Message,
    Metric,
    MetricSpec,
    Prompt,
    Ranking,
    Sampling,
)
from alignbench.results.compared.statistics import summarise
from alignbench.seeds import Seeds


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation leaves behind: `generations` are the shared ones, `extra` what evaluations asked for."""

    generations: tuple[Generation, ...]
    extra: tuple[Generation, ...]
    scores: tuple[ExampleScore, ...]
    metrics: Mapping[str, Metric]

    @property
    def unanswered(self) -> Mapping[str, int]:
        """Of metrics that have no value because no example was answered: how many were asked."""
        return Counter(score.metric for score in self.scores if score.metric not in self.metrics)

    @property
    def whole(self) -> bool:
        return not self.unanswered and not any(metric.missing for metric in self.metrics.values())


def evaluation_prompts(prompts: Sequence[Prompt], settings: EvalSettings) -> list[Prompt]:
    """The prompts of the first `questions` questions; the twins of a question stay together."""
    clusters = list(dict.fromkeys(prompt.cluster or prompt.id for prompt in prompts))
    kept = set(clusters[: settings.questions] if settings.questions else clusters)
    return [prompt for prompt in prompts if (prompt.cluster or prompt.id) in kept]


def reads_ordinary_text(policy: Policy, data: DataSource) -> bool:
    """Whether its words are not those of a data source with a language of its own. A pretrained model brings its own, whatever
    data it is asked from."""
    language = data.tokenizer()
    return language is None or policy.tokenizer.get_vocab() != language.get_vocab()


@dataclass(frozen=True)
class Suite:
    """The chosen evaluations, with all that is the same for every checkpoint of one policy. `optimum`, `judge`, `implicit` and `frontier`:
    see Subject; `held_out`: rankings that nothing was trained on. Without `questionnaires` only the shared generations are
    scored, as if the data were no ordinary text."""

    policy: Policy
    data: DataSource
    evaluations: Sequence[Evaluation]
    settings: EvalSettings
    seeds: Seeds
    reward: RewardSource | None = None
    judge: SourceJudge | None = None
    optimum: Callable[[ExactProblem], Tensor | None] = lambda problem: None
    questionnaires: bool = True
    held_out: Sequence[Ranking] = ()
    implicit: ImplicitReward | None = None
    frontier: Frontier | None = None

    def evaluate(
        self,
        checkpoint: Path,
        prompts: Sequence[Prompt],
        *,
        baseline: tuple[Generation, ...] | None,
        candidates: int = 1,
    ) -> Evaluated:
        """Evaluates the policy, whose weights are those of `checkpoint`. `baseline`: the SFT model's generations, or None if this
        is the SFT model; `candidates`: see Subject."""
        settings, seeds, policy = self.settings, self.seeds, self.policy

        def sample(asked: Sequence[Prompt], n: int, name: str) -> tuple[Generation, ...]:
            if not asked:
                return ()
            return respond(
                policy,
                asked,
                n=n,
                temperature=settings.temperature,
                data=self.data,
                reward=self.reward,
                rng=seeds.torch(name),
                candidates=candidates,
            )

        def given(asked: Sequence[Prompt], responses: Sequence[Sequence[int]]) -> tuple[Generation, ...]:
            return measure(policy, given_samples(policy, asked, responses), data=self.data, reward=self.reward)

        def preferences(limit: int) -> tuple[MeasuredRanking, ...]:
            rankings = self.held_out[: limit or None] if self.questionnaires else ()
            return measured(policy, rankings, reference=self.implicit is not None)

        ordinary_text = self.questionnaires and reads_ordinary_text(policy, self.data)
        generations = sample(prompts, settings.samples, "generations")
        extra: list[Generation] = []
        greedy: dict[tuple[tuple[Message, ...], Sampling], Generation] = {}
        specs: list[MetricSpec] = []
        scores: list[ExampleScore] = []
        for evaluation in self.evaluations:
            # Numbered within the evaluation: what one of them asks for never shifts the samples of another.
            numbers, name = itertools.count(), type(evaluation).__name__

            def more(
                asked: Sequence[Prompt], n: int, name: str = name, numbers: Iterator[int] = numbers
            ) -> tuple[Generation, ...]:
                found = sample(asked, n, f"{name} {next(numbers)}")
                extra.extend(found)
                return found

            def completions(
                asked: Sequence[Prompt], n: int, sampling: Sampling, name: str = name, numbers: Iterator[int] = numbers
            ) -> tuple[Generation, ...]:
                rng = seeds.torch(f"{name} {next(numbers)}")
                if sampling.top_k != 1:
                    found = complete(policy, asked, n=n, sampling=sampling, rng=rng)
                else:  # greedy decoding leaves nothing to chance: several questionnaires may begin with the same question
                    new = {(p.messages, sampling): p for p in asked if (p.messages, sampling) not in greedy}
                    answers = complete(policy, list(new.values()), n=1, sampling=sampling, rng=rng)
                    greedy.update(zip(new, answers, strict=True))
                    found = tuple(
                        replace(greedy[p.messages, sampling], prompt=p, index=i) for p in asked for i in range(n)
                    )
                extra.extend(found)
                return found

            subject = Subject(
                checkpoint=checkpoint,
                generations=generations,
                baseline=baseline or generations,
                tokenizer=policy.tokenizer,
                respond=more,
                measure=given,
                candidates=candidates,
                optimum=self.optimum,
                complete=completions,
                likelihoods=partial(likelihoods, policy),
                ordinary_text=ordinary_text,
                judge=self.judge,
                preferences=preferences,
                implicit=self.implicit,
                frontier=self.frontier,
            )
            specs.extend(evaluation.specs())
            scores.extend(evaluation.evaluate(subject))
        return Evaluated(generations, tuple(extra), tuple(scores), summarise(scores, specs))
