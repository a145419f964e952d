import math
import statistics
from dataclasses import asdict, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alignbench import Direction, ExampleScore, Metric, MetricSpec, NonFiniteError, UserError
from alignbench.results.compared.statistics import clustered_stderr, interval, interval_over_seeds, summarise
from benchmarks import coverage

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
    ends = {"low": pytest.approx(2 - 12.7062, rel=1e-4), "high": pytest.approx(2 + 12.7062, rel=1e-4)}
    expected = {**asdict(Metric(2.0, 1.0, 2, Direction.LOWER, clusters=2)), **ends}
    assert asdict(found["a/b"]) == expected
    assert (found["z/last"].value, found["z/last"].n, found["z/last"].direction) == (5.0, 1, Direction.NEITHER)


def test_a_score_that_is_infinite_is_refused():
    with pytest.raises(NonFiniteError, match="a/b of example 'e1'"):
        summarise(scores([1.0, math.inf]), [SPEC])


def test_what_was_not_answered_is_counted_and_not_averaged():
    found = summarise(scores([1.0, math.nan, 3.0]), [SPEC])["a/b"]
    assert (found.value, found.stderr, found.n, found.missing, found.clusters) == (2.0, 1.0, 2, 1, 2)
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


SHARE = MetricSpec("a/b", Direction.LOWER, share=True)


def test_one_seed_has_student_s_t_of_its_clusters():
    """Scores that lie evenly around their mean: five clusters leave four degrees of freedom."""
    clusters = [f"c{i // 2}" for i in range(10)]
    found = summarise(scores([float(i) for i in range(10)], clusters), [SPEC])["a/b"]
    half = 2.776445 * found.stderr
    assert (found.clusters, found.low, found.high) == (
        5,
        pytest.approx(4.5 - half, rel=1e-4),
        pytest.approx(4.5 + half, rel=1e-4),
    )
    assert interval([found]) == (found.low, found.high)


@pytest.mark.parametrize("spec", [SPEC, SHARE])
def test_one_cluster_has_no_interval(spec):
    found = summarise(scores([0, 1, 1], ["c"] * 3), [spec])["a/b"]
    assert found.clusters == 1 and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("yes", [0, 1, 4, 8])
def test_the_interval_of_a_share_is_clopper_and_pearson_s(yes):
    scipy = pytest.importorskip("scipy.stats")
    found = summarise(scores([1.0] * yes + [0.0] * (8 - yes)), [SHARE])["a/b"]
    exact = scipy.binomtest(yes, 8).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == (pytest.approx(exact.low, rel=1e-6), pytest.approx(exact.high, rel=1e-6))
    assert found.high - found.low > 0.3


def test_clusters_that_agree_count_once_each():
    eight = summarise(scores([0.0] * 80, [f"c{i // 10}" for i in range(80)]), [SHARE])["a/b"]
    assert (eight.low, eight.high) == (0.0, pytest.approx(0.3694, abs=1e-4))


def test_seeds_that_agree_on_a_share_leave_it_uncertain():
    seeds = [summarise(scores([0.0] * 8), [SHARE])["a/b"]] * 3
    low, high = interval(seeds)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 24))


def test_a_model_compared_with_itself_has_no_interval():
    """Every pair is a tie: one half is known, of one seed and of several. An older record brings an interval for it."""
    ties = summarise(scores([0.5] * 8, [f"c{i // 2}" for i in range(8)]), [SHARE])["a/b"]
    older = replace(ties, low=0.46, high=0.54)
    for metrics in ([ties], [ties] * 3, [older], [older] * 3):
        assert all(map(math.isnan, interval(metrics)))
    balanced = summarise(scores([0, 1] * 4, [f"c{i // 2}" for i in range(8)]), [SHARE])["a/b"]
    assert balanced.stderr == 0 and balanced.low < 0.4 and balanced.high > 0.6, (
        "answers that happen to balance were drawn"
    )
    seeds = [summarise(scores([0.0, 1.0, 1.0, 0.0]), [SHARE])["a/b"]] * 3
    low, high = interval(seeds)
    assert low < 0.4 and high > 0.6, "seeds that happen to agree were drawn"


def test_equal_shares_of_several_answers_were_drawn():
    """One of four answers right on each of three questions: a coincidence, and nothing that is known."""
    found = summarise(scores([0.25] * 3), [SHARE])["a/b"]
    assert 0 < found.low < 0.1 and 0.5 < found.high < 1
    assert all(0 < end < 1 for end in interval([found] * 3))


def test_an_interval_is_longer_where_the_scores_have_their_tail():
    right = summarise(scores([0.0] * 9 + [1.0]), [SPEC])["a/b"]
    left = summarise(scores([0.0] * 9 + [-1.0]), [SPEC])["a/b"]
    assert right.high - right.value > right.value - right.low == pytest.approx(2.2622 * right.stderr, rel=1e-4)
    assert (left.low, left.high) == (pytest.approx(-right.high), pytest.approx(-right.low))


@pytest.mark.parametrize("clusters", [2, 3, 8])
@pytest.mark.parametrize("share", [False, True])
def test_intervals_of_few_clusters_hold_the_truth(clusters, share):
    case = coverage.Case("share", True, coverage.shares(0.1, 1)) if share else coverage.MEANS[0]
    held, shown = coverage.coverage(case, clusters, 1, 400)
    assert shown == 1 and held > 0.92
