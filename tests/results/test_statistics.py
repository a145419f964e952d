import math
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alignbench import Direction, ExampleScore, Metric, MetricSpec, NonFiniteError, UserError
from alignbench.results.compared.statistics import clustered_stderr, interval_over_seeds, summarise

SPEC = MetricSpec("a/b", Direction.LOWER)
FLOATS = st.floats(-1e3, 1e3)


def scores(values: list[float], clusters: list[str] | None = None) -> list[ExampleScore]:
    clusters = clusters or [""] * len(values)
    return [ExampleScore("a/b", f"e{i}", v, c) for i, (v, c) in enumerate(zip(values, clusters, strict=True))]


@given(st.lists(FLOATS, min_size=2, max_size=30))
def test_singletons_give_the_usual_standard_error(values):
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert clustered_stderr(scores(values)) == pytest.approx(expected, abs=1e-9)
    named = [f"c{i}" for i in range(len(values))]
    assert clustered_stderr(scores(values, named)) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(FLOATS, st.sampled_from("abcd")), min_size=2, max_size=30))
def test_clusters_against_the_sandwich_formula(rows):
    """Brute force: the sum of e_i e_j over all pairs of one cluster, with the G / (G - 1) correction."""
    values, clusters = [v for v, _ in rows], [c for _, c in rows]
    groups = len(set(clusters))
    assume(groups > 1)
    e = [v - statistics.fmean(values) for v in values]
    n = len(rows)
    pairs = sum(e[i] * e[j] for i in range(n) for j in range(n) if clusters[i] == clusters[j])
    expected = math.sqrt(max(pairs, 0) * groups / (groups - 1)) / n
    assert clustered_stderr(scores(values, clusters)) == pytest.approx(expected, rel=1e-6, abs=1e-5)


def test_copies_of_an_example_in_its_cluster_add_no_certainty():
    once = clustered_stderr(scores([0, 1, 1, 0, 1], list("abcde")))
    thrice = clustered_stderr(scores([0, 1, 1, 0, 1] * 3, list("abcde") * 3))
    assert thrice == pytest.approx(once)
    assert clustered_stderr(scores([0, 1, 1, 0, 1] * 3)) < once


def test_one_cluster_has_no_standard_error():
    assert math.isnan(clustered_stderr(scores([1, 2, 3], ["c"] * 3)))
    assert math.isnan(clustered_stderr(scores([1])))


def test_an_example_named_like_a_cluster_is_not_in_it():
    both = [ExampleScore("a/b", "x", 0.0), ExampleScore("a/b", "y", 1.0, "x")]
    assert clustered_stderr(both) == pytest.approx(0.5)


def test_summary_in_the_order_of_the_specs_without_what_has_no_scores():
    given_scores = [ExampleScore("z/last", "1", 5.0), ExampleScore("a/b", "1", 1.0), ExampleScore("a/b", "2", 3.0)]
    specs = [SPEC, MetricSpec("m/none", Direction.HIGHER), MetricSpec("z/last", Direction.NEITHER)]
    found = summarise(given_scores, specs)
    assert list(found) == ["a/b", "z/last"]
    assert found["a/b"] == Metric(2.0, 1.0, 2, Direction.LOWER)
    assert (found["z/last"].value, found["z/last"].n, found["z/last"].direction) == (5.0, 1, Direction.NEITHER)


def test_a_score_that_is_infinite_is_refused():
    with pytest.raises(NonFiniteError, match="a/b of example 'e1'"):
        summarise(scores([1.0, math.inf]), [SPEC])


def test_what_was_not_answered_is_counted_and_not_averaged():
    assert summarise(scores([1.0, math.nan, 3.0]), [SPEC])["a/b"] == Metric(2.0, 1.0, 2, Direction.LOWER, missing=1)
    assert summarise(scores([math.nan]), [SPEC]) == {}


def test_what_would_make_a_table_quietly_wrong_is_refused():
    with pytest.raises(UserError, match="specs"):
        summarise([ExampleScore("a/typo", "1", 1.0)], [SPEC])
    with pytest.raises(UserError, match="twice"):
        summarise([ExampleScore("a/b", "1", 1.0), ExampleScore("a/b", "1", 2.0)], [SPEC])
    with pytest.raises(UserError, match="same metric: a/b"):
        summarise([], [SPEC, SPEC])


def test_interval_over_seeds_is_student_t():
    # t(0.975) with 2 degrees of freedom is 4.3027, with 1 it is 12.7062 (printed tables).
    assert interval_over_seeds([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert interval_over_seeds([0.0, 1.0]) == pytest.approx(12.7062 * math.sqrt(0.5) / math.sqrt(2), rel=1e-4)
