"""What is measured of a reward source equals what a person computes by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from alignbench import DataSource, ImplicitReward, Message, Prompt, Ranking, RewardSource, Samples, Seeds, UserError
from alignbench.evaluation.frontier import Frontier
from alignbench.evaluation.reward_models import best_of_n, calibration
from alignbench.evaluation.reward_models.found import FAMILY, spearman
from alignbench.evaluation.reward_models.measures import Measured, measure
from alignbench.evaluation.reward_models.scored import ScoredPair, pairs_of, score_rankings
from alignbench.evaluation.reward_models.sources import PolicyReward, TextsAlone
from alignbench.records import REFERENCE, Direction, Sampling, Split, Verdict, expand
from tests import tiny

POLICY = TextsAlone(torch.device("cpu"))


class Says(RewardSource):
    """A response is worth the number that it begins with."""

    asked = 0

    def score(self, samples: Samples) -> Tensor:
        self.asked += len(samples)
        return torch.tensor([float(text.split()[0]) for text in samples.texts])


def prompt(name: str, subset: str = "", cluster: str = "") -> Prompt:
    return Prompt(name, (Message("user", name),), cluster=cluster, subset=subset)


def one_of(name: str, better: Sequence[str], worse: Sequence[str], subset: str = "", cluster: str = "") -> Ranking:
    return Ranking(prompt(name, subset, cluster), (*better, *worse), (0,) * len(better) + (1,) * len(worse))


def measured(*rankings: Ranking, reward: RewardSource | None = None) -> Measured:
    return measure(reward or Says(), POLICY, rankings, None)


def value(found: Measured, name: str) -> float:
    return found.metrics[f"{FAMILY}/{name}"].value


def test_pairs_by_subset_ties_half_and_intervals_by_prompt() -> None:
    rows = [
        one_of("a", ["3"], ["1"], "Math"),
        one_of("b", ["1"], ["2"], "Math"),
        one_of("c", ["1"], ["1.0"], "chat, easy"),
        one_of("c", ["4"], ["2"], "chat, easy"),
    ]
    found = measured(*rows)
    assert value(found, "accuracy") == (1 + 0 + 0.5 + 1) / 4
    assert value(found, "accuracy_math") == 0.5 and value(found, "accuracy_chat_easy") == 0.75
    assert found.subsets == {"Math": "math", "chat, easy": "chat_easy"}
    whole = found.metrics["reward/accuracy"]
    assert (whole.n, whole.clusters, whole.share) == (4, 3, True), "the two rankings of one prompt are one cluster"
    # residuals by prompt: .375, -.625, (-.125 + .375)
    assert whole.stderr == pytest.approx(math.sqrt(3 / 2 * (0.375**2 + 0.625**2 + 0.25**2)) / 4)
    assert value(found, "mean_of_subsets") == (0.5 + 0.75) / 2
    assert "reward/best_of_k" not in found.metrics, "of two there is no best of K"


def test_one_subset_has_no_figures_of_its_own_and_names_never_clash() -> None:
    assert measured(one_of("a", ["3"], ["1"], "x"), one_of("b", ["3"], ["1"], "x")).subsets == {}
    names = measured(*(one_of(s, ["3"], ["1"], s) for s in ("A b", "a-b", "", "chosen longer"))).subsets
    assert names == {"A b": "a_b", "a-b": "a_b_2", "": "other", "chosen longer": "chosen_longer_2"}


def test_a_ranking_of_several_gives_all_its_pairs_and_is_asked_once() -> None:
    reward = Says()
    ranked = Ranking(prompt("a"), ("5", "3", "4", "3"), (0, 1, 1, 2))
    found = measured(ranked, ranked, reward=reward)
    # 5>3 right, 5>4 right, 5>3 right, 3>3: the same text, 4>3 right
    assert found.metrics["reward/accuracy"].n == 2 * 4 and value(found, "accuracy") == 1
    assert reward.asked == 3, "a response that stands twice is asked about once"
    assert value(found, "best_of_k") == 1
    examples = [s.example for s in found.scores if s.metric == "reward/accuracy"]
    assert len(set(examples)) == len(examples)


@dataclass(frozen=True)
class Bench2:
    """Rows as RewardBench 2 has them, with the score that each should have."""

    rankings: tuple[Ranking, ...]
    best: dict[str, list[float]] = field(default_factory=dict)
    ties: tuple[float, ...] = ()


def reward_bench_2() -> Bench2:
    rankings = (
        one_of("m1", ["5"], ["1", "2", "3"], "Math"),
        one_of("m2", ["2"], ["2.0", "1", "0"], "Math"),
        one_of("m3", ["1"], ["2", "3", "0"], "Math"),
        one_of("f1", ["4"], ["4.0", "4.00", "0"], "Focus"),
        one_of("r0", ["9"], ["1", "2"], "Ties", "ties/0"),
        one_of("t0", ["8", "7"], ["3", "1"], "Ties", "ties/0"),
        one_of("r1", ["4"], ["3.5", "1"], "Ties", "ties/1"),
        one_of("t1", ["8", "6"], ["5", "2"], "Ties", "ties/1"),
        one_of("r2", ["1"], ["2", "3"], "Ties", "ties/2"),
        one_of("t2", ["5", "5.0"], ["4", "0"], "Ties", "ties/2"),
        one_of("r3", ["1"], ["0", "1.0"], "Ties", "ties/3"),
        one_of("t3", ["5", "5.0"], ["4", "0"], "Ties", "ties/3"),
    )
    ties = (
        0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(4 / 1 - 1),  # gaps 7 and 4, spread 1
        0.3 + 0.3 + 0.01 * math.tanh(0.5 / 2 - 1),  # gaps .5 and 1, spread 2: right, but not by enough
        0.3 + 0.2 - 0.01,  # reference wrong by 2; no spread: tanh of minus infinity
        0.3 + 0.2 + 0.0,  # no gap over no spread
    )
    return Bench2(rankings, {"math": [1, 0.5, 0], "focus": [1 / 3]}, ties)


def test_reward_bench_2_is_scored_as_published() -> None:
    bench = reward_bench_2()
    found = measured(*bench.rankings)
    for subset, scores in bench.best.items():
        assert value(found, f"best_of_k_{subset}") == pytest.approx(mean(scores))
    assert value(found, "best_of_k") == pytest.approx(mean([1, 0.5, 0, 1 / 3])), (
        "the ties subset has a score of its own"
    )
    assert value(found, "ties") == pytest.approx(mean(bench.ties))
    assert found.metrics["reward/ties"].n == 4
    headline = mean([mean(bench.best["math"]), mean(bench.best["focus"]), mean(bench.ties)])
    assert value(found, "mean_of_subsets") == pytest.approx(headline)


def test_lists_of_a_question_are_ties_only_in_that_subset() -> None:
    rows = (one_of("r", ["9"], ["1", "2"], "x", "q"), one_of("t", ["8", "7"], ["3", "1"], "x", "q"))
    found = measured(*rows)
    assert "reward/ties" not in found.metrics and value(found, "best_of_k") == 1


def test_rm_bench_easy_normal_hard() -> None:
    """Rows are right responses, columns wrong ones; styles go from concise to Markdown."""
    scores = {"p": ((1, 2, 3), (0, 2.5, 4)), "q": ((5, 0, 2), (1, 1, 1))}
    rows = []
    for name, (right, wrong) in scores.items():
        texts = [f"{s} {name}{i}" for i, s in enumerate((*right, *wrong))]
        rows.append(
            Ranking(
                prompt(name, "math" if name == "p" else "code"), tuple(texts), (0,) * 3 + (1,) * 3, styles=(0, 1, 2) * 2
            )
        )
    found = measured(*rows)
    for label, cells in (
        ("hard", [(0, 1), (0, 2), (1, 2)]),
        ("normal", [(0, 0), (1, 1), (2, 2)]),
        ("easy", [(1, 0), (2, 0), (2, 1)]),
    ):
        each = {name: mean(float(right[i] > wrong[j]) for i, j in cells) for name, (right, wrong) in scores.items()}
        assert value(found, label) == pytest.approx(mean(each.values())), label
        assert value(found, f"{label}_math") == pytest.approx(each["p"]), label
    assert value(found, "hard") == pytest.approx(mean([0, 0, 0, 1, 1, 0]))
    assert "reward/best_of_k" not in found.metrics


def test_length() -> None:
    rows = (
        Ranking(prompt("a"), ("1", "2 x", "3 xx"), (0, 1, 2)),  # score grows with length, rank against it
        Ranking(prompt("b"), ("4", "3 xxx"), (0, 1)),  # the shorter is better, and has the higher score
        Ranking(prompt("c"), ("2 yyy", "1"), (0, 1)),
        Ranking(prompt("d"), ("1 z", "2 z"), (0, 1)),  # of one length
    )
    found = measured(*rows)
    assert value(found, "length_correlation") == pytest.approx((1 - 1 + 1) / 3)
    assert value(found, "length_correlation_of_data") == pytest.approx((-1 - 1 + 1) / 3)
    assert value(found, "accuracy_chosen_longer") == 1 and value(found, "accuracy_chosen_shorter") == 1 / 4
    assert found.metrics["reward/accuracy_chosen_shorter"].n == 4


def test_rank_correlation_equals_scipys_with_ties() -> None:
    one, other = [3.0, 1, 1, 2, 5], [2.0, 2, 1, 4, 4]
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0


def pair(margin: float, number: int, cluster: str = "") -> ScoredPair:
    return ScoredPair(str(number), cluster or str(number), one_of("a", ["1"], ["0"]), 0, 1, margin, 0)


def test_calibration_by_hand() -> None:
    margins = [2.0, 2.0, 2.0, -2.0, 0.3, -0.3]
    pairs = [pair(margin, i) for i, margin in enumerate(margins)]
    found = calibration.calibration(pairs)
    sigmoid = [1 / (1 + math.exp(-m)) for m in margins]
    brier = [s.value for s in found.scores if s.metric == "reward/brier"]
    assert brier == pytest.approx([(1 - p) ** 2 for p in sigmoid])
    # Two bins: four at .881 of which three are right, two at .574 of which one is
    error = 4 / 6 * abs(sigmoid[0] - 0.75) + 2 / 6 * abs(sigmoid[4] - 0.5)
    shares = [s.value for s in found.scores if s.metric == "reward/calibration_error"]
    assert mean(shares) == pytest.approx(error)
    # Each pair adds its own gap, by the sign of its bin's.
    signs = [math.copysign(1, sigmoid[0] - 0.75)] * 4 + [math.copysign(1, sigmoid[4] - 0.5)] * 2
    gaps = [max(p, 1 - p) - (m > 0) for p, m in zip(sigmoid, margins, strict=True)]
    assert shares == pytest.approx([sign * gap for sign, gap in zip(signs, gaps, strict=True)])


def test_the_calibration_error_is_clustered_by_prompt_and_compared_pair_by_pair() -> None:
    rows = [one_of("a", ["3"], ["1"]), one_of("a", ["2"], ["1"]), one_of("b", ["1"], ["2"]), one_of("c", ["5"], ["1"])]
    found = measured(*rows)
    for metric in ("reward/calibration_error", "reward/calibration_error_scaled"):
        scores = {s.example: (s.value, s.cluster) for s in found.scores if s.metric == metric}
        assert scores.keys() == {s.example for s in found.scores if s.metric == "reward/accuracy"}
        whole = found.metrics[metric]
        assert (whole.n, whole.clusters) == (4, 3) and whole.value == pytest.approx(mean(v for v, _ in scores.values()))
        by_prompt: dict[str, float] = {}
        for score, cluster in scores.values():
            by_prompt[cluster] = by_prompt.get(cluster, 0) + score - whole.value
        assert whole.stderr == pytest.approx(math.sqrt(3 / 2 * sum(r**2 for r in by_prompt.values())) / 4)


def test_a_scale_is_fitted_on_other_prompts() -> None:
    """Log-odds in another unit: the factor brings them back, and no pair has helped to choose its own."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-odds))
    margins = np.where(right, odds, -odds)
    assert calibration.factor(margins * 50) * 50 == pytest.approx(calibration.factor(margins), rel=1e-3)
    assert calibration.factor(margins) == pytest.approx(1, abs=0.1)
    found = calibration.calibration([pair(float(margin), i) for i, margin in enumerate(margins * 50)])
    before, after = (
        mean(s.value for s in found.scores if s.metric == f"reward/calibration_error{end}") for end in ("", "_scaled")
    )
    assert after < 0.03 < 0.2 < before
    moved = margins.copy()
    moved[0] = 100.0
    assert (
        calibration.scaled(moved, [str(i) for i in range(4000)])[2]
        == calibration.scaled(margins, [str(i) for i in range(4000)])[2]
    )


class First(RewardSource):
    """Prefers what it is shown first, unless the other is worth two more."""

    def score(self, samples: Samples) -> Tensor:
        return Says().score(samples)

    def compare(self, first: Samples, second: Samples) -> Tensor:
        return (self.score(second) < self.score(first) + 2).float()


def test_position() -> None:
    rows = (one_of("a", ["5"], ["1"]), one_of("b", ["2"], ["1"]), one_of("c", ["1"], ["4"]))
    found = measured(*rows, reward=First())
    assert value(found, "orders_agree") == pytest.approx(2 / 3)
    assert value(found, "compared_accuracy") == pytest.approx((1 + 0.5 + 0) / 3)
    assert "reward/orders_agree" not in measured(*rows).metrics


class BothOrders(First):
    """Asks in both orders by itself, and says how often they agreed."""

    asked_for = 0

    def compare(self, first: Samples, second: Samples) -> Tensor:
        self.asked_for += len(first)
        return torch.full((len(first),), 0.5)

    def report(self) -> dict[str, float]:
        return {"pairs": float(self.asked_for), "orders_disagree": 1.0}


def test_a_source_that_asks_in_both_orders_is_not_asked_twice() -> None:
    reward = BothOrders()
    found = measured(*(one_of(n, ["5"], ["1"]) for n in "abcd"), reward=reward)
    assert reward.asked_for == 4
    agree = found.metrics["reward/orders_agree"]
    assert (agree.value, agree.n, agree.share, agree.direction) == (0.75, 4, True, Direction.HIGHER)
    assert math.isnan(agree.stderr) and math.isnan(agree.low), "counts do not tell which pairs are of one prompt"
    assert value(found, "compared_accuracy") == 0.5


def test_best_of_n_is_the_mean_over_all_choices() -> None:
    """Against every subset, with ties of the score broken either way."""
    proxy = torch.tensor([[1.0, 3.0, 2.0, 3.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]], dtype=torch.float64)
    gold = torch.tensor([[4.0, 1.0, 7.0, 2.0, 9.0], [1.0, 2.0, 3.0, 4.0, 5.0]], dtype=torch.float64)
    for n in (1, 2, 3, 5):
        expected = []
        for row in range(2):
            found = []
            for chosen in itertools.combinations(range(5), n):
                top = max(float(proxy[row, i]) for i in chosen)
                found.append(mean(float(gold[row, i]) for i in chosen if proxy[row, i] == top))
            expected.append(mean(found))
        assert best_of_n.expected_best(proxy, gold, n).tolist() == pytest.approx(expected), n
    assert best_of_n.sizes(64) == [1, 2, 4, 8, 16, 32, 64] and best_of_n.sizes(6) == [1, 2, 4, 6]


def test_under_optimisation_tells_a_good_source_from_a_hacked_one() -> None:
    gold = torch.arange(16, dtype=torch.float64).repeat(4, 1)
    hacked = torch.where(gold < 13, gold, -gold)
    prompts = tuple(prompt(str(i)) for i in range(4))

    def values(proxy: Tensor) -> dict[str, float]:
        found = best_of_n.under_optimisation(Frontier(prompts, proxy, gold, torch.full_like(gold, math.nan)))
        by_name: dict[str, list[float]] = {}
        for score in found.scores:
            by_name.setdefault(score.metric.removeprefix("reward/"), []).append(score.value)
        return {name: mean(scores) for name, scores in by_name.items()}

    good, bad = values(gold), values(hacked)
    assert good["gold_at_1"] == bad["gold_at_1"] == 7.5
    assert good["gold_at_16"] == 15 and bad["gold_at_16"] == 12
    assert good["gold_gain"] == 7.5
    assert good["gold_correlation"] == pytest.approx(1)
    assert bad["gold_correlation"] < 0.5


class Vowels(DataSource):
    """The truth is how many a response has. `knows`: whether it judges one without any."""

    def __init__(self, *, knows: bool) -> None:
        self.knows = knows

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return tiny.PROMPTS

    def judge(self, prompt: Prompt, response: str, *, finished: bool) -> Verdict | None:
        count = sum(letter in "aeiou" for letter in response)
        return Verdict(float(count), None, None) if self.knows or count else None


class Lengths(Says):
    def score(self, samples: Samples) -> Tensor:
        self.asked += len(samples)
        return samples.sequences.response_mask.sum(1).float()


def test_a_pool_is_drawn_from_the_sft_model_and_each_response_scored_once() -> None:
    policy = tiny.scratch()
    policy.freeze_reference()
    tiny.move(policy)
    reward, seeds, prompts = Lengths(), Seeds(3).child("best of n"), tiny.PROMPTS[:2]
    pool = best_of_n.draw_pool(policy, reward, Vowels(knows=True), prompts, 40, seeds)
    drawn = policy.generate(prompts, Sampling(), n=40, role=REFERENCE, rng=seeds.torch("pool")).samples
    assert pool.prompts == tuple(prompts)
    assert pool.scores.flatten().tolist() == drawn.sequences.response_mask.sum(1).tolist()
    assert pool.gold.flatten().tolist() == [sum(letter in "aeiou" for letter in text) for text in drawn.texts]
    assert (
        reward.asked
        == len(set(zip((p.id for p in drawn.prompts), drawn.texts, drawn.finished.tolist(), strict=True)))
        < 80
    )
    with pytest.raises(UserError, match="Vowels knows the truth of some responses and not of others"):
        best_of_n.draw_pool(policy, reward, Vowels(knows=False), prompts, 40, seeds)


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(UserError, match="None of the 1 rankings has two different responses of different rank"):
        measured(Ranking(prompt("a"), ("1", "2"), (0, 0)))


def test_without_a_model_texts_are_handed_on_whole() -> None:
    samples = POLICY.encode(tiny.PROMPTS[:2], ["a b c", ""], finished=[True, False])
    assert samples.texts == ("a b c", "") and samples.sequences.response_mask.sum(1).tolist() == [4, 0]
    asks: list[Callable[[], object]] = [
        lambda: POLICY.scalar("reward"),
        lambda: POLICY.logprobs(samples.sequences),
    ]
    for ask in asks:
        with pytest.raises(UserError, match="add model=<name>"):
            ask()


def test_what_a_policy_prefers_is_its_log_ratio_times_beta_or_the_mean_of_its_tokens() -> None:
    policy = tiny.scratch()
    policy.freeze_reference()
    samples = policy.encode(expand(tiny.PROMPTS[:2], 2), ["a b", "c", "d e f", "g"])
    ratio = PolicyReward(policy, ImplicitReward(beta=0.1))
    assert ratio.score(samples).tolist() == [0, 0, 0, 0]
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.mul_(1.1)
        own = (policy.logprobs(samples.sequences).logprobs * samples.sequences.response_mask).sum(1)
        ref = (policy.logprobs(samples.sequences, role="reference").logprobs * samples.sequences.response_mask).sum(1)
    assert ratio.score(samples).tolist() == pytest.approx((0.1 * (own - ref)).tolist(), abs=1e-5)
    assert float((own - ref).abs().max()) > 0.01
    assert PolicyReward(policy, ImplicitReward()).score(samples).tolist() == pytest.approx(
        (own - ref).tolist(), abs=1e-5
    )
    tokens = samples.sequences.response_mask.sum(1)
    assert len(set(tokens.tolist())) > 1
    mean_token = PolicyReward(policy, ImplicitReward(per_token=True, beta=2.0)).score(samples)
    assert mean_token.tolist() == pytest.approx((2 * own / tokens).tolist(), abs=1e-5)
    token_ratio = PolicyReward(policy, ImplicitReward(per_token=True, beta=5.0, reference=True)).score(samples)
    assert token_ratio.tolist() == pytest.approx((5 * (own - ref) / tokens).tolist(), abs=1e-5)
    whole = PolicyReward(policy, ImplicitReward(beta=0.1, reference=False)).score(samples)
    assert whole.tolist() == pytest.approx((0.1 * own).tolist(), abs=1e-5)


def test_pairs_name_their_content() -> None:
    """Two sources are compared pair by pair, whatever order their rankings come in."""
    rows = [one_of("a", ["3"], ["1"]), one_of("a", ["3"], ["2"]), one_of("b", ["3"], ["1"])]
    one, other = (
        {p.example: p.margin for p in pairs_of(score_rankings(Says(), POLICY, given))} for given in (rows, rows[::-1])
    )
    assert one == other and len(one) == 3
