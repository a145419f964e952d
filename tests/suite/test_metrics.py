"""Metrics on planted generations, where the right answer is known beforehand."""

import dataclasses
import math
import random
from collections import Counter
from pathlib import Path

import pytest
from alignbench_suite.config import DiversityConfig, HelpfulnessConfig, OptimizationConfig, SycophancyConfig
from alignbench_suite.diversity import Diversity, distinct, ead, entropy, self_bleu, spread
from alignbench_suite.helpfulness import Helpfulness
from alignbench_suite.optimization import Optimization
from alignbench_suite.sycophancy import Sycophancy
from hypothesis import given
from hypothesis import strategies as st

from alignbench import Direction, Evaluation, Generation, Message, Opinion, Prompt, Subject, Verdict


class WordTokenizer:
    """One id per word, `size` of them: as much of a tokenizer as the evaluations use."""

    def __init__(self, size: int = 140) -> None:
        self.size = size
        self.ids: dict[str, int] = {}

    def __len__(self) -> int:
        return self.size

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [[self.ids.setdefault(w, len(self.ids)) for w in text.split()] for text in texts]}


def prompt(name: str, opinion: Opinion | None = None, cluster: str = "") -> Prompt:
    return Prompt(name, (Message("user", name),), opinion, cluster)


def generation(to: Prompt, index: int = 0, response: str = "the answer", **measured: object) -> Generation:
    fields = {"tokens": 3, "finished": True, "logprob": -2.0, "ref_logprob": -3.0, "entropy": 0.5, **measured}
    return Generation(prompt=to, index=index, response=response, **fields)  # type: ignore[arg-type]


def evaluate(
    evaluation: Evaluation,
    generations: list[Generation],
    baseline: list[Generation] | None = None,
    candidates: int = 1,
):
    """metric -> example -> (value, cluster); checks what holds for every evaluation."""
    same = tuple(baseline or generations)
    subject = Subject(
        Path(), tuple(generations), same, WordTokenizer(), lambda p, n: (), lambda p, r: (), candidates=candidates
    )
    scores = evaluation.evaluate(subject)
    assert {s.metric for s in scores} <= {s.name for s in evaluation.specs()}
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for score in scores:
        assert score.example not in found.setdefault(score.metric, {}), "an example is scored once"
        found[score.metric][score.example] = (score.value, score.cluster)
    return found


HELPFULNESS, SYCOPHANCY = Helpfulness(HelpfulnessConfig()), Sycophancy(SycophancyConfig())
DIVERSITY, OPTIMIZATION = Diversity(DiversityConfig()), Optimization(OptimizationConfig())


class TestHelpfulness:
    def test_gold_reward_and_accuracy_are_means_over_the_samples_of_a_prompt(self):
        p, q = prompt("p", cluster="c"), prompt("q")
        found = evaluate(
            HELPFULNESS,
            [
                generation(p, 0, verdict=Verdict(4.0, correct=True)),
                generation(p, 1, verdict=Verdict(1.0, correct=False)),
                generation(q, 0, verdict=Verdict(2.0)),
            ],
        )
        assert found["helpfulness/gold_reward"] == {"p": (2.5, "c"), "q": (2.0, "")}
        assert found["helpfulness/accuracy"] == {"p": (0.5, "c")}  # q has no right answer

    def test_win_rate_pairs_responses_of_one_index_and_counts_ties_half(self):
        p = prompt("p")
        mine = [generation(p, i, verdict=Verdict(g)) for i, g in enumerate([3.0, 2.0, 1.0, 9.0])]
        theirs = [generation(p, i, verdict=Verdict(g)) for i, g in enumerate([1.0, 2.0, 3.0])]
        assert evaluate(HELPFULNESS, mine[:3], theirs)["helpfulness/win_rate"]["p"][0] == 0.5
        assert evaluate(HELPFULNESS, mine[:2], theirs)["helpfulness/win_rate"]["p"][0] == 0.75
        # The order of the baseline does not matter, its index does; index 3 has no opponent.
        assert evaluate(HELPFULNESS, mine[1:], theirs[::-1])["helpfulness/win_rate"]["p"][0] == 0.25

    def test_without_verdicts_nothing_is_claimed(self):
        assert evaluate(HELPFULNESS, [generation(prompt("p"))]) == {}


class TestSycophancy:
    @staticmethod
    def answers(agreeing: bool) -> list[Generation]:
        """A model that is right with no opinion, and repeats the user's opinion always or never."""
        found = []
        for cluster in "ab":
            for opinion in Opinion:
                p = prompt(f"{cluster}-{opinion.value}", opinion, cluster)
                wrong = opinion is Opinion.WRONG and agreeing
                agrees = None if opinion is Opinion.NONE else (opinion is Opinion.RIGHT) or agreeing
                found += [generation(p, i, verdict=Verdict(0.0, correct=not wrong, agrees=agrees)) for i in range(2)]
        return found

    @pytest.mark.parametrize("agreeing", [True, False])
    def test_a_model_that_always_or_never_agrees(self, agreeing: bool):
        found = evaluate(SYCOPHANCY, self.answers(agreeing))
        wrong = {"a-wrong", "b-wrong"}
        assert found["sycophancy/agreement"].keys() == found["sycophancy/accuracy_wrong"].keys() == wrong
        assert {v for v, _ in found["sycophancy/agreement"].values()} == {float(agreeing)}
        assert {v for v, _ in found["sycophancy/accuracy_wrong"].values()} == {float(not agreeing)}
        assert found["sycophancy/accuracy_drop"] == {c: (float(agreeing), c) for c in "ab"}

    def test_a_cluster_without_its_twin_has_no_drop(self):
        found = evaluate(SYCOPHANCY, [g for g in self.answers(True) if g.prompt.id != "a-none"])
        assert found["sycophancy/accuracy_drop"].keys() == {"b"}

    def test_prompts_without_a_cluster_are_not_one_cluster(self):
        loose = [dataclasses.replace(g, prompt=dataclasses.replace(g.prompt, cluster="")) for g in self.answers(True)]
        assert "sycophancy/accuracy_drop" not in evaluate(SYCOPHANCY, loose)

    def test_data_without_opinions_gives_nothing(self):
        assert evaluate(SYCOPHANCY, [generation(prompt("p"), verdict=Verdict(1.0, correct=True))]) == {}


class TestDiversity:
    @staticmethod
    def of(responses: list[str]) -> dict[str, float]:
        found = evaluate(DIVERSITY, [generation(prompt("p"), i, r) for i, r in enumerate(responses)])
        return {name.partition("/")[2]: values["p"][0] for name, values in found.items()}

    def test_identical_responses_are_the_minimum(self):
        found = self.of(["it is blue"] * 4)
        assert found["unique"] == 0.25
        assert found["self_bleu"] == 1.0
        assert found["distinct_2"] == 2 / 8
        assert all(
            found["ead"] <= self.of(["it is blue"] * 3 + [other])["ead"] for other in ["it is red", "blue", "no"]
        )

    def test_responses_without_a_common_word_are_the_maximum(self):
        found = self.of(["a b c d e", "f g h i j", "k l m n o"])
        assert (found["unique"], found["self_bleu"], found["distinct_2"]) == (1.0, 0.0, 1.0)

    def test_one_sample_has_an_entropy_only(self):
        assert self.of(["it is blue"]) == {"entropy": 0.5}

    def test_entropy_is_weighted_by_tokens(self):
        p = prompt("p")
        long, short = generation(p, entropy=1.0, tokens=9), generation(p, entropy=0.0, tokens=1)
        assert entropy([long, short]) == pytest.approx(0.9)
        # The entropy of no tokens is undefined, often NaN: it must not spread.
        assert entropy([short, generation(p, entropy=math.nan, tokens=0)]) == 0.0
        assert entropy([generation(p, entropy=math.nan, tokens=0)]) is None

    def test_bigrams_do_not_span_responses(self):
        assert distinct([[1, 2], [3, 1, 2]], 2) == 2 / 3  # 12, 31, 12
        assert distinct([[1], [2]], 2) is None

    def test_ead_by_hand(self):
        # n = 1: N = 3 of C = 5; n = 2: N = 2 of C = 3; n = 3: N = 1 of C = 1; longer ones do not exist.
        by_hand = [n / (10 * (1 - 0.9**c)) for n, c in [(3, 5), (2, 3), (1, 1)]]
        assert ead([[1, 2], [1, 2, 3]], 10) == pytest.approx(sum(by_hand) / 3)
        assert ead([[], []], 10) is None

    def test_unigram_ead_of_uniform_draws_is_one_at_any_length(self):
        rng = random.Random(0)
        for length in (10, 100):
            draws = [[[rng.randrange(50) for _ in range(length)] for _ in range(2)] for _ in range(400)]
            assert sum(ead(d, 50, orders=[1]) for d in draws) / 400 == pytest.approx(1, abs=0.02)

    def test_self_bleu_of_short_and_empty_responses(self):
        assert self_bleu([[1], [1]]) == 1.0  # shorter than 4-grams
        assert self_bleu([[], []]) == 1.0
        assert self_bleu([[], [1, 2]]) == 0.0

    def test_self_bleu_by_hand(self):
        # Shared: 3 of 4 unigrams, 2 of 3 bigrams, 1 of 2 trigrams; sacrebleu smooths 0 of 1 four-grams to 1/2.
        expected = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
        assert self_bleu([[1, 2, 3, 4], [1, 2, 3, 5]]) == pytest.approx(expected)

    @given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=2, max_size=5), st.randoms())
    def test_values_lie_in_range_and_ignore_the_order_of_responses(self, responses, rng):
        shuffled = rng.sample(responses, len(responses))
        for measure in (self_bleu, lambda r: distinct(r, 2), lambda r: ead(r, 6)):
            value, again = measure(responses), measure(shuffled)
            assert (value is None) == (again is None)
            if value is not None:
                assert value >= 0 and value == pytest.approx(again)
        assert self_bleu(responses) <= 1

    def test_the_spread_is_the_same_in_any_order_and_takes_every_kind(self):
        kinds = list(Opinion)
        groups = [[generation(prompt(f"q{i}", kinds[i % 3]))] for i in range(1800)]
        chosen = [g[0].prompt.id for g in spread(groups, 150)]
        assert len(set(chosen)) == 150
        assert chosen == [g[0].prompt.id for g in spread(groups[::-1], 150)]
        counts = Counter(kinds[int(name[1:]) % 3] for name in chosen)
        assert min(counts[kind] for kind in kinds) >= 30
        assert spread(groups, 0) is groups and spread(groups, 2000) is groups

    def test_only_self_bleu_is_subsampled(self):
        rng = random.Random(0)
        words = [f"w{i}" for i in range(140)]
        generations = [
            generation(p, i, " ".join(rng.choices(words, k=rng.randint(8, 12))))
            for p in [prompt(f"p{n}") for n in range(1800)]
            for i in range(4)
        ]
        found = evaluate(DIVERSITY, generations)
        assert {name: len(values) for name, values in found.items()} == {
            "diversity/entropy": 1800,
            "diversity/distinct_2": 1800,
            "diversity/ead": 1800,
            "diversity/self_bleu": 150,
            "diversity/unique": 1800,
        }


class TestOptimization:
    def test_means_over_the_samples_of_a_prompt(self):
        p = prompt("p", cluster="c")
        found = evaluate(
            OPTIMIZATION,
            [
                generation(p, 0, logprob=-2.0, ref_logprob=-5.0, tokens=4, proxy_reward=1.0, verdict=Verdict(2.0)),
                generation(p, 1, logprob=-4.0, ref_logprob=-3.0, tokens=8, proxy_reward=0.0, finished=False),
            ],
        )
        assert {name.partition("/")[2]: values["p"] for name, values in found.items()} == {
            "proxy_reward": (0.5, "c"),
            "gold_reward": (2.0, "c"),
            "kl": (1.0, "c"),
            "length": (6.0, "c"),
            "finished": (0.5, "c"),
        }

    def test_rewards_that_do_not_exist_are_left_out(self):
        assert evaluate(OPTIMIZATION, [generation(prompt("p"))]).keys() == {
            "optimization/kl",
            "optimization/length",
            "optimization/finished",
        }

    def test_of_the_best_of_several_a_bound_of_the_kl_is_known(self):
        """log n - (n - 1) / n nats at n = 8; log-probabilities of the checkpoint say nothing of what was chosen."""
        found = evaluate(OPTIMIZATION, [generation(prompt("p"))], candidates=8)
        assert found["optimization/kl_bound"] == {"p": (pytest.approx(2.0794415 - 0.875), "")}
        assert found.keys() == {"optimization/kl_bound", "optimization/length", "optimization/finished"}


def test_the_entropy_of_the_checkpoint_is_not_that_of_its_best():
    group = [generation(prompt("p"), i, response=text) for i, text in enumerate(("a b", "a c"))]
    alone, best = evaluate(DIVERSITY, group), evaluate(DIVERSITY, group, candidates=2)
    assert alone.keys() - best.keys() == {"diversity/entropy"}
    assert all(alone[name] == best[name] for name in best)


def test_every_metric_is_named_by_its_family_and_says_which_way_is_better():
    specs = [s for e in (HELPFULNESS, SYCOPHANCY, DIVERSITY, OPTIMIZATION) for s in e.specs()]
    assert len({s.name for s in specs}) == len(specs) == 17
    neither = {"optimization/kl", "optimization/kl_bound", "optimization/length"}
    assert {s.name for s in specs if s.direction is Direction.NEITHER} == neither
    lower = {"sycophancy/agreement", "sycophancy/accuracy_drop", "diversity/self_bleu"}
    assert {s.name for s in specs if s.direction is Direction.LOWER} == lower
