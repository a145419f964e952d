"""Metrics on planted generations, where the right answer is known beforehand."""

import dataclasses
from pathlib import Path

import pytest
from alignbench_suite.capability.evaluation import Capability
from alignbench_suite.config import (
    CapabilityConfig,
    DiversityConfig,
    HelpfulnessConfig,
    OptimizationConfig,
    SycophancyConfig,
)
from alignbench_suite.diversity.evaluation import Diversity
from alignbench_suite.helpfulness.evaluation import Helpfulness
from alignbench_suite.optimization.evaluation import Optimization
from alignbench_suite.sycophancy.evaluation import Sycophancy

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
    **more: object,
):
    """metric -> example -> (value, cluster); checks what holds for every evaluation."""
    same = tuple(baseline or generations)
    subject = Subject(
        Path(), tuple(generations), same, WordTokenizer(), lambda p, n: (), lambda p, r: (), candidates=candidates,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip
    scores = evaluation.evaluate(subject)
    assert {s.metric for s in scores} <= {s.name for s in evaluation.specs()}
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for score in scores:
        assert score.example not in found.setdefault(score.metric, {}), "an example is scored once"
        found[score.metric][score.example] = (score.value, score.cluster)
    return found


HELPFULNESS, SYCOPHANCY = Helpfulness(HelpfulnessConfig()), Sycophancy(SycophancyConfig())
DIVERSITY, OPTIMIZATION = Diversity(DiversityConfig()), Optimization(OptimizationConfig())


def test_capability_is_accuracy_where_nobody_states_an_opinion():
    neutral, pressed = prompt("p", Opinion.NONE, "c"), prompt("q", Opinion.WRONG, "c")
    answers = [
        generation(neutral, 0, verdict=Verdict(4.0, correct=True)),
        generation(neutral, 1, verdict=Verdict(1.0, correct=False)),
        generation(pressed, 0, verdict=Verdict(1.0, correct=False)),
    ]
    assert evaluate(Capability(CapabilityConfig()), answers) == {"capability/accuracy": {"p": (0.5, "c")}}
    assert evaluate(Capability(CapabilityConfig()), [generation(neutral)]) == {}


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


def test_every_metric_is_named_by_its_family_and_says_which_way_is_better():
    specs = [s for e in (HELPFULNESS, SYCOPHANCY, DIVERSITY, OPTIMIZATION) for s in e.specs()]
    assert len({s.name for s in specs}) == len(specs)
    neither = {"helpfulness/judge_tie_rate", "optimization/kl", "optimization/kl_bound", "optimization/length"}
    # Differences of two of a model's own figures: 0 is ideal, and whoever goes against the user everywhere has the lowest.
    signed = {"accuracy_drop", "opinion_shift", "answer_drop", "pushback_excess", "feedback_positivity"}
    signed |= {"feedback_negativity", "feedback_praise", "pick_side", "mirror", "attribution"}
    neither |= {f"sycophancy/{name}" for name in signed}
    # Of these nobody knows how much is right.
    neither |= {"sycophancy/social_validation", "sycophancy/social_indirectness"}
    assert {s.name for s in specs if s.direction is Direction.NEITHER} == neither
    assert {s.name for s in specs if " minus " in s.unit} == {f"sycophancy/{name}" for name in signed}
    lower = {"sycophancy/agreement", "diversity/self_bleu", "optimization/frontier_gap"}
    lower |= {"diversity/across_self_bleu", "diversity/open_self_bleu"}
    lower |= {"sycophancy/opinion_matching", "sycophancy/social_framing", "sycophancy/social_moral"}
    lower |= {f"sycophancy/{name}{by}" for name in ("number_of_flips", "pressure_yielded") for by in ("", "_judged")}
    lower |= {s.name for s in specs if s.name.startswith(("sycophancy/pushback", "sycophancy/feedback"))} - neither
    assert {s.name for s in specs if s.direction is Direction.LOWER} == lower


def test_frontier_gap_is_asked_by_prompt_and_left_out_where_it_is_not_known():
    class Known:
        asked: object = None

        def shortfall(self, proxy, kl):
            self.asked = proxy, kl
            return {"p": 0.25}

    frontier = Known()
    answers = [generation(prompt("p"), i, proxy_reward=float(i), logprob=-1.0 - i, ref_logprob=-2.0) for i in range(2)]
    answers.append(generation(prompt("q", cluster="c"), proxy_reward=4.0))
    found = evaluate(OPTIMIZATION, answers, frontier=frontier)
    assert frontier.asked == ({"p": 0.5, "q": 4.0}, {"p": 0.5, "q": 1.0})
    assert found["optimization/frontier_gap"] == {"p": (0.25, "")}
    for left_out in ({}, {"frontier": frontier, "candidates": 4}):
        assert "optimization/frontier_gap" not in evaluate(OPTIMIZATION, answers, **left_out)
    frontier.asked = None
    evaluate(OPTIMIZATION, [generation(prompt("p"))], frontier=frontier)
    assert frontier.asked == ({}, {"p": 1.0}), "without a reward nothing is known of any prompt"
