"""Differences: the spread against a bootstrap that draws, known truth, and the rate of false alarms; then from folders."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbench import Direction, ExampleScore, Metric, UserError
from alignbench.results.compared.paired import differences, estimate, holm, on_shared_seeds
from alignbench.results.compared.primary import Primary, primary_of
from alignbench.results.compared.statistics import clustered_stderr
from alignbench.results.compared.table import build_table
from alignbench.results.disk.runs import find_runs
from alignbench.results.shown import render
from alignbench.results.shown.cells import mark
from tests.results.on_disk import dpo, ppo, table_of, write, write_scores, write_with_baseline

PROMPTS, PER_PROMPT = 60, 3
CLUSTERS = np.repeat(np.arange(PROMPTS), PER_PROMPT)


def rows(rng, seeds: int, *, prompt, seed_sd: float, noise: float = 1.0, shared=None):
    """[seed, example]: the prompt's own effect, the seed's, and noise that the examples of a prompt share in part."""
    seed = (rng.normal(size=(seeds, 1)) if shared is None else shared) * seed_sd
    cluster = rng.normal(size=(seeds, PROMPTS))[:, CLUSTERS] * noise * 0.6
    return prompt[CLUSTERS] + seed + cluster + rng.normal(size=(seeds, len(CLUSTERS))) * noise * 0.8


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(
    ("seed_sd", "prompt_sd"),
    [(0.1, 0.0), (0.4, 0.0), (0.4, 1.0), (0.1, 1.0)],
    ids=["little between seeds", "seeds", "seeds and prompts", "prompts"],
)
def test_noise_is_called_a_difference_as_often_as_said_and_an_effect_is_found(seeds, paired, seed_sd, prompt_sd):
    """Rows without a true difference. `prompt_sd`: how differently the two rows answer one prompt, nothing on average."""
    rng = np.random.default_rng([seeds, paired, int(10 * seed_sd), int(prompt_sd)])
    values, halves = [], []
    for _ in range(500):
        common = rng.normal(size=PROMPTS)  # of prompts: some are harder, for everybody
        sft = rng.normal(size=(seeds, 1)) if paired else None
        a = rows(rng, seeds, prompt=common + rng.normal(size=PROMPTS) * prompt_sd, seed_sd=seed_sd, shared=sft)
        b = rows(rng, seeds, prompt=common, seed_sd=seed_sd, shared=sft)
        a += rng.normal(size=(seeds, 1)) * seed_sd  # what training adds
        result = estimate(a, b, CLUSTERS, paired=paired)
        values.append(result.value)
        halves.append(result.half_interval())
    false_alarms = np.mean(np.abs(values) > halves)
    effect = 2 * np.median(halves)
    power = np.mean(np.abs(np.add(values, effect)) > halves)
    print(f"{seeds} seeds, {paired=}, {seed_sd=}, {prompt_sd=}: {false_alarms:.1%} false alarms, {power:.1%} power")
    assert 0.01 <= false_alarms <= 0.08  # where prompts hardly count, or training does, it is on the safe side
    assert power > 0.9


def test_pairing_by_seed_removes_what_the_seeds_share():
    rng = np.random.default_rng(0)
    common, sft = rng.normal(size=PROMPTS), rng.normal(size=(5, 1))
    a = rows(rng, 5, prompt=common, seed_sd=3.0, shared=sft) + 0.5
    b = rows(rng, 5, prompt=common, seed_sd=3.0, shared=sft)
    paired, unpaired = (estimate(a, b, CLUSTERS, paired=p) for p in (True, False))
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.p_value < 0.05 < 0.5 < unpaired.p_value


def test_pairing_by_example_removes_what_the_prompts_share():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=PROMPTS) * 10
    a, b = (rows(rng, 1, prompt=hard, seed_sd=0, noise=0.1) for _ in range(2))
    assert spread(estimate(a, b, CLUSTERS, paired=True)) < 0.1 < spread(estimate(a, a * 0, CLUSTERS, paired=True))


@given(st.lists(st.tuples(st.floats(-9, 9), st.sampled_from("abcde")), min_size=3, max_size=30))
@settings(max_examples=50)
def test_one_seed_is_the_clustered_standard_error_of_the_differences(examples):
    values = np.array([[value for value, _ in examples]])
    codes = np.unique([cluster for _, cluster in examples], return_inverse=True)[1]
    found = estimate(values, np.zeros_like(values), codes, paired=True)
    expected = clustered_stderr([ExampleScore("m/m", str(i), v, c) for i, (v, c) in enumerate(examples)])
    assert (found is None) == math.isnan(expected)
    if found:
        assert not found.over_seeds
        assert spread(found) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_spread_is_that_of_a_hierarchical_bootstrap():
    """Drawn here: seeds, and inside them whole clusters, these without the noise that the seeds bring already."""
    rng = np.random.default_rng(1)
    a = rows(rng, 4, prompt=rng.normal(size=PROMPTS), seed_sd=0.1, noise=2.0)
    b = rows(rng, 4, prompt=rng.normal(size=PROMPTS), seed_sd=0.1, noise=2.0)
    difference, draws = a - b, 20_000
    means, average = difference.mean(1), difference.mean(0)
    noise = np.mean([clustered_stderr(_scores(row - average)) ** 2 for row in difference]) / 3
    share = 1 - noise / clustered_stderr(_scores(average)) ** 2
    seeds = (
        rng.multinomial(3, [1 / 4] * 4, size=draws) / 3
    )  # S - 1 of S (Rao & Wu 1988): the variance is then not too small
    clusters = rng.multinomial(PROMPTS, [1 / PROMPTS] * PROMPTS, size=draws) / PROMPTS
    by_cluster = (average - average.mean()).reshape(PROMPTS, PER_PROMPT).mean(1)
    drawn = seeds @ means + math.sqrt(share) * clusters @ by_cluster
    assert 0.2 < share < 0.8
    assert spread(estimate(a, b, CLUSTERS, paired=True)) == pytest.approx(drawn.std(), rel=0.03)


def spread(found) -> float:
    return math.sqrt(found.by_seeds + found.by_prompts)


def _scores(values):
    return [ExampleScore("m/m", str(i), v, str(c)) for i, (v, c) in enumerate(zip(values, CLUSTERS, strict=True))]


def test_seeds_without_noise_between_examples_is_welch():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(5, 1)), 3 * rng.normal(size=(4, 1))
    found = estimate(np.tile(a, 30), np.tile(b, 30), np.arange(30), paired=False)
    expected = ttest_ind(a[:, 0], b[:, 0], equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.seed_degrees == pytest.approx(expected.df)
    assert found.half_interval() == pytest.approx(expected.confidence_interval().high - found.value)


def test_seeds_that_happen_to_agree_are_not_certain():
    """Each seed fails on one prompt, not the same: their means agree to the last digit, and the examples vary."""
    a, b = np.ones((3, 300)), np.ones((3, 300))
    a[range(3), range(3)] = 0
    found = estimate(a, b, np.arange(300), paired=True)
    assert found.over_seeds and found.half_interval() > 0 and found.p_value > 0.05


@given(st.integers(0, 10_000), st.integers(2, 6), st.booleans(), st.sampled_from([0.05, 0.001]))
@settings(max_examples=50)
def test_seeds_make_no_question_more_certain(draw, seeds, paired, level):
    """Their mean's own interval over examples is the least that a reader can be told, at any level."""
    rng = np.random.default_rng(draw)
    a, b = rng.normal(size=(2, seeds, len(CLUSTERS)))
    b += rng.normal(size=len(CLUSTERS)) - b.mean(1, keepdims=True)  # these seeds agree better than chance lets them
    a -= a.mean(1, keepdims=True) + rng.normal(size=(seeds, 1)) * rng.choice([1e-3, 0.1])
    found = estimate(a, b, CLUSTERS, paired=paired)
    alone = estimate(a.mean(0)[None], b.mean(0)[None], CLUSTERS, paired=True)
    assert found.half_interval(level) >= alone.half_interval(level) * (1 - 1e-9)
    assert found.p_value >= alone.p_value * (1 - 1e-6)
    assert found.detectable(1) >= alone.detectable(1) * (1 - 1e-9)


def test_an_example_that_is_missing_counts_in_no_mean():
    a, b = np.array([[1.0, 2.0, math.nan, 4.0]]), np.array([[1.0, math.nan, 3.0, 4.0]])
    assert estimate(a, b, np.arange(4), paired=True).value == pytest.approx(7 / 3 - 8 / 3)


@given(st.permutations(range(5)))
def test_holm_gives_the_numbers_of_a_worked_example(order):
    """p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") in R."""
    p, corrected = [0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]
    assert holm([p[i] for i in order]) == pytest.approx([corrected[i] for i in order])
    assert holm([]) == []


class TestFromFolders:
    METRIC = "helpfulness/score"

    def runs(self, folder, *, seeds=(0, 1, 2), effect=0.0, settings=ppo, n=200):
        """A run per seed with an SFT model of its own, both with scores."""
        for seed in seeds:
            rng = np.random.default_rng([seed, n])
            run = write_with_baseline(folder, settings(seed=seed), 0.7)
            prompts = rng.normal(size=n)
            for directory, shift in ((run, effect), (run.baseline(), 0.0)):
                write_scores(directory, self.METRIC, list(prompts + rng.normal(size=n) * 0.3 + shift))
        return table_of(folder)

    def test_each_row_against_its_sft_model(self, tmp_path):
        self.runs(tmp_path, effect=0.5)
        table = self.runs(tmp_path, settings=dpo)
        found = {d.row: d for d in differences(table, primary=[self.METRIC])}
        assert found.keys() == {("ppo",), ("dpo",)}
        ppo_found, dpo_found = found["ppo",], found["dpo",]
        assert (ppo_found.baseline, ppo_found.metric) == (("sft",), self.METRIC)
        assert ppo_found.low < 0.5 < ppo_found.high and ppo_found.significant and not dpo_found.significant
        assert (ppo_found.over_seeds, ppo_found.seeds, ppo_found.examples) == (True, 3, 200)
        assert ppo_found.p_holm == pytest.approx(2 * ppo_found.p_value)
        assert ppo_found.effect_size == pytest.approx(0.5 / math.sqrt(1 + 0.3**2), rel=0.15)
        by_hand = table.rows[-1].cells[self.METRIC].value - table.rows[0].cells[self.METRIC].value
        assert ppo_found.value == pytest.approx(by_hand), "what a reader gets who subtracts the cells"
        assert differences(table, primary=[self.METRIC]) == differences(table, primary=[self.METRIC])
        text = render.markdown(table, differences(table, primary=[self.METRIC]))
        assert "| helpfulness/score ↑ |" in text and text.count("▲") == 3, "a mark in each table and in the legend"

    def test_any_row_is_a_baseline(self, tmp_path):
        self.runs(tmp_path, effect=0.5)
        table = self.runs(tmp_path, settings=dpo)
        found = {d.row: d for d in differences(table, "dpo", primary=[self.METRIC])}
        assert found.keys() == {("sft",), ("ppo",)}
        (back,) = [d for d in differences(table, "ppo") if d.row == ("dpo",)]
        assert back.value == pytest.approx(-found["ppo",].value) and back.p_value == found["ppo",].p_value

    def test_a_row_that_is_not_there_is_refused_where_there_is_nothing_to_compare_too(self, tmp_path):
        write(tmp_path, dpo())
        with pytest.raises(UserError, match="Unknown row 'dpq'.*dpo"):
            differences(table_of(tmp_path), "dpq")
        assert differences(table_of(tmp_path), "dpo") == ()

    def test_one_seed_is_over_examples_and_marked(self, tmp_path):
        table = self.runs(tmp_path, seeds=[4], effect=0.5)
        (found,) = differences(table, primary=[self.METRIC])
        assert (found.over_seeds, found.seeds, found.significant) == (False, 1, True)
        text = render.markdown(table, [found])
        assert "△" in text and "▲" not in text and "training noise left out" in text

    def test_rows_that_share_seeds_are_compared_seed_by_seed(self, tmp_path):
        for seed, sft_model in enumerate((-5.0, 0.0, 5.0)):
            rng = np.random.default_rng(seed)
            for config, effect in ((ppo, 0.5), (dpo, 0.0)):
                values = sft_model + effect + rng.normal(size=100) * 0.1
                write_scores(write(tmp_path, config(seed=seed)), self.METRIC, list(values))
        (found,) = differences(table_of(tmp_path), "dpo", primary=[self.METRIC])
        assert found.significant and found.high - found.low < 0.5, "seeds differ by 5, and the two rows alike"

    def test_other_seeds_are_compared_unpaired(self, tmp_path):
        self.runs(tmp_path, seeds=[0, 1, 2], effect=0.5)
        table = self.runs(tmp_path, seeds=[5, 6], settings=dpo)
        (found,) = [d for d in differences(table, "dpo", primary=[self.METRIC]) if d.row == ("ppo",)]
        assert found.over_seeds and found.seeds == 2 and found.low < 0.5 < found.high

    @pytest.mark.parametrize("damage", ["absent", "cut", "empty", "columns", "inf", "twice"])
    def test_a_run_without_sound_examples_keeps_its_row_and_is_said(self, tmp_path, damage):
        from alignbench.results.compared.examples import read_examples

        self.runs(tmp_path, effect=0.5)
        self.runs(tmp_path, effect=0.5, settings=dpo)
        victim = next(run.path for run in find_runs([tmp_path])[0] if run.record.identity.algo == "dpo")
        file = victim / "examples.parquet"
        score = ExampleScore(self.METRIC, "e0", 1.0)
        if damage == "absent":
            file.unlink()
        elif damage in ("cut", "empty"):
            file.write_bytes(file.read_bytes()[: 300 if damage == "cut" else 0])
        elif damage == "columns":
            import polars

            polars.DataFrame({"metric": ["a"]}).write_parquet(file)
        else:
            from alignbench.results.disk.directory import RunDirectory

            bad = [ExampleScore(self.METRIC, "e1", math.inf)] if damage == "inf" else [score]
            RunDirectory(victim).write_examples([score, *bad])
        table = table_of(tmp_path)
        examples = read_examples(run for row in table.rows for run in row.runs)
        (problem,) = examples.problems
        assert str(victim) in problem and "examples.parquet" in problem and "\n" not in problem
        found = {d.row: d.seeds for d in differences(table, examples=examples)}
        assert found == {("ppo",): 3, ("dpo",): 2}
        assert [row.label for row in table.rows] == [("sft",), ("dpo",), ("ppo",)]

    def test_a_metric_that_only_some_rows_have_is_no_difference(self, tmp_path):
        run = write_with_baseline(tmp_path, ppo(), 0.5)
        write_scores(run, self.METRIC, [0.0, 1.0, 2.0])
        run.baseline().write_examples([])
        assert differences(table_of(tmp_path)) == ()

    @pytest.mark.parametrize(("others", "pairs"), [((2, 3, 4), False), ((0, 1, 2, 3, 4), True), ((0, 1), True)])
    def test_rows_are_paired_where_one_has_all_seeds_of_the_other(self, tmp_path, others, pairs):
        """Else nothing is dropped: seeds that one of them alone has say something too."""
        rng = np.random.default_rng(0)
        for algorithm, seeds in ((ppo, (0, 1, 2)), (dpo, others)):
            for seed in seeds:
                write_scores(write(tmp_path, algorithm(seed=seed)), self.METRIC, list(rng.normal(seed, 1, size=50)))
        table = table_of(tmp_path)
        (found,) = differences(table, "ppo", primary=[self.METRIC])
        means = {row.label[0]: [run.record.metrics[self.METRIC].value for run in row.runs] for row in table.rows}
        n = min(3, len(others)) if pairs else 5
        expected = np.mean(means["dpo"][:n]) - np.mean(means["ppo"][:n])
        assert found.value == pytest.approx(expected) and found.seeds == min(3, len(others))
        said = on_shared_seeds(table, [found])
        assert said == ([f"Differences are of the seeds that both rows have: dpo and ppo on {n}."] if pairs else [])

    def test_the_gap_of_rewards_that_were_not_all_given_lacks_answers(self, tmp_path):
        run = write(tmp_path, ppo())
        write_scores(run, "optimization/proxy_reward", [1.0] * 9)
        write_scores(run, "optimization/gold_reward", [0.5] * 6 + [math.nan] * 3)
        (row,) = table_of(tmp_path).rows
        assert row.cells["optimization/proxy_gold_gap"].missing == 3

    def test_the_proxy_gold_gap_is_a_row_with_differences(self, tmp_path):
        rng = np.random.default_rng(0)
        for seed in (0, 1, 2):
            run = write_with_baseline(tmp_path, ppo(seed=seed), 0.5)
            for directory, proxy, gold in ((run, 2.0, -1.0), (run.baseline(), 0.0, 1.0)):
                for name, mean in (("proxy_reward", proxy), ("gold_reward", gold)):
                    write_scores(directory, f"optimization/{name}", list(rng.normal(mean, 0.5, size=50)))
        table = table_of(tmp_path)
        (found,) = [
            d
            for d in differences(table, primary=["optimization/proxy_gold_gap"])
            if d.metric == "optimization/proxy_gold_gap"
        ]
        assert found.value == pytest.approx(4.0, abs=0.3) and found.significant
        cell = table.rows[-1].cells["optimization/proxy_gold_gap"]
        assert cell.value == pytest.approx(3.0, abs=0.3) and cell.over_seeds

    def test_proxy_rewards_of_other_reward_models_are_not_compared(self, tmp_path):
        proxy = "optimization/proxy_reward"
        for name, b_agree in (("honest", 0.0), ("mild", 2.7)):
            for baseline in (True, False):
                given_settings = ppo(annotator={"b_agree": b_agree})
                run = write(tmp_path, given_settings, annotator=name, reward="learned", baseline=baseline,
                            config_hash=f"{name}{baseline}")  # fmt: skip
                write_scores(run, proxy, [1.0, 2.0, 4.0 + baseline])
                write_scores(run, self.METRIC, [1.0, 3.0, 4.0 + baseline])
        table = table_of(tmp_path)
        own = {(d.row, d.baseline) for d in differences(table, primary=[self.METRIC]) if d.metric == proxy}
        assert own == {
            (("ppo", "annotator=honest"), ("sft", "annotator=honest")),
            (("ppo", "annotator=mild"), ("sft", "annotator=mild")),
        }
        across = differences(table, "ppo annotator=mild")
        assert {d.row for d in across if d.metric == proxy} == {("sft", "annotator=mild")}
        assert len([d for d in across if d.metric == self.METRIC]) == 3


@pytest.mark.parametrize(
    ("direction", "value", "over_seeds", "expected"),
    [
        (Direction.HIGHER, 1, True, "▲"), (Direction.HIGHER, -1, True, "▼"), (Direction.LOWER, -1, True, "▲"),
        (Direction.LOWER, 1, False, "▽"), (Direction.NEITHER, 1, True, "◆"), (Direction.NEITHER, -1, False, "◇"),
    ],
)  # fmt: skip
def test_marks_tell_better_from_worse(tmp_path, direction, value, over_seeds, expected):
    from alignbench.results.compared.paired import Difference

    write(tmp_path, ppo(), metrics={"a/b": Metric(1.0, 0.1, 9, direction)})
    table = build_table(*find_runs([tmp_path]))
    d = Difference(("ppo",), ("sft",), "a/b", value, 0, 0, 0.01, 0.01, 1.0, True, over_seeds, 1, 9)
    assert mark(d, table) == expected

    def folder_of(self, tmp_path, values, *, settings=ppo, seeds=(0, 1, 2)):
        """A run a seed with several metrics: `values[metric]` is its shift against the SFT model."""
        for seed in seeds:
            rng = np.random.default_rng(seed)
            run = write_with_baseline(tmp_path, settings(seed=seed), 0.7)
            for directory, trained in ((run, True), (run.baseline(), False)):
                noise = rng.normal(size=100) * 0.3
                for name, shift in values.items():
                    write_scores(directory, name, [float(x + shift * trained) for x in noise])
        return table_of(tmp_path)

    def test_primary_metrics_alone_are_tested_and_corrected_for_one_another(self, tmp_path):
        others = {f"other/{i}": 0.1 * i for i in range(20)}
        table = self.folder_of(tmp_path, {"helpfulness/gold_reward": 0.5, "optimization/kl": 1.0, **others})
        found = {d.metric: d for d in differences(table)}
        assert {d.metric for d in found.values() if d.primary} == {"helpfulness/gold_reward", "optimization/kl"}
        gold, kl, last = found["helpfulness/gold_reward"], found["optimization/kl"], found["other/19"]
        assert gold.significant and gold.p_holm <= 2 * max(gold.p_value, kl.p_value), "two tests, not 22"
        assert last.low > 0 and not last.significant and math.isnan(last.p_holm), "exploratory, however large"
        text = render.markdown(table, tuple(found.values()))
        assert "Difference from sft, exploratory" in text and "Exploratory: not tested" in text

    def test_a_quantity_under_two_names_is_tested_once(self, tmp_path):
        table = self.folder_of(tmp_path, {"helpfulness/gold_reward": 0.5, "optimization/gold_reward": 0.5})
        assert [d.metric for d in differences(table)] == ["helpfulness/gold_reward"]
        named = differences(table, primary=["optimization/gold_reward"])
        assert [(d.metric, d.primary) for d in named] == [("optimization/gold_reward", True)]

    def test_the_runs_own_choice_is_taken_and_another_is_said(self, tmp_path):
        chosen = {"eval": {"primary": ["other/score"]}}
        table = self.folder_of(
            tmp_path, {"other/score": 0.5, "optimization/kl": 0.5}, settings=lambda seed: ppo(seed=seed, **chosen)
        )
        assert primary_of(table) == Primary(("other/score",))
        named = primary_of(table, ["optimization/kl"])
        assert named.metrics == ("optimization/kl",) and "not before" in named.notes[0]
        with pytest.raises(UserError, match=r"other/scor.*other/score"):
            primary_of(table, ["other/scor"])

    def test_none_measured_is_said(self, tmp_path):
        found = primary_of(self.folder_of(tmp_path, {"other/score": 0.5}))
        assert found.metrics == () and "nothing is tested" in found.notes[0]
