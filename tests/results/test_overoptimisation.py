"""Points along training: Gao et al.'s curves against known coefficients, the peak, the warning, and the files."""

import json
import math
import re

import numpy as np
import pytest

from alignbench import Direction, ExampleScore, MetricSpec, UserError
from alignbench.results.compared.overoptimisation import Fit, Form, courses, decline, distances, fit_points, warned
from alignbench.results.compared.statistics import clustered_stderr, summarise
from alignbench.results.compared.table import GOLD, PROXY, build_table
from alignbench.results.compared.training_points import JUDGED, KL, Points, Trajectory, trajectory
from alignbench.results.disk.runs import StoredRun, find_runs
from alignbench.results.shown.overoptimisation import told
from alignbench.results.shown.plots import draw
from tests.results.on_disk import compare as main
from tests.results.synthetic import write_run

D = np.array([0.0, 0.4, 0.8, 1.3, 1.9, 2.6, 3.4])
ALPHA, BETA = 2.0, 0.7
SPECS = [MetricSpec(name, Direction.NEITHER) for name in (GOLD, KL, PROXY)]


def curve(form: Form, d: np.ndarray) -> np.ndarray:
    logs = np.log(np.where(d > 0, d, 1.0))
    return d * (ALPHA - BETA * (d if form is Form.BEST_OF_N else logs))


def along(gold: np.ndarray, d: np.ndarray = D, *, kl: np.ndarray | None = None, clusters=None) -> Trajectory:
    """Arrays [point, example]; without `kl` every example has the same."""
    examples = gold.shape[1]
    kl = np.repeat((d**2)[:, None], examples, axis=1) if kl is None else kl
    numbers = np.arange(examples) if clusters is None else clusters
    return Trajectory(None, tuple(10 * i for i in range(len(d))), kl, gold, None, numbers)  # type: ignore[arg-type]


def sampled(rng, means: np.ndarray, *, questions=50, opinions=3, noise=1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores [point, example] around `means`, and their clusters: questions differ, by how much they gain too, and points share
    most of their noise, as they do with the same chances."""
    clusters = np.repeat(np.arange(questions), opinions)
    level, slope = (rng.normal(size=questions)[clusters] * noise for _ in range(2))
    shared, own = rng.normal(size=len(clusters)), rng.normal(size=(len(means), len(clusters)))
    way = np.arange(len(means))[:, None] / len(means)
    return means[:, None] + level + way * slope + noise * (0.8 * shared + 0.4 * own), clusters


class TestFits:
    @pytest.mark.parametrize("form", Form)
    def test_known_coefficients_are_recovered_exactly(self, form):
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(len(D), 20)) * np.linspace(0.5, 2, len(D))[:, None]
        noise = np.concatenate([noise, -noise], axis=1)  # at each point it cancels, whatever the point weighs
        found = fit_points(form, along(1.5 + curve(form, D)[:, None] + noise - noise[0]))
        assert isinstance(found, Fit)
        assert (found.alpha, found.beta, found.residual) == pytest.approx((ALPHA, BETA, 0.0), abs=1e-10)
        wrong = fit_points(
            Form.RL if form is Form.BEST_OF_N else Form.BEST_OF_N, along(curve(form, D)[:, None] + noise)
        )
        assert isinstance(wrong, Fit) and wrong.residual > 0.05

    def test_points_weigh_by_their_standard_errors(self):
        rng = np.random.default_rng(1)
        noise = rng.normal(size=(len(D), 40)) * np.array([0, 1, 1, 1, 1, 1, 100.0])[:, None]
        noise -= noise.mean(1, keepdims=True)
        off = curve(Form.RL, D) + np.array([0, 0, 0, 0, 0, 0, 5.0])
        found = fit_points(Form.RL, along(off[:, None] + noise))
        weights = np.array([1 / (row @ row) for row in noise[1:]])
        basis = np.stack([D[1:], -D[1:] * np.log(D[1:])], axis=1)
        normal = basis.T @ (weights[:, None] * basis)
        expected = np.linalg.solve(normal, basis.T @ (weights * off[1:]))
        assert isinstance(found, Fit)
        assert (found.alpha, found.beta) == pytest.approx(tuple(expected), abs=1e-9)
        assert found.alpha == pytest.approx(ALPHA, abs=0.02), "the noisy point hardly counts"

    def test_where_the_kl_is_known_the_jackknife_is_the_clustered_standard_error(self):
        """The coefficients are then means over prompts of a score that has a closed form."""
        gold, clusters = sampled(np.random.default_rng(2), curve(Form.RL, D), questions=30)
        found = fit_points(Form.RL, along(gold, clusters=clusters))
        gained = gold - gold[0]
        stderr = [clustered_stderr([ExampleScore("m", str(i), v, str(c)) for i, (v, c) in enumerate(zip(row, clusters, strict=True))])
                  for row in gained[1:]]  # fmt: skip
        basis = np.stack([D[1:], -D[1:] * np.log(D[1:])], axis=1)
        weighted = basis.T / np.array(stderr) ** 2
        scores = np.linalg.solve(weighted @ basis, weighted @ gained[1:])
        for i in range(2):
            examples = [
                ExampleScore("m", str(j), v, str(c)) for j, (v, c) in enumerate(zip(scores[i], clusters, strict=True))
            ]
            ours = math.sqrt(found.covariance[i, i])
            assert ours == pytest.approx(clustered_stderr(examples), rel=1e-9)

    @pytest.mark.parametrize("form", Form)
    def test_intervals_hold_the_truth_as_often_as_they_say(self, form):
        """Noise that points share, prompts that belong together, and a KL that is itself an estimate."""
        rng, held = np.random.default_rng(3), []
        for _ in range(200):
            gold, clusters = sampled(rng, curve(form, D))
            kl = (D**2)[:, None] + rng.normal(size=gold.shape) * D[:, None]
            found = fit_points(form, along(gold, kl=kl, clusters=clusters))
            half = found.t * np.sqrt(np.diag(found.covariance))
            held.append([abs(found.alpha - ALPHA) < half[0], abs(found.beta - BETA) < half[1]])
        assert ((np.mean(held, axis=0) > 0.91) & (np.mean(held, axis=0) < 0.98)).all(), np.mean(held, axis=0)

    def test_the_highest_point_of_a_curve(self):
        zero = np.zeros((2, 2))
        fine = np.linspace(0.01, 8, 100_000)
        for form in Form:
            peak = Fit(form, ALPHA, BETA, zero, 2.0, 0.0).peak()
            assert peak == pytest.approx(fine[curve(form, fine).argmax()], abs=1e-3)
            assert Fit(form, 1.0, -0.5, zero, 2.0, 0.0).peak() == math.inf
        assert Fit(Form.BEST_OF_N, -1.0, 0.5, zero, 2.0, 0.0).peak() == 0
        assert Fit(Form.BEST_OF_N, -1.0, -0.5, zero, 2.0, 0.0).peak() == math.inf, "it falls, and turns up"
        assert (
            Fit(Form.BEST_OF_N, -1.0, -0.5, zero, 2.0, 0.0).level()
            == 1.0
            == Fit(Form.RL, -0.5, -0.5, zero, 2.0, 0.0).level()
        )

    def test_too_little_is_not_fitted(self):
        gold, clusters = sampled(np.random.default_rng(4), curve(Form.RL, D))
        assert "fewer than 4 points" in fit_points(Form.RL, along(gold[:4], D[:4], clusters=clusters))
        assert "fewer than 3 questions" in fit_points(Form.RL, along(gold, clusters=clusters % 2))
        assert "fewer than 4 points" in fit_points(
            Form.RL, along(np.repeat(gold[:1], len(D), axis=0), clusters=clusters)
        )
        still = along(gold, np.full(len(D), 0.0), clusters=clusters)
        assert "fewer than 4 points" in fit_points(Form.RL, still)


class TestDecline:
    def test_a_fall_from_the_peak_is_seen_and_measured_on_the_same_prompts(self):
        gold, clusters = sampled(np.random.default_rng(5), np.array([0, 1, 2, 1.5, 0.5, -1.0]))
        found = decline(along(gold, D[:6], clusters=clusters))
        assert found.peak == 2 and found.significant and found.p_value < 1e-4
        fall = gold[2] - gold[5]
        assert found.fall.value == pytest.approx(fall.mean())
        scores = [ExampleScore("m", str(i), v, str(c)) for i, (v, c) in enumerate(zip(fall, clusters, strict=True))]
        assert math.sqrt(found.fall.by_prompts) == pytest.approx(clustered_stderr(scores))

    def test_a_rise_is_none(self):
        gold, clusters = sampled(np.random.default_rng(6), np.linspace(0, 3, 7))
        found = decline(along(gold, clusters=clusters))
        assert found.peak == 6 and found.fall.value == 0 and found.p_value == 1 and not found.significant

    def test_noise_is_rarely_called_a_decline_although_the_highest_of_many_points_was_chosen(self):
        """Without the correction a quarter of flat courses would be."""
        rng, alarms, naive = np.random.default_rng(7), [], []
        for _ in range(400):
            gold = rng.normal(size=60) + rng.normal(size=(16, 60))
            found = decline(along(gold, np.linspace(0, 3, 16)))
            alarms.append(found.significant)
            naive.append(found.fall.value > 0 and found.fall.p_value < 0.05)
        assert np.mean(alarms) < 0.06 and np.mean(naive) > 0.15

    def test_nothing_to_tell(self):
        assert decline(along(np.zeros((1, 9)), D[:1])) is None
        assert decline(along(np.zeros((7, 9)), clusters=np.zeros(9, int))) is None
        both = along(np.zeros((7, 9)))
        assert decline(Trajectory(both.run, both.updates, both.kl, None, None, both.clusters)) is None


def write_points(path, gold, d=D, *, clusters=None, proxy=None, leave_out=()):
    for i, (row, distance) in enumerate(zip(gold, d, strict=True)):
        scores = [
            ExampleScore(metric, f"p{j}", float(value), f"q{clusters[j]}" if clusters is not None else "")
            for j in range(len(row))
            for metric, value in (
                (GOLD, row[j]),
                (KL, distance**2),
                (PROXY, proxy[i] if proxy is not None else distance),
            )
            if (i, j) not in leave_out
        ]
        Points(path).add(10 * i, summarise(scores, SPECS), scores, (), 1.5)


@pytest.fixture
def hacked(tmp_path):
    """Two trainings of one row, of which one went past its peak, and one of another row that did not."""
    for seed, (kl_coef, last) in enumerate(((0.0, -2.0), (0.0, 2.2), (0.5, 2.5))):
        path = write_run(tmp_path, "ppo", {"kl_coef": kl_coef}, seed=seed)
        means = np.array([0, 1, 1.5, 2, 2, 1, last])
        gold, clusters = sampled(np.random.default_rng(seed), means, noise=0.3)
        write_points(path, gold, clusters=clusters, proxy=np.linspace(0, 3, 7))
    return tmp_path


class TestTable:
    def test_a_row_past_its_peak_has_a_mark_and_a_warning(self, hacked, capsys):
        table = warned(build_table(*find_runs([hacked])))
        marked = {" ".join(r.label): [n for n, c in r.cells.items() if c.past_peak] for r in table.rows}
        assert marked["ppo kl_coef=0.0"] == ["helpfulness/gold_reward", GOLD]
        assert not marked["ppo kl_coef=0.5"] and not marked["sft"]
        (warning,) = [note for note in table.notes if "WARNING" in note]
        assert re.search(r"ppo kl_coef=0\.0, seed 0, fell by \d+\.\d{3} from its peak", warning), (
            "the peak is picked: no interval"
        )
        assert "to update 60 (√KL 3.40), p < 0.0001" in warning
        assert main([str(hacked), "--format", "markdown"]) == 0
        out = capsys.readouterr().out
        assert "†" in out and "WARNING, over-optimised" in out
        assert main([str(hacked), "--format", "json"]) == 0
        assert "WARNING" in capsys.readouterr().out

    def test_p_values_are_corrected_for_all_runs_of_the_table(self, hacked):
        table = build_table(*find_runs([hacked]))
        found, _ = courses(table)
        assert len(found) == 3
        smallest = min(course.decline.p_value for course in found)
        assert smallest == pytest.approx(3 * min(decline(c.along).p_value for c in found))

    def test_a_table_without_points_is_left_as_it_is(self, tmp_path):
        write_run(tmp_path, "ppo")
        table = build_table(*find_runs([tmp_path]))
        assert warned(table) == table

    def test_the_section(self, hacked, capsys):
        assert main([str(hacked), "--overoptimisation", "--format", "markdown"]) == 0
        out = capsys.readouterr().out
        assert out.count("R = d (α − β d), α = ") == out.count("R = d (α − β log d), α = ") == 3
        assert "**ppo kl_coef=0.0, seed 0**" in out and "OVER-OPTIMISED" in out
        assert "no over-optimisation is seen" in out
        assert main([str(hacked), "--overoptimisation"]) == 0
        assert "OVER-OPTIMISED" in capsys.readouterr().out
        assert main([str(hacked), "--overoptimisation", "--format", "json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert [run["peak"]["over_optimised"] for run in content["runs"]] == [True, False, False]
        assert content["runs"][0]["sqrt_kl"] == pytest.approx(list(D))
        assert main([str(hacked), "--overoptimisation", "--format", "csv"]) == 2

    def test_the_section_without_points_says_how_to_get_some(self, tmp_path, capsys):
        write_run(tmp_path, "ppo")
        assert main([str(tmp_path), "--overoptimisation"]) == 2
        assert "run with eval.every=10" in capsys.readouterr().err

    def test_the_plot(self, hacked):
        plot = {plot.name: plot for plot in draw(build_table(*find_runs([hacked])), [])}["overoptimisation"]
        gold, proxy = plot.figure.axes
        assert "gold" in gold.get_title(loc="left") and "proxy" in proxy.get_title(loc="left")
        assert len([line for line in gold.get_lines() if line.get_marker() == "*"]) == 3
        assert len([line for line in gold.get_lines() if len(line.get_xdata()) == 200]) == 6
        assert len(plot.notes) == 6 and plot.svg() and plot.png()


class TestFiles:
    def run(self, path):
        return StoredRun(path, None)  # type: ignore[arg-type]

    def test_what_was_written_is_read(self, tmp_path):
        gold, clusters = sampled(np.random.default_rng(8), curve(Form.RL, D), questions=5)
        write_points(tmp_path, gold, clusters=clusters)
        found = trajectory(self.run(tmp_path))
        order = sorted(range(15), key=lambda j: f"p{j}")
        assert found.updates == (0, 10, 20, 30, 40, 50, 60)
        assert np.array_equal(found.gold, gold[:, order]) and distances(found.kl) == pytest.approx(D)
        assert len(set(zip(found.clusters, clusters[order], strict=True))) == 5

    def test_a_point_that_is_made_again_replaces_what_came_after_it(self, tmp_path):
        write_points(tmp_path, np.zeros((4, 3)), D[:4])
        Points(tmp_path).add(20, {}, [ExampleScore(m, "p0", 7.0) for m in (GOLD, KL, PROXY)], (), 1.0)
        assert [line["update"] for line in Points(tmp_path).lines()] == [0, 10, 20]
        assert trajectory(self.run(tmp_path)).gold[-1].tolist() == [7.0]
        Points(tmp_path).add(0, {}, [ExampleScore(KL, "p0", 1.0)], (), 1.0)
        assert trajectory(self.run(tmp_path)).updates == (0,)
        assert trajectory(self.run(tmp_path)).gold is None

    def test_where_the_truth_is_not_known_a_judge_stands_for_it_and_it_is_said(self, tmp_path, capsys):
        path = write_run(tmp_path, "ppo", {"kl_coef": 0.0})
        for i, value in enumerate((1.0, 2.0, 0.5)):
            spread = [(m, f"p{j}", value + 0.1 * j) for m in (JUDGED, KL) for j in range(5)]
            Points(path).add(10 * i, {}, [ExampleScore(*row) for row in spread], (), 1.0)
        found = trajectory(self.run(path))
        assert found.gold_name == JUDGED and found.gold.mean(1).tolist() == pytest.approx([1.2, 2.2, 0.7])
        assert main([str(tmp_path), "--overoptimisation"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert f"The gold reward is {JUDGED}" in out and "Peak of the gold reward: update 10" in out
        known = [ExampleScore(GOLD, f"p{j}", 3.0) for j in range(5)]
        Points(path).add(0, {}, [*known, *(ExampleScore(*row) for row in spread)], (), 1.0)
        assert trajectory(self.run(path)).gold_name == GOLD, "the truth goes before it"

    def test_only_prompts_that_every_point_has_count(self, tmp_path):
        gold = np.arange(21.0).reshape(7, 3)
        gold[2, 1] = math.nan
        write_points(tmp_path, gold, leave_out={(4, 0)})
        assert trajectory(self.run(tmp_path)).gold[:, 0].tolist() == gold[:, 2].tolist()

    @pytest.mark.parametrize("damage", ["cut", "no kl", "other columns"])
    def test_a_damaged_file_is_said_and_left_out(self, damage, hacked):
        path = next(hacked.glob("*ppo*s0*")) / "points.parquet"
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:100])
        elif damage == "no kl":
            path.unlink()
            Points(path.parent).add(0, {}, [ExampleScore(GOLD, "p", 1.0)], (), 1.0)
        else:
            import polars

            polars.DataFrame({"a": [1]}).write_parquet(path)
        with pytest.raises(UserError):
            trajectory(self.run(path.parent))
        table = warned(build_table(*find_runs([hacked])))
        assert any("its course is left out" in note for note in table.notes)


@pytest.mark.parametrize(
    ("alpha", "beta", "said"),
    [
        (2.0, 0.5, "its peak is R = "),
        (9.0, 0.5, "its peak is beyond the points"),
        (-1.0, 0.5, "it falls from the start"),
        (-2.0, -0.5, "it falls up to d = 2.00 and rises again: no peak"),
        (-9.0, -0.5, "it falls over all of the points: no peak"),
        (1.0, -0.5, "it rises over all of the points: no peak"),
        (-0.5, -0.5, "it rises over all of the points: no peak"),
        (0.5, 0.5, "it falls over all of the points after the first"),
    ],
)
def test_what_a_curve_does_is_said(alpha, beta, said):
    text = told(Fit(Form.BEST_OF_N, alpha, beta, np.zeros((2, 2)), 2.0, 0.0), np.linspace(0, 5, 6))
    assert said in text
