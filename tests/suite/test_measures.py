"""Measures of sets of texts, against closed forms, published figures and texts that people wrote."""

import csv
import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from alignbench_suite.tasks.diversity.open_ended import embedded, noveltybench
from alignbench_suite.text_measures.embeddings import cosine_distance, cosines, vendi
from alignbench_suite.text_measures.measures import EMBEDDED, LEXICAL, NOVELTY, Known, diversity_of
from alignbench_suite.text_measures.ngrams import distinct, ead, self_bleu
from alignbench_suite.text_measures.novelty import (
    classes_by_cosine,
    classes_by_text,
    distinct_classes,
    normalised,
    utility,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import eigvalsh

from alignbench import Direction, UserError
from tests.shared_data import shared_data


def tokens(texts: Sequence[str]) -> list[list[int]]:
    ids: dict[str, int] = {}
    return [[ids.setdefault(word, len(ids)) for word in text.split()] for text in texts]


def unit(rows: list[list[float]]) -> np.ndarray:
    vectors = np.array(rows, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class TestNgrams:
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
        assert self_bleu([[1, 2]]) is None  # there are no others

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


class TestEmbeddings:
    def test_two_vectors_in_closed_form(self):
        # The kernel / 2 of two vectors of cosine c has the eigenvalues (1 + c) / 2 and (1 - c) / 2.
        for c in (0.0, 0.3, 0.9, -0.5):
            pair = unit([[1, 0], [c, math.sqrt(1 - c * c)]])
            p, q = (1 + c) / 2, (1 - c) / 2
            assert vendi(pair) == pytest.approx(math.exp(-p * math.log(p) - q * math.log(q)))
            assert cosine_distance(pair) == pytest.approx(1 - c)

    def test_copies_of_orthogonal_vectors_count_by_their_entropy(self):
        three, one = [[1, 0, 0]] * 3, [[0, 1, 0]]
        assert vendi(unit([*three, *one])) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
        assert cosine_distance(unit([*three, *one])) == pytest.approx(3 / 6)  # 3 of 6 pairs are orthogonal

    @given(st.integers(2, 6), st.integers(0, 2**32 - 1))
    def test_vendi_is_that_of_the_whole_kernel(self, k, seed):
        """Copies taken together or not: the eigenvalues of K / n, as the paper defines it."""
        rng = np.random.default_rng(seed)
        vectors = unit(rng.normal(size=(k, 4)).tolist())[rng.integers(0, k, size=k)]
        eigenvalues = eigvalsh(vectors @ vectors.T / k)
        eigenvalues = eigenvalues[eigenvalues > 1e-12]
        assert vendi(vectors) == pytest.approx(float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum())))
        assert vendi(vectors) * (1 + 1e-12) >= 1 and vendi(vectors) <= k * (1 + 1e-12)

    def test_a_single_text_has_no_diversity_to_speak_of(self):
        assert vendi(unit([[1, 2]])) is cosine_distance(unit([[1, 2]])) is None


class TestNovelty:
    def test_what_does_not_make_a_text_another(self):
        assert {normalised(t) for t in ("Blue", " blue.", "**Blue.**\n", '"BLUE"', "blue !", "# blue")} == {"blue"}
        assert len({normalised(t) for t in ("-5", "5", "5 6", "56", "3.5", "🔮", "🌟", "?", "!", "")}) == 10
        assert len({normalised(t) for t in ("C", "C#", "C++", "5", "5%", "A", "F#")}) == 7
        assert normalised("**C#.**") == normalised("c#") == "c#"

    def test_classes_by_cosine_join_the_first_that_is_near_to_its_first_member(self):
        angles = np.deg2rad([0, 20, 40, 90])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        # 40 degrees are near to 20, but not to 0, with which that class began.
        assert classes_by_cosine(vectors, math.cos(math.radians(25))) == [0, 0, 1, 2]
        assert classes_by_cosine(vectors, 0.999999) == [0, 1, 2, 3]
        assert classes_by_cosine(vectors[[0, 1, 0]], 1.0) == [0, 1, 0]

    def test_utility_by_hand(self):
        # Weights 1, .8, .64, of which the second response's, a repetition, counts for nothing.
        assert utility([0, 0, 1], [5.0, 9.0, 2.0]) == pytest.approx((5 + 0.64 * 2) / (1 + 0.8 + 0.64))
        assert utility([0, 1, 2], [3.0, 3.0, 3.0]) == pytest.approx(3.0)

    def test_the_published_file(self):
        """gemini-1.5-pro on the curated prompts. The file numbers classes from 0 and calls the last number `distinct`: its
        mean_distinct is the number of classes less one, and so is the one here not."""
        folder = shared_data("noveltybench")
        summary = json.loads((folder / "gemini-1.5-pro.nb-curated.summary.json").read_text())
        with (folder / "gemini-1.5-pro.nb-curated.scores.jsonl").open() as file:
            rows = [json.loads(line) for line in file]
        utilities = [utility(row["partition"], row["generation_scores"]) for row in rows]
        assert utilities == pytest.approx([row["utility"] for row in rows])
        assert sum(utilities) / len(rows) == pytest.approx(summary["mean_utility"]) == pytest.approx(2.8658255953362204)
        classes = sum(distinct_classes(row["partition"]) for row in rows) / len(rows)
        assert classes == pytest.approx(summary["mean_distinct"] + 1) == pytest.approx(1.83)
        # Equal texts are never in two classes of the paper's, so that ours are at least as many.
        by_text = [distinct_classes(classes_by_text(row["generations"])) for row in rows]
        assert all(ours >= distinct_classes(row["partition"]) for ours, row in zip(by_text, rows, strict=True))

    def test_the_curated_prompts_are_read_as_they_are(self):
        prompts = noveltybench(path=str(shared_data("noveltybench")))["test"]
        assert len(prompts) == 100
        (riddle,) = (p for p in prompts if p["id"] == "curated-13")
        assert riddle["prompt"] == "Tell me a riddle."


def test_the_own_prompts():
    prompts = list(embedded()["test"])
    assert len({p["id"] for p in prompts}) == len({p["prompt"] for p in prompts}) == len(prompts) == 40


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no noveltybench/curated.jsonl"),
        ("", "is empty"),
        ('{"id": "a", "prompt": "b"}\nnonsense\n', "line 2"),
        ('{"id": "a"}\n', "row 1"),
        ('{"id": "a", "prompt": " "}\n', "row 1"),
        ('["a"]\n', "row 1"),
        ('{"id": "a", "prompt": "b"}\n{"id": "a", "prompt": "c"}\n', "'a' stands twice"),
    ],
)
def test_prompts_that_cannot_be_read(tmp_path, content, said):
    if content is not None:
        (tmp_path / "curated.jsonl").write_text(content)
    with pytest.raises(UserError, match=said) as error:
        noveltybench(path=str(tmp_path))
    assert "\n" not in str(error.value)


class TestEveryMeasure:
    """K = 4 texts of six words that do not repeat themselves: the least and the most that each measure says."""

    SAME = ("a b c d e f",) * 4
    DIFFERENT = ("a b c d e f", "g h i j k l", "m n o p q r", "s t u v w x")
    LEAST_AND_MOST = {  # noqa: RUF012
        **{f"distinct_{n}": (1 / 4, 1.0) for n in (1, 2, 3, 4)},
        "self_bleu": (1.0, 0.0),
        "unique": (1 / 4, 1.0),
        "novelty": (0.0, 1.0),
        "novelty_distinct": (1.0, 4.0),
        "cosine_distance": (0.0, 1.0),
        "vendi": (1.0, 4.0),
    }

    @staticmethod
    def of(texts: Sequence[str]) -> dict[str, float]:
        names = sorted(set(texts))
        vectors = {text: np.eye(len(names))[i] for i, text in enumerate(names)}
        if len(names) == 1:  # a direction that rounds
            vectors = {names[0]: unit([[0.1, 0.2, 0.3]])[0]}
        known = Known(dict(zip(texts, tokens(texts), strict=True)), 100, vectors)
        return {name: m.of(texts, known) for name, m in {**LEXICAL, **NOVELTY, **EMBEDDED}.items()}

    def test_identical_texts_are_exactly_the_least_and_all_different_ones_exactly_the_most(self):
        same, different = self.of(self.SAME), self.of(self.DIFFERENT)
        found = {name: (same[name], pytest.approx(different[name], abs=0)) for name in same if name != "ead"}
        assert found == self.LEAST_AND_MOST
        others = [[*self.SAME[:3], other] for other in ("a b c d e g", "a b c", "b", "g h i j k l")]
        assert all(same["ead"] < self.of(texts)["ead"] for texts in others)

    def test_diversity_of_a_set_is_what_can_be_said_without_a_model(self):
        mixed = ["a b c d e f", "a b c d e f.", "g h i j k l"]
        found = diversity_of(mixed, tokens(mixed), 100)
        assert found.keys() == self.LEAST_AND_MOST.keys() - EMBEDDED.keys() | {"ead"}
        assert found["unique"] == 1.0 and found["novelty"] == 0.5 and found["novelty_distinct"] == 2.0
        assert found["distinct_4"] == distinct(tokens(mixed), 4)
        assert diversity_of(["alone"], [[1]], 100) == {}
        assert diversity_of(["", ""], [[], []], 100).keys() == {"self_bleu", "unique", "novelty", "novelty_distinct"}


def word_vectors(texts: list[str]) -> dict[str, np.ndarray]:
    """Bags of words, as the simplest embedding."""
    ids: dict[str, int] = {}
    rows = [[ids.setdefault(word, len(ids)) for word in text.lower().split()] for text in texts]
    return {
        text: unit([np.bincount(row, minlength=len(ids)).tolist()])[0] for text, row in zip(texts, rows, strict=True)
    }


def test_people_who_describe_one_thing_are_more_alike_than_people_who_describe_many():
    """E2E NLG: several people wrote of one restaurant. K copies of one text, K texts of one restaurant, K texts of K
    restaurants: each of the measures rises in this order, and falls where less is more."""
    people = defaultdict(list)
    with (shared_data("e2e-nlg") / "devset.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            people[row["mr"]].append(row["ref"])
    rng = random.Random(0)
    one = [rng.sample(texts, 4) for texts in people.values() if len(texts) >= 4][:100]
    shuffled = [text for texts in one for text in texts]
    rng.shuffle(shuffled)
    many = [shuffled[i : i + 4] for i in range(0, len(shuffled), 4)]
    copies = [[texts[0]] * 4 for texts in one]
    every = sorted(set(shuffled))
    known = Known(dict(zip(every, tokens(every), strict=True)), 49152, word_vectors(every))

    def average(measure: Callable, sets: list[list[str]]) -> float:
        return sum(measure.of(texts, known) for texts in sets) / len(sets)

    for name, measure in {**LEXICAL, **NOVELTY, **EMBEDDED}.items():
        least, middle, most = (average(measure, sets) for sets in (copies, one, many))
        assert (least > middle > most) if measure.direction is Direction.LOWER else (least < middle < most), name
    assert average(NOVELTY["novelty"], copies) == average(EMBEDDED["cosine_distance"], copies) == 0


def test_cosines_of_equal_vectors_are_exactly_one():
    vectors = unit(np.random.default_rng(0).normal(size=(5, 7)).tolist())
    assert (np.diag(cosines(vectors)) == 1).all()
    assert cosines(vectors) == pytest.approx(vectors @ vectors.T)
