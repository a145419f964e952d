"""The exact world: its responses, its optimum, and what is measured against it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from alignbench_exact.annotator import ExactAnnotator
from alignbench_exact.config import ExactAnnotatorConfig, ExactDataConfig, ExactEvaluationConfig
from alignbench_exact.evaluation import ExactEvaluation, every_completion, written_down
from alignbench_exact.source import ExactData
from alignbench_hf.build import build_scratch
from alignbench_hf.config import ScratchConfig
from alignbench_hf.policy import HFPolicy
from alignbench_suite.scores import mean
from alignbench_world.config import WorldConfig
from alignbench_world.source import WorldData
from torch import Tensor

from alignbench import ExactProblem, Samples, Sampling, Seeds, Split, UserError, functional
from alignbench.app.config import EvalSettings
from alignbench.contracts import Evaluation, RewardSource
from alignbench.evaluation import frontier, tilt
from alignbench.evaluation.suite import Suite
from tests import tiny

SEEDS = Seeds(0).child("data")


def world(seeds: Seeds = SEEDS, **options: object) -> ExactData:
    return ExactData(ExactDataConfig(**options), seeds=seeds)  # type: ignore[arg-type]


def micro(data: ExactData, length: int | None = None) -> HFPolicy:
    config = ScratchConfig(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16, initializer_range=0.4, max_prompt_tokens=2,
        max_response_tokens=length or data.config.length, scalar_head="linear",
    )  # fmt: skip
    policy = build_scratch(config, tokenizer=data.tokenizer(), device=tiny.CPU, seeds=Seeds(0))
    policy.freeze_reference()
    return policy


def random_problem(seed: int = 0) -> ExactProblem:
    generator = torch.Generator().manual_seed(seed)
    logits, rewards = torch.randn(2, 3, 7, generator=generator, dtype=torch.double)
    return ExactProblem(tuple((i,) for i in range(7)), logits.softmax(1), rewards)


# The mathematics


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_nothing_is_above_the_optimum(beta: float) -> None:
    """Its value is beta log Z, and any other distribution falls short of it by beta KL(pi || pi*)."""
    problem = random_problem()
    best = functional.kl_optimum(problem.reference, problem.rewards, beta)

    def objective(pi: Tensor) -> Tensor:
        return (pi * problem.rewards).sum(1) - beta * functional.kl_divergence(pi, problem.reference)

    log_z = (problem.reference * (problem.rewards / beta).exp()).sum(1).log()
    torch.testing.assert_close(objective(best), beta * log_z)
    other = random_problem(seed=1).reference
    torch.testing.assert_close(objective(best) - objective(other), beta * functional.kl_divergence(other, best))


def test_distances() -> None:
    left, right = torch.tensor([[0.5, 0.5, 0.0]]).double(), torch.tensor([[0.25, 0.25, 0.5]]).double()
    assert float(functional.total_variation(left, right)) == pytest.approx(0.5)
    assert float(functional.kl_divergence(left, right)) == pytest.approx(math.log(2))
    assert float(functional.total_variation(left, left)) == float(functional.kl_divergence(left, left)) == 0.0


# The world


@pytest.mark.parametrize("length", [2, 3])
def test_every_response_is_written_down_once(length: int) -> None:
    data = world(length=length, letters=3)
    responses = data.responses()
    assert len(responses) == len(set(responses)) == sum(3**i for i in range(length + 1))
    tokenizer = data.tokenizer()
    completions = every_completion(len(tokenizer), tokenizer.eos_token_id, length)
    assert len(set(completions)) == len(completions) == sum(4**i for i in range(length + 1))  # padding is a token too
    texts = Counter(tokenizer.batch_decode([list(c) for c in completions], skip_special_tokens=True))
    assert {text for text, _ in responses} == set(texts)


def test_probabilities_sum_to_one_and_agree_with_the_sampler() -> None:
    data = world(letters=3, contexts=2)
    policy = micro(data)
    prompt = data.prompts(Split.EVALUATION)[0]
    found = measured(policy, data)
    draws = policy.generate([prompt], Sampling(), n=4000, rng=torch.Generator().manual_seed(0)).samples
    seen = Counter(zip(draws.texts, draws.finished.tolist(), strict=True))
    exact: Counter[tuple[str, bool]] = Counter()
    for generation in found:
        if generation.prompt.id == prompt.id:
            exact[generation.response, generation.finished] += math.exp(generation.logprob)  # type: ignore[assignment]
    assert sum(exact.values()) == pytest.approx(1.0, abs=1e-5)
    for response, probability in exact.items():
        assert seen[response] / 4000 == pytest.approx(probability, abs=4 * math.sqrt(probability / 4000) + 1e-3)


def test_rewards_belong_to_the_world_and_not_to_the_run() -> None:
    one, two, other = world(), world(seeds=Seeds(5)), world(world_seed=1)
    prompts = one.prompts(Split.EVALUATION)
    assert [p.text for p in prompts] == [p.text for p in two.prompts(Split.EVALUATION)]
    rewards = [[w.reward(prompts[0], t, finished=e) for t, e in w.responses()] for w in (one, two, other)]
    assert rewards[0] == rewards[1] != rewards[2]
    spread = torch.tensor([w for p in prompts for w in (one.reward(p, t, finished=e) for t, e in one.responses())])
    assert abs(float(spread.mean())) < 0.25
    assert 0.8 < float(spread.std()) < 1.2


def test_what_is_uncovered_is_never_shown() -> None:
    data = world(uncovered=0.4, letters=4)
    shown = [(d.prompt, (d.response, len(d.response.split()) < 2)) for d in data.demonstrations()]
    shown += [(r.prompt, y) for r in data.rankings() for y in zip(r.responses, r.finished, strict=True)]
    assert not any(response in prompt.info["uncovered"] for prompt, response in shown)
    hidden = data.prompts(Split.EVALUATION)[0].info["uncovered"]
    assert 0.2 < len(hidden) / len(data.responses()) < 0.6
    assert {y for p, y in shown if p.text == data.prompts(Split.EVALUATION)[0].text} == set(data.responses()) - hidden


def test_the_annotator_prefers_as_often_as_it_says() -> None:
    data = world()
    annotator = ExactAnnotator(ExactAnnotatorConfig(), data=data, seeds=Seeds(0))
    prompt = data.prompts(Split.TRAIN)[0]
    first, second = "a", "b c"
    said = annotator.preference(prompt, first, second, finished=(True, False))
    ranks = [annotator.rank(prompt, [first, second, first], finished=[True, False, True]) for _ in range(2000)]
    assert all(a == c for a, _, c in ranks), "equal responses tie"
    assert mean(float(a < b) for a, b, _ in ranks) == pytest.approx(said, abs=0.04)
    gap = data.reward(prompt, first, finished=True) - data.reward(prompt, second, finished=False)
    assert said == pytest.approx(1 / (1 + math.exp(-gap)))


def test_the_annotator_knows_no_other_world() -> None:
    with pytest.raises(UserError, match="data=exact only"):
        ExactAnnotator(ExactAnnotatorConfig(), data=WorldData(WorldConfig(), seeds=SEEDS), seeds=Seeds(0))


@pytest.mark.parametrize(
    "options",
    [{"contexts": 99}, {"train_prompts": 1}],
)
def test_refusals(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"data.{next(iter(options))}"):
        ExactDataConfig(**options)  # type: ignore[arg-type]


# The evaluation


class Gold(RewardSource):
    def __init__(self, data: ExactData) -> None:
        self.data = data

    def score(self, samples: Samples) -> Tensor:
        rows = zip(samples.prompts, samples.texts, samples.finished.tolist(), strict=True)
        return torch.tensor([self.data.reward(p, text, finished=end) for p, text, end in rows])


def suite(policy: HFPolicy, data: ExactData, evaluation: Evaluation, **more: Any) -> Suite:
    return Suite(policy, data, [evaluation], EvalSettings(samples=1), Seeds(0), **more)


def run(policy: HFPolicy, data: ExactData, *, candidates: int = 1, **more: object) -> dict[str, list[float]]:
    chosen = suite(policy, data, ExactEvaluation(ExactEvaluationConfig()), reward=Gold(data), **more)
    scores = chosen.evaluate(
        Path("checkpoint"), data.prompts(Split.EVALUATION), baseline=None, candidates=candidates
    ).scores
    found: dict[str, list[float]] = {}
    for score in scores:
        found.setdefault(score.metric.removeprefix("exact/"), []).append(score.value)
    return found


def measured(policy: HFPolicy, data: ExactData):
    """What the evaluation is given of every response to every prompt."""
    caught = []

    class Asking(ExactEvaluation):
        def evaluate(self, subject):  # type: ignore[no-untyped-def]
            completions = every_completion(len(subject.tokenizer), subject.tokenizer.eos_token_id, data.config.length)
            for prompt in data.prompts(Split.EVALUATION):
                caught.extend(subject.measure([prompt] * len(completions), completions))
            return []

    chosen = suite(policy, data, Asking(ExactEvaluationConfig()))
    chosen.evaluate(Path("checkpoint"), data.prompts(Split.EVALUATION), baseline=None)
    return caught


def test_the_reference_is_where_it_starts() -> None:
    data = world(letters=3, contexts=3, uncovered=0.3)
    found = run(micro(data), data)
    assert found["kl"] == pytest.approx([0.0] * 3, abs=1e-6)
    assert all(0.05 < value < 0.9 for value in found["total_variation"])
    assert all(0 < value < 1 for value in found["uncovered_mass"])
    for gap, reached, best in zip(found["objective_gap"], found["objective"], found["objective_optimum"], strict=True):
        assert gap == pytest.approx(best - reached)
        assert gap > 0
    assert "own_total_variation" not in found


def test_gap_is_beta_times_the_divergence_from_the_optimum() -> None:
    data = world(letters=3, contexts=2, beta=0.5)
    policy = micro(data)
    tiny.move(policy, scale=0.1)
    found = run(policy, data)
    assert min(found["kl"]) > 1e-3
    assert found["objective_gap"] == pytest.approx([0.5 * value for value in found["kl_to_optimum"]], rel=1e-4)


def test_best_of_n_is_measured_as_the_distribution_that_it_samples() -> None:
    data = world(letters=3, contexts=2)
    policy = micro(data)
    one, several = (
        run(policy, data),
        run(
            policy,
            data,
            candidates=4,
            optimum=lambda problem: functional.best_of_n(problem.reference, problem.rewards, 4),
        ),
    )
    bound = math.log(4) - 3 / 4
    assert all(0 < value <= bound for value in several["kl"])
    assert all(a > b for a, b in zip(several["objective"], one["objective"], strict=True)) or several["kl"] != one["kl"]
    assert several["own_total_variation"] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_the_frontier_of_samples_is_the_enumerated_one() -> None:
    """Tilting all responses by their probabilities is the optimum; tilting samples of them comes near it."""
    data = world(letters=3, contexts=2)
    policy = micro(data)
    tiny.move(policy, scale=0.1)
    known: list[ExactProblem] = []
    moved: list[Tensor] = []

    class Asking(ExactEvaluation):
        def evaluate(self, subject):  # type: ignore[no-untyped-def]
            found = written_down(subject, data.prompts(Split.EVALUATION), data.config.length)
            known.append(found.problem)
            moved.append(found.reached)
            return []

    suite(policy, data, Asking(ExactEvaluationConfig())).evaluate(
        Path("checkpoint"), data.prompts(Split.EVALUATION), baseline=None
    )
    (problem,), (reached,) = known, moved
    for beta in (0.1, 0.5, 2.0):
        best = functional.kl_optimum(problem.reference, problem.rewards, beta)
        found = tilt.tilt(problem.rewards, beta, problem.reference)
        torch.testing.assert_close(found.weights, best, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.kl, functional.kl_divergence(best, problem.reference), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.expected(problem.rewards), (best * problem.rewards).sum(1), rtol=0, atol=1e-6)
    sampled = frontier.sample(
        policy, data.prompts(Split.EVALUATION), n=4000, temperature=1.0, data=data, reward=Gold(data), seeds=Seeds(0)
    )
    assert torch.equal(sampled.scores.float(), sampled.gold.float())
    kl = functional.kl_divergence(reached, problem.reference)
    exact = tilt.at_kl(problem.rewards, float(kl.mean()), problem.reference)
    assert exact is not None
    proxy = (reached * problem.rewards).sum(1)
    gap = exact.expected(problem.rewards).mean() - proxy.mean()
    ids = [prompt.id for prompt in sampled.prompts]
    estimated = sampled.shortfall(dict(zip(ids, proxy.tolist(), strict=True)), dict(zip(ids, kl.tolist(), strict=True)))
    assert gap > 0.05
    assert sum(estimated.values()) / len(ids) == pytest.approx(float(gap), abs=0.05)


def test_responses_longer_than_the_world_are_refused() -> None:
    data = world(letters=3)
    with pytest.raises(UserError, match=r"responses of 3 tokens where data.length=2"):
        run(micro(data, length=3), data)


def test_left_out_elsewhere() -> None:
    data = world(letters=3)
    prompts = tiny.PROMPTS[:2]
    chosen = suite(tiny_reference(), data, ExactEvaluation(ExactEvaluationConfig()))
    found = chosen.evaluate(Path("checkpoint"), prompts, baseline=None)
    assert found.scores == ()


def tiny_reference() -> HFPolicy:
    policy = tiny.scratch()
    policy.freeze_reference()
    return policy
