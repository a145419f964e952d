"""Evaluation of a checkpoint: the responses, what is measured of them, and who gets to see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignbench import (
    DataSource,
    Direction,
    Evaluation,
    ExampleScore,
    Generation,
    Message,
    MetricSpec,
    NonFiniteError,
    Prompt,
    RewardSource,
    Samples,
    Sampling,
    Seeds,
    Sequences,
    Split,
    Subject,
    UserError,
    Verdict,
)
from alignbench.app.config import EvalSettings
from alignbench.evaluation.judge import SourceJudge
from alignbench.evaluation.respond import respond
from alignbench.evaluation.suite import Evaluated, Suite, evaluation_prompts
from alignbench.testing.world import World
from tests import tiny


class Judging(DataSource):
    """Its truth: how many letters a response has; the sign says whether it was cut off."""

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return tiny.PROMPTS

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        return Verdict(len(response.split()) * (1.0 if finished else -1.0), correct=finished)


class NoTruth(Judging):
    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        return None


class Length(RewardSource):
    def score(self, samples: Samples) -> torch.Tensor:
        return samples.sequences.response_mask.sum(1).float()


class Counting(Evaluation):
    """The length of every response it is given, and of those it asks for (`more` a prompt)."""

    def __init__(self, name: str = "counting", more: int = 0, times: int = 1) -> None:
        self.name, self.more, self.times = name, more, times
        self.subject: Subject | None = None
        self.asked: list[tuple[Generation, ...]] = []

    def specs(self) -> Sequence[MetricSpec]:
        return [MetricSpec(f"{self.name}/length", Direction.NEITHER)]

    def evaluate(self, subject: Subject) -> Sequence[ExampleScore]:
        self.subject = subject
        if self.more:
            self.asked = [subject.respond(tiny.PROMPTS[:2], self.more) for _ in range(self.times)]
        groups = subject.by_prompt()
        return [
            ExampleScore(f"{self.name}/length", group[0].prompt.id, sum(g.tokens for g in group) / len(group))
            for group in groups
        ]


class Other(Counting):
    def __init__(self, more: int = 0) -> None:
        super().__init__("other", more)


def referenced(move: bool = False) -> tiny.HFPolicy:
    policy = tiny.scratch()
    policy.freeze_reference()
    if move:
        tiny.move(policy)
    return policy


def responses(policy: tiny.HFPolicy, *, n: int = 3, temperature: float = 1.0, reward: RewardSource | None = None):
    rng = torch.Generator().manual_seed(0)
    return respond(policy, tiny.PROMPTS, n=n, temperature=temperature, data=Judging(), reward=reward, rng=rng)


def suite(
    policy: tiny.HFPolicy,
    *evaluations: Evaluation,
    baseline: tuple[Generation, ...] | None = None,
    seed: int = 0,
    samples: int = 2,
) -> Evaluated:
    chosen = Suite(policy, Judging(), evaluations, EvalSettings(samples=samples), Seeds(seed))
    return chosen.evaluate(Path("checkpoint"), tiny.PROMPTS, baseline=baseline)


# Which prompts


def asked(cluster: str, name: str) -> Prompt:
    return Prompt(name, (Message("user", name),), cluster=cluster)


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.text("xyz", min_size=1, max_size=3)), unique=True),
    st.integers(0, 5),
)
def test_the_twins_of_a_question_stay_together(parts: list[tuple[str, str]], questions: int) -> None:
    prompts = [asked(cluster, f"{name} {i}") for i, (cluster, name) in enumerate(parts)]
    kept = evaluation_prompts(prompts, EvalSettings(questions=questions))
    assert kept == [prompt for prompt in prompts if prompt in kept], "in their order"
    groups = [prompt.cluster or prompt.id for prompt in prompts]
    kept_groups = {prompt.cluster or prompt.id for prompt in kept}
    assert [p for p, group in zip(prompts, groups, strict=True) if group in kept_groups] == kept, "whole or not at all"
    every = list(dict.fromkeys(groups))
    assert kept_groups == set(every[: questions or len(every)]), "the first ones: more questions only add"


# Who is asked questionnaires


class WithLanguage(Judging):
    """A data source with a tokenizer of its own."""

    def __init__(self, words: str) -> None:
        self.words = words

    def tokenizer(self):  # type: ignore[no-untyped-def]
        return tiny.letters(self.words) if self.words else None


@pytest.mark.parametrize(("words", "ordinary"), [("", True), ("abcdefgh", False), ("xyz", True)])
def test_a_model_of_ordinary_text_is_asked_questionnaires_whatever_data_it_is_asked_from(
    words: str, ordinary: bool
) -> None:
    """As `alignbench evaluate MODEL data=world`: the data has a language of its own, which the model does not speak."""
    seen = Counting()
    Suite(referenced(), WithLanguage(words), [seen], EvalSettings(samples=1), Seeds(0)).evaluate(
        Path("checkpoint"), tiny.PROMPTS, baseline=None
    )
    assert seen.subject is not None and seen.subject.ordinary_text is ordinary


# What is measured of a response


def test_each_prompt_is_answered_n_times_in_order() -> None:
    found = responses(referenced(), n=3)
    assert [(g.prompt.id, g.index) for g in found] == [(p.id, i) for p in tiny.PROMPTS for i in range(3)]
    same = referenced().generate(tiny.PROMPTS, Sampling(), n=3, rng=torch.Generator().manual_seed(0)).samples
    assert [g.response for g in found] == list(same.texts)
    assert [g.tokens for g in found] == same.sequences.response_mask.sum(1).tolist()
    assert [g.finished for g in found] == same.finished.tolist()
    assert [g.verdict for g in found] == [
        Verdict(len(text.split()) * (1.0 if end else -1.0), correct=end)
        for text, end in zip(same.texts, same.finished.tolist(), strict=True)
    ]


def test_kl_of_the_reference_itself_is_exactly_zero() -> None:
    assert all(g.logprob == g.ref_logprob < 0 for g in responses(referenced()))


def test_kl_of_a_policy_that_has_moved_is_the_difference_of_sums() -> None:
    policy = referenced(move=True)
    found = responses(policy)
    same = policy.generate(tiny.PROMPTS, Sampling(), n=3, rng=torch.Generator().manual_seed(0))
    sequences = same.samples.sequences
    reference = tiny.scratch()
    own, ref = policy.logprobs(sequences).logprobs.sum(1), reference.logprobs(sequences).logprobs.sum(1)
    torch.testing.assert_close(torch.tensor([g.logprob for g in found]), own.detach())
    torch.testing.assert_close(torch.tensor([g.ref_logprob for g in found]), ref.detach())
    assert sum(g.logprob - g.ref_logprob for g in found) / len(found) > 0.1


@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_log_probabilities_and_entropy_are_those_of_what_is_sampled(temperature: float) -> None:
    """At a low temperature the sampler is nearly sure, and the model is not."""
    policy = referenced(move=True)
    cold = responses(policy, temperature=temperature)
    rng = torch.Generator().manual_seed(0)
    rollout = policy.generate(tiny.PROMPTS, Sampling(temperature=temperature), n=3, rng=rng)
    sequences = rollout.samples.sequences
    scores = policy.logprobs(sequences, temperature=temperature, entropy=True)
    reference = tiny.scratch().logprobs(sequences, temperature=temperature).logprobs.sum(1)
    torch.testing.assert_close(torch.tensor([g.logprob for g in cold]), rollout.logprobs.sum(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.tensor([g.ref_logprob for g in cold]), reference.detach(), rtol=1e-4, atol=1e-4)
    assert scores.entropy is not None
    lengths = sequences.response_mask.sum(1)
    torch.testing.assert_close(
        torch.tensor([g.entropy for g in cold]), scores.entropy.sum(1) / lengths, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_kl_is_that_of_what_is_sampled(temperature: float) -> None:
    """In a world where every response is written down: the mean log-ratio is the exact KL between policy and reference at the
    temperature of sampling, which is neither the log-ratio at temperature 1 nor the KL there."""
    world = World(0, tokens=2)
    policy = world.policy(moved=1.0)
    given = policy.samples(
        [p for p in world.prompts for _ in world.problem.completions], list(world.problem.completions) * 2
    )
    with torch.no_grad():
        own, ref, plain, plain_ref = (
            policy.logprobs(given.sequences, role=role, temperature=heat).logprobs.double().sum(1).reshape(2, -1)
            for heat in (temperature, 1.0)
            for role in ("policy", "reference")
        )
    exact = float((own.exp() * (own - ref)).sum(1).mean())
    others = [float((p.exp() * (plain - plain_ref)).sum(1).mean()) for p in (own, plain)]
    rng = torch.Generator().manual_seed(1)
    found = respond(policy, world.prompts, n=20_000, temperature=temperature, data=Judging(), reward=None, rng=rng)
    ratios = torch.tensor([g.logprob - g.ref_logprob for g in found]).double()
    error = float(ratios.std()) / len(ratios) ** 0.5
    assert float(ratios.mean()) == pytest.approx(exact, abs=4 * error)
    assert min(abs(other - exact) for other in others) > 8 * error, "or they could not be told apart"


def test_what_is_not_known_is_left_open() -> None:
    rng = torch.Generator().manual_seed(0)
    found = respond(referenced(), tiny.PROMPTS, n=1, temperature=1.0, data=NoTruth(), reward=None, rng=rng)
    assert {(g.proxy_reward, g.verdict) for g in found} == {(None, None)}
    assert [g.proxy_reward for g in responses(referenced(), reward=Length())] == [
        float(g.tokens) for g in responses(referenced())
    ]


def test_a_reward_that_is_not_finite_is_refused() -> None:
    class Broken(RewardSource):
        def score(self, samples: Samples) -> torch.Tensor:
            return torch.full((len(samples),), torch.nan)

    with pytest.raises(NonFiniteError, match="the reward"):
        responses(referenced(), reward=Broken())


# The suite


def test_all_families_see_the_same_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, calls = referenced(), []
    generate = policy.generate
    monkeypatch.setattr(policy, "generate", lambda *a, **k: calls.append(a) or generate(*a, **k))
    one, other = Counting("one"), Counting("two")
    done = suite(policy, one, other)
    assert len(calls) == 1, "sampled once, for all of them"
    assert one.subject is not None and other.subject is not None
    assert one.subject.generations is other.subject.generations is done.generations
    assert one.subject.checkpoint == Path("checkpoint")
    assert set(done.metrics) == {"one/length", "two/length"}
    assert len(done.scores) == 2 * len(tiny.PROMPTS)
    assert done.extra == ()
    value = sum(g.tokens for g in done.generations) / len(done.generations)
    assert done.metrics["one/length"].value == pytest.approx(value)


def test_the_baseline_is_the_sft_model_and_its_own() -> None:
    sft = Counting()
    start = suite(referenced(), sft)
    assert sft.subject is not None and sft.subject.baseline is start.generations
    later = Counting()
    done = suite(referenced(move=True), later, baseline=start.generations)
    assert later.subject is not None and later.subject.baseline is start.generations
    assert done.generations != start.generations
    assert [g[0].prompt.id for g in later.subject.by_prompt(baseline=True)] == [p.id for p in tiny.PROMPTS]
    assert [len(g) for g in later.subject.by_prompt()] == [2] * len(tiny.PROMPTS)


def test_evaluation_repeats_with_its_seed() -> None:
    assert suite(referenced(), Counting()).generations == suite(referenced(), Counting()).generations
    assert suite(referenced(), Counting()).generations != suite(referenced(), Counting(), seed=1).generations


def test_what_a_family_asks_for_is_kept_and_shifts_nobody_elses() -> None:
    alone, beside, first = Counting(more=3, times=2), Counting(more=3, times=2), Other(more=2)
    done_alone, done = suite(referenced(), alone), suite(referenced(), first, beside)
    assert beside.asked == alone.asked
    assert beside.asked[0] != beside.asked[1], "asked again, it gets other samples"
    assert done.generations == done_alone.generations
    assert done.extra == (*first.asked[0], *beside.asked[0], *beside.asked[1])
    assert [(g.prompt.id, g.index) for g in beside.asked[0]] == [(p.id, i) for p in tiny.PROMPTS[:2] for i in range(3)]


def test_two_families_may_not_claim_one_metric() -> None:
    with pytest.raises(UserError, match="counting/length"):
        suite(referenced(), Counting(), Counting())


# Questionnaires: what an evaluation asks beside the shared responses


def asking(policy: tiny.HFPolicy, **more: object) -> Subject:
    counting = Counting()
    suite(policy, counting, **more)  # type: ignore[arg-type]
    assert counting.subject is not None
    return counting.subject


def tokens(policy: tiny.HFPolicy, generation: Generation) -> list[int]:
    """Read off its text, which leaves out special tokens that an untrained model samples too."""
    ids = list(policy.tokenizer([generation.response]).input_ids[0])
    return [*ids, policy.tokenizer.eos_token_id] if generation.finished else ids


def test_likelihoods_are_those_of_the_policy_itself() -> None:
    policy = referenced(move=True)
    subject = asking(policy, samples=8)
    same = [g for g in subject.generations if len(tokens(policy, g)) == g.tokens > 0]
    assert len(same) > 9
    found = subject.likelihoods([g.prompt for g in same], [tokens(policy, g) for g in same])
    assert [f.logprob for f in found] == pytest.approx([g.logprob for g in same], abs=1e-4)
    assert subject.likelihoods([], []) == ()


def test_likelihoods_may_count_more_than_the_response_or_less() -> None:
    policy = referenced(move=True)
    subject = asking(policy)
    prompts, responses = tiny.PROMPTS[:4], [[4, 5, 6], [7], [5, 5], [4, 7, 7]]
    asked = [policy.encode([prompt], [""]).sequences.prompt_ids[0].tolist() for prompt in prompts]

    def alone(row: list[int], count: int) -> float:
        ids = torch.tensor([row])
        whole = Sequences(ids[:, :1], torch.ones(1, 1), ids[:, 1:], torch.ones(1, len(row) - 1))
        return float(policy.logprobs(whole).logprobs[0, len(row) - 1 - count :].detach().sum())

    counted = [1, 2, 2, 4]  # a part, a token of the prompt too, all, a token of the prompt too
    found = subject.likelihoods(prompts, responses, counted)
    rows = [[*ids, *response] for ids, response in zip(asked, responses, strict=True)]
    expected = [alone(row, count) for row, count in zip(rows, counted, strict=True)]
    assert [each.logprob for each in found] == pytest.approx(expected, abs=1e-4)
    plain = subject.likelihoods(prompts, responses)
    assert subject.likelihoods(prompts, responses, [len(row) for row in responses]) == plain


def test_greedy_responses_are_the_likeliest_and_known_as_such() -> None:
    policy = referenced(move=True)
    subject = asking(policy)
    prompts = tiny.PROMPTS[:3]
    greedy = subject.complete(prompts, 2, Sampling(top_k=1, max_new_tokens=4))
    assert [(g.prompt, g.index) for g in greedy] == [(p, i) for p in prompts for i in range(2)]
    assert greedy[0].response == greedy[1].response, "nothing is left to chance"
    for g in greedy[::2]:
        given = tokens(policy, g)
        assert len(given) == g.tokens, "no special token among them"
        others = [[*given[:-1], (given[-1] + 1) % 12], [(given[0] + 1) % 12, *given[1:]]]
        found = subject.likelihoods([g.prompt] * 3, [given, *others])
        assert [f.greedy for f in found] == [True, False, False]


def test_a_questionnaire_may_go_beyond_the_limits_of_training() -> None:
    policy = referenced()
    subject = asking(policy)
    window = policy.window
    assert window == 14
    long = tiny.prompt(" ".join("abcdefghab"))  # 11 tokens with <bot>; training takes 8
    assert len(subject.complete([long], 1, Sampling(max_new_tokens=3))) == 1
    assert len(subject.likelihoods([long], [[4, 5, 6]])) == 1
    with pytest.raises(UserError, match="beside 4 new ones the window holds 10"):
        subject.complete([long], 1, Sampling(max_new_tokens=4))


def test_only_data_without_a_language_of_its_own_is_ordinary_text() -> None:
    assert asking(referenced()).ordinary_text  # Judging has no tokenizer


class Failing(Length):
    """Gives out after so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def score(self, samples: Samples) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise UserError("the server is gone")
        return super().score(samples)


def test_a_judge_that_fails_midway_keeps_what_it_said() -> None:
    said: list[str] = []
    policy = referenced()
    subject = asking(policy, samples=4)
    generations = subject.generations
    assert len(generations) == 24
    whole = SourceJudge("length", Length(), policy, said.append).score(generations)
    assert whole == tuple(float(len(tokens(policy, g))) for g in generations)
    half = SourceJudge("length", Failing(1), policy, said.append).score(generations)
    different = list(dict.fromkeys((g.prompt.id, g.response, g.finished) for g in generations))
    assert len(different) > 16
    for generation, before, now in zip(generations, whole, half, strict=True):
        place = different.index((generation.prompt.id, generation.response, generation.finished))
        assert now == before if place < 16 else math.isnan(now)
    assert said == [f"the judge length failed, 16 of {len(different)} answers are kept: the server is gone"]


def test_a_judge_compares_by_score_unless_its_source_can_do_better() -> None:
    policy = referenced()
    generations = asking(policy).generations
    first, second = generations[0::2], generations[1::2]
    won = SourceJudge("length", Length(), policy, print).compare(first, second)
    lengths = [(len(tokens(policy, a)), len(tokens(policy, b))) for a, b in zip(first, second, strict=True)]
    assert won == tuple(0.5 * ((a > b) + (a >= b)) for a, b in lengths)
    assert set(won) == {0.0, 0.5, 1.0}


def test_a_judge_is_asked_once_about_a_response() -> None:
    policy = referenced()
    generations = asking(policy).generations
    source = Failing(questions=1)
    judge = SourceJudge("length", source, policy, print)
    first = judge.score(generations)
    assert judge.score(generations[::-1]) == first[::-1]
    assert source.left == 0, "not asked again"


def test_what_a_source_cannot_score_it_cannot_compare() -> None:
    class Silent(Length):
        def score(self, samples: Samples) -> torch.Tensor:
            return super().score(samples) * math.nan

    policy = referenced()
    generations = asking(policy).generations[:2]
    won = SourceJudge("silent", Silent(), policy, print).compare(generations, generations)
    assert all(math.isnan(value) for value in won)


def test_greedy_answers_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = referenced(move=True)
    subject = asking(policy)
    greedy = Sampling(top_k=1, max_new_tokens=4)
    first = subject.complete(tiny.PROMPTS, 1, greedy)
    rows: list[int] = []
    generate = policy.generate
    monkeypatch.setattr(policy, "generate", lambda asked, *a, **k: rows.append(len(asked)) or generate(asked, *a, **k))
    renamed = [Prompt("again", p.messages) for p in tiny.PROMPTS]
    again = subject.complete(renamed, 1, greedy)
    assert [g.response for g in again] == [g.response for g in first]
    assert {g.prompt.id for g in again} == {"again"}
    assert rows == []
    subject.complete(renamed, 1, Sampling(top_k=1, max_new_tokens=3))
    subject.complete(renamed, 1, Sampling(max_new_tokens=4))
    assert rows == [len(renamed)] * 2, "another limit may end elsewhere; samples are drawn anew"
