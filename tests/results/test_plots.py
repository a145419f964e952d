"""The plots: what stands where, what is left out and why, and text that stays text."""

import dataclasses
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from alignbench.results.compared.overoptimisation import Fit, Form, fit
from alignbench.results.compared.table import Table
from alignbench.results.shown.plots import draw
from alignbench.results.shown.plots.data import training
from alignbench.results.shown.plots.style import PALETTE, PALETTE_ON_DARK, SFT_COLOUR, SFT_ON_DARK, Plot, Styles
from alignbench.results.shown.plots.text import shown
from tests.results.synthetic import ALPHA, BETA, HOSTILE, difference, gold, read, write_run, write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder)
    return read(folder)


def plots(folder: Path, differences=()) -> dict[str, Plot]:
    table = read(folder)
    return {plot.name: plot for plot in draw(table, differences)}


def label(table: Table, start: str) -> tuple[str, ...]:
    return next(row.label for row in table.rows if " ".join(row.label).startswith(start))


class TestOveroptimisation:
    d = np.array([0.3, 0.8, 1.2, 2.0, 2.5, 3.5])

    @pytest.mark.parametrize(
        ("form", "curve"),
        [
            (Form.BEST_OF_N, lambda d: d * (ALPHA - BETA * d)),
            (Form.RL, lambda d: d * (ALPHA - BETA * np.log(d))),
        ],
    )
    def test_exact_curves_give_their_coefficients(self, form, curve):
        found = fit(form, self.d, curve(self.d))
        assert (found.alpha, found.beta) == pytest.approx((ALPHA, BETA), abs=1e-6)
        assert found.value(self.d) == pytest.approx(curve(self.d), abs=1e-6)
        assert found.value(np.array([0.0])) == 0

    def test_the_intervals_are_those_of_linear_regression(self):
        """Of the coefficients and of the curve, from the textbook: t sqrt(x' (X'X)^-1 x s^2)."""
        y = self.d * (ALPHA - BETA * np.log(self.d)) + np.array([0.1, -0.2, 0.05, 0.1, -0.1, 0.02])
        found = fit(Form.RL, self.d, y)
        design = np.column_stack([self.d, -self.d * np.log(self.d)])
        coefficients, (squares,), *_ = np.linalg.lstsq(design, y, rcond=None)
        covariance = np.linalg.inv(design.T @ design) * squares / (len(y) - 2)
        assert (found.alpha, found.beta) == pytest.approx(tuple(coefficients), abs=1e-6)
        assert found.covariance == pytest.approx(covariance, rel=1e-4)
        half = stats.t.ppf(0.975, len(y) - 2) * np.sqrt(np.diag(design @ covariance @ design.T))
        assert found.half_interval(self.d) == pytest.approx(half, rel=1e-4)

    def test_it_is_not_fitted_where_it_would_say_nothing(self):
        assert "fewer than 4 rows" in fit(Form.RL, [1.0, 2.0, 3.0], [1.0, 1.5, 1.6])
        assert "fewer than 4 rows" in fit(Form.RL, [1.0, 1.0, 2.0, 3.0], [1.0, 1.1, 1.5, 1.6])
        assert "fewer than 4 rows" in fit(Form.RL, [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 1.5, 1.6])
        assert "fewer than 4 rows" in fit(Form.RL, [0.5, 1.0, 2.0, 3.0], [math.nan, 1.0, 1.5, 1.6])
        assert isinstance(fit(Form.RL, [1.0, 1.0 + 1e-15, 1.0 + 2e-15, 1.0 + 4e-15], [1.0, 1.1, 1.2, 1.3]), str)

    def test_the_text_has_as_many_digits_as_the_interval(self):
        found = Fit(Form.RL, 1.23456, 0.2, np.diag([0.04**2, 3.0**2]), t=1.0, residual=0.1)
        assert found.text() == "R = d (α − β log d), α = 1.235 ± 0.040, β = 0.2 ± 3.0"


class TestFrontier:
    def test_points_stand_at_the_square_root_of_their_kl(self, sweep):
        table = sweep
        figure = draw(table, [])[0].figure
        left, right = figure.axes
        assert "gold" in left.get_ylabel() and "proxy" in right.get_ylabel()
        assert "√ nats per response" in left.get_xlabel()
        for row in table.rows:
            kl = (row.cells.get("optimization/kl") or row.cells["optimization/kl_bound"]).value
            for axes, metric in ((left, "helpfulness/gold_reward"), (right, "optimization/proxy_reward")):
                assert any(
                    np.allclose(line.get_xydata(), [[math.sqrt(kl), row.cells[metric].value]])
                    for line in axes.get_lines()
                    if len(line.get_xydata()) == 1
                ), row.label

    def test_each_algorithm_has_the_curve_of_its_kind(self, sweep):
        table = sweep
        frontier = draw(table, [])[0]
        (best_of_n,) = [note for note in frontier.notes if note.startswith("best_of_n: ")]
        (ppo,) = [note for note in frontier.notes if note.startswith("ppo: ")]
        for note, form in ((best_of_n, "R = d (α − β d)"), (ppo, "R = d (α − β log d)")):
            assert form in note and "5 rows" in note
            alpha, beta = (float(number) for number in re.findall(r"= (\d\.\d+) ±", note))
            assert alpha == pytest.approx(ALPHA, abs=0.1) and beta == pytest.approx(BETA, abs=0.1)
        assert any("Not fitted, fewer than 4 rows" in note and "dpo" in note for note in frontier.notes)
        curves = [line.get_xydata() for line in frontier.figure.axes[0].get_lines() if len(line.get_xydata()) == 200]
        assert len(curves) == 2
        for (x, y), kind in zip([curve[100] for curve in curves], (True, False), strict=True):
            assert y == pytest.approx(gold(x, best_of_n=kind), abs=0.05)
        for curve, name in zip(curves, ("best_of_n", "ppo"), strict=True):  # only where points lie
            rows = [row for row in table.rows if row.label[0] == name]
            kl = [(row.cells.get("optimization/kl") or row.cells["optimization/kl_bound"]).value for row in rows]
            assert (curve[0][0], curve[-1][0]) == pytest.approx((math.sqrt(min(kl)), math.sqrt(max(kl))))

    def test_the_best_of_any_policy_is_drawn_once_for_each_reward(self, tmp_path):
        one, other = write_run(tmp_path, "ppo", seed=0), write_run(tmp_path, "dpo", seed=0)
        points = [{"kl": d * d, "proxy": {"value": d, "low": d - 0.1, "high": None}} for d in (0.0, 1.0, 2.0)]
        for path in (one, other):
            (path / "frontier.json").write_text(json.dumps({"points": points}))
        frontier = plots(tmp_path)["frontier"]
        left, right = frontier.figure.axes
        dashed = [line for line in right.get_lines() if line.get_linestyle() == "--" and len(line.get_xydata()) == 3]
        assert [line.get_xydata().tolist() for line in dashed] == [[[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]]
        assert not [line for line in left.get_lines() if line.get_linestyle() == "--"], "its gold reward is not known"
        assert any("no training can exceed" in note for note in frontier.notes)
        for damaged in ("{", "[]", '{"points": [{"kl": "x", "proxy": 1}, 3]}'):
            one.joinpath("frontier.json").write_text(damaged)
            other.joinpath("frontier.json").unlink(missing_ok=True)
            assert not any("no training can exceed" in note for note in plots(tmp_path)["frontier"].notes)

    def test_the_way_of_training_is_drawn_where_it_was_logged(self, sweep):
        table = sweep
        left, right = draw(table, [])[0].figure.axes
        trained = [row for row in table.rows if row.label[0] in ("ppo", "dpo")]
        paths = [line for line in right.get_lines() if 1 < len(line.get_xydata()) < 200]
        assert len(paths) == len(trained)
        assert not [line for line in left.get_lines() if len(line.get_xydata()) == 30]  # no gold reward in train.jsonl

    def test_without_gold_reward_the_proxy_is_drawn_and_the_rest_left_out_with_a_reason(self, tmp_path):
        write_run(tmp_path, "ppo", has_gold=False)
        found = plots(tmp_path)
        (axes,) = found["frontier"].figure.axes
        assert "proxy" in axes.get_title(loc="left")
        assert any("Gold reward is left out: no run has it beside a KL" in note for note in found["frontier"].notes)
        assert found["cost"].figure is None and "no run has a gold reward" in found["cost"].text
        assert found["sycophancy"].figure is None and "no run has a metric of helpfulness" in found["sycophancy"].text
        assert found["differences"].figure is None and "no paired difference" in found["differences"].text


class TestTraining:
    def test_bands_are_students_t_over_the_seeds(self, tmp_path):
        paths = [write_run(tmp_path, "ppo", seed=seed, updates=4) for seed in range(3)]
        logged = [
            [line["reward"] for line in map(json.loads, (path / "train.jsonl").read_text().splitlines())]
            for path in paths
        ]
        table = read(tmp_path)
        curve = training(table.rows[1].runs)["reward"]
        assert curve.seeds == 3 and list(curve.updates) == [1, 2, 3, 4]
        for i, values in enumerate(zip(*logged, strict=True)):
            low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
            assert (curve.mean[i] - curve.half[i], curve.mean[i] + curve.half[i]) == pytest.approx((low, high))

    def test_one_seed_has_a_line_and_no_band(self, tmp_path):
        write_run(tmp_path, "ppo")
        table = read(tmp_path)
        assert np.isnan(training(table.rows[1].runs)["reward"].half).all()
        reward = plots(tmp_path)["training"].figure.axes[0]
        assert reward.get_title(loc="left") == "reward" and len(reward.get_lines()) == 1

    def test_a_band_ends_where_the_figure_does(self, tmp_path):
        for seed, kl in enumerate((0.01, 0.02, 0.5)):  # half an interval is more than the mean
            path = write_run(tmp_path, "ppo", seed=seed, updates=2) / "train.jsonl"
            lines = [{**json.loads(line), "kl": kl} for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        figure = plots(tmp_path)["training"].figure
        (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == "KL"]
        (band,) = axes.collections
        assert band.get_paths()[0].vertices[:, 1].min() == 0.0

    def test_what_an_algorithm_did_not_log_is_said(self, tmp_path):
        write_run(tmp_path, "ppo", updates=3)
        write_run(tmp_path, "best_of_n", bound=True)
        path = write_run(tmp_path, "dpo", updates=3) / "train.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "reward"}) + "\n" for line in lines))
        notes = plots(tmp_path)["training"].notes
        assert "No line of dpo: its stage logs no reward." in notes
        assert "No line, for its stage logged no update in train.jsonl: best_of_n." in notes

    def test_figures_beyond_the_first_three_have_a_picture_of_their_own(self, tmp_path):
        write_run(tmp_path, "ppo", updates=3)
        found = plots(tmp_path)
        titles = [
            [axes.get_title(loc="left") for axes in found[name].figure.axes] for name in ("training", "training_more")
        ]
        assert titles == [["reward", "KL", "entropy"], ["loss"]]

    def test_only_the_algorithms_own_stage_and_whole_lines_count(self, tmp_path):
        path = write_run(tmp_path, "ppo", updates=2) / "train.jsonl"
        with path.open("a") as file:
            file.write('{"stage": "sft", "update": 3, "loss": 9}\n[1]\n{"stage": "ppo", "update": 3, "loss": null}\n')
            file.write('{"stage": "ppo", "update": "4", "loss": 9}\n{"stage": "ppo", "upd')
        table = read(tmp_path)
        loss = training(table.rows[1].runs)["loss"]
        assert list(loss.updates) == [1, 2, 3]
        assert list(loss.mean[:2]) == [1.0, 0.5] and math.isnan(loss.mean[2])

    def test_seeds_are_averaged_over_the_updates_that_all_of_them_made(self, tmp_path):
        for seed, updates in enumerate((3, 5)):
            write_run(tmp_path, "ppo", seed=seed, updates=updates)
        table = read(tmp_path)
        assert list(training(table.rows[1].runs)["loss"].updates) == [1, 2, 3]

    def test_long_stages_are_thinned_to_means(self, tmp_path):
        write_run(tmp_path, "ppo", updates=1000)
        table = read(tmp_path)
        curve = training(table.rows[1].runs)["loss"]
        thin = curve.thinned(100)
        assert len(thin.updates) == 100
        assert thin.mean[0] == pytest.approx(np.mean([1 / i for i in range(1, 11)])) and thin.updates[0] == 5.5


EYES = (
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
)
"""Normal, and without the first, second or third kind of cones: Machado, Oliveira & Fernandes 2009, severity 1."""


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(colours: np.ndarray) -> np.ndarray:
    """Of linear sRGB (Ottosson 2020)."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099], [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(np.clip(colours, 0, 1) @ np.array(cones).T) @ np.array(lab).T


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


class TestLook:
    def test_rows_whose_labels_are_cut_alike_are_still_two_series(self, sweep):
        long = "a=" + "x" * 120
        rows = tuple(dataclasses.replace(row, label=(*row.label, long, str(i))) for i, row in enumerate(sweep.rows))
        same = tuple(dataclasses.replace(row, label=("ppo", *row.label[-2:])) for row in rows)
        styles = Styles.of(dataclasses.replace(sweep, rows=same))
        assert len({styles[row].label for row in same}) == len(same)

    def test_an_algorithm_has_one_colour_in_all_plots(self, sweep):
        table = sweep
        differences = [difference(row.label) for row in table.rows if not row.baseline]
        styles = Styles.of(table)
        colours = {row.label[0]: styles[row].colour for row in table.rows}
        assert len(set(colours.values())) == 4  # sft, best_of_n, dpo, ppo
        for plot in filter(lambda plot: plot.figure, draw(table, differences)):
            drawn = {line.get_color() for axes in plot.figure.axes for line in axes.get_lines()}
            assert colours["ppo"] in drawn and drawn <= {*colours.values(), "#333333"}, plot.name

    def test_it_does_not_depend_on_the_order_or_the_number_of_rows_of_an_algorithm(self, sweep):
        table = sweep
        fewer = [row for row in table.rows if " ".join(row.label) != "ppo kl_coef=0.09"]
        other = Styles.of(dataclasses.replace(table, rows=tuple(reversed(fewer))))
        assert all(other[row].colour == Styles.of(table)[row].colour for row in fewer)

    def test_each_of_few_algorithms_has_a_colour_and_a_marker_of_its_own_in_all_plots(self, tmp_path):
        for name in ("ppo", "dpo", "rloo"):
            write_run(tmp_path, name, updates=8)
        table = read(tmp_path)
        looks = {row.label[0]: (Styles.of(table)[row].colour, Styles.of(table)[row].marker) for row in table.rows}
        assert [len(set(part)) for part in zip(*looks.values(), strict=True)] == [4, 4]
        for plot in filter(
            lambda plot: plot.figure, draw(table, [difference((name,)) for name in ("ppo", "dpo", "rloo")])
        ):
            for axes in plot.figure.axes:
                for line in axes.get_lines():
                    name = str(line.get_label())
                    if name in looks and line.get_marker() != "None":
                        assert (line.get_color(), line.get_marker()) == looks[name], plot.name

    @pytest.mark.parametrize(
        ("palette", "ground"), [((*PALETTE, SFT_COLOUR), "#ffffff"), ((*PALETTE_ON_DARK, SFT_ON_DARK), "#15171a")]
    )
    def test_any_two_colours_are_told_apart_by_any_eyes_on_either_ground(self, palette, ground):
        seen = [oklab(np.array([linear(colour) for colour in palette]) @ np.array(eyes).T) for eyes in EYES]
        for colours in seen:
            apart = np.linalg.norm(colours[:, None] - colours[None], axis=2)[np.triu_indices(len(palette), 1)]
            assert round(apart.min(), 2) >= 0.08
        for colour in palette:
            assert contrast(colour, ground) >= 3, colour  # of graphical objects, WCAG 2.2, 1.4.11

    def test_rows_of_one_algorithm_and_algorithms_of_one_colour_differ_in_marker(self, sweep):
        table = sweep
        row = table.rows[-1]
        many = tuple(dataclasses.replace(row, label=(f"algo{i:02}",)) for i in range(2 * len(PALETTE)))
        for rows in (table.rows, many):
            styles = Styles.of(dataclasses.replace(table, rows=rows))
            assert len({(styles[row].colour, styles[row].marker) for row in rows}) == len(rows)


class TestForest:
    def test_significant_differences_are_filled(self, sweep):
        table = sweep
        yes, no = label(table, "dpo"), label(table, "ppo")
        differences = [difference(yes, value=0.5), difference(no, value=0.1, low=-0.1, significant=False)]
        (axes,) = draw(table, differences)[1].figure.axes
        faces = {
            line.get_xdata()[0]: line.get_markerfacecolor() for line in axes.get_lines() if line.get_marker() != "None"
        }
        assert faces[0.5] != "white" and faces[0.1] == "white"
        assert [text.get_text() for text in axes.get_yticklabels()] == [" ".join(yes), " ".join(no)]
        assert any(list(line.get_xdata()) == [-0.1, 1.0] for line in axes.get_lines())  # its interval
        assert any(list(line.get_xdata()) == [0.0, 0.0] for line in axes.get_lines())  # no difference

    def test_an_interval_that_is_unknown_is_not_drawn(self, sweep):
        table = sweep
        unknown = difference(label(table, "dpo"), value=0.5, low=math.nan, high=math.nan)
        (axes,) = draw(table, [unknown])[1].figure.axes
        assert any(list(line.get_xdata()) == [0.5, 0.5] for line in axes.get_lines())

    def test_an_interval_ends_where_the_metric_does(self, sweep):
        row = label(sweep, "dpo")
        found = [
            difference(row, metric=m, low=-3.0, high=3.0) for m in ("helpfulness/gold_reward", "diversity/distinct_2")
        ]
        reward, share = draw(sweep, found)[1].figure.axes
        assert any(list(line.get_xdata()) == [-3.0, 3.0] for line in reward.get_lines())
        assert any(list(line.get_xdata()) == [-1.0, 1.0] for line in share.get_lines())

    def test_a_row_without_a_mark_is_said(self, sweep):
        dpo, best = label(sweep, "dpo"), label(sweep, "best_of_n")
        found = [difference(dpo), difference(best), difference(dpo, metric="diversity/entropy")]
        (note,) = draw(sweep, found)[1].notes
        assert "Not compared in entropy" in note and note.endswith(f": {' '.join(best)}.")

    def test_primary_metrics_and_others_have_a_picture_each(self, sweep):
        row = label(sweep, "dpo")
        found = [difference(row), difference(row, metric="optimization/kl", significant=False, primary=False)]
        by_name = {plot.name: plot for plot in draw(sweep, found)}
        titles = [by_name[name].figure.axes[0].get_title(loc="left") for name in ("differences", "exploratory")]
        assert titles == ["helpfulness\ngold reward ↑", "optimization\nKL"]
        assert "nothing is tested" in by_name["exploratory"].text

    def test_an_interval_without_training_noise_is_said(self, sweep):
        both = [difference(label(sweep, "dpo")), difference(label(sweep, "ppo"), over_seeds=False)]
        assert not draw(sweep, both[:1])[1].notes
        (note,) = draw(sweep, both)[1].notes
        assert "leaves training noise out: ppo kl_coef=0.09" in note

    def test_several_baselines_are_named(self, sweep):
        table = sweep
        dpo, ppo = label(table, "dpo"), label(table, "ppo")
        (axes,) = draw(table, [difference(dpo), difference(ppo, baseline=dpo)])[1].figure.axes
        assert [text.get_text() for text in axes.get_yticklabels()] == ["dpo\nless sft", f"{' '.join(ppo)}\nless dpo"]


def test_rows_of_different_data_share_no_axis(tmp_path):
    write_run(tmp_path, "ppo", data="world")
    write_run(tmp_path, "ppo", data="other")
    found = plots(tmp_path)
    assert set(found) >= {"frontier-1", "frontier-2", "training-2"}
    assert {found["cost-1"].title, found["cost-2"].title} == {
        "Cost against gold reward: tiny on other",
        "Cost against gold reward: tiny on world",
    }


def test_a_comparison_gives_the_same_bytes_twice(tmp_path):
    write_run(tmp_path, "ppo", updates=3)
    one, other = (plots(tmp_path)["frontier"] for _ in range(2))
    assert one.svg() == other.svg() and one.png() == other.png()


def test_text_stays_text_in_every_plot(tmp_path):
    for i, text in enumerate([*HOSTILE, "_hidden"]):
        write_run(tmp_path, f"algo{i}", label=text, updates=2)
    table = read(tmp_path)
    differences = [difference(row.label, baseline=(HOSTILE[0],)) for row in table.rows if not row.baseline]
    for plot in filter(lambda plot: plot.figure, draw(table, differences)):
        root = ElementTree.fromstring(plot.svg())  # well-formed
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"script", "img", "a", "foreignObject", "iframe"}
        assert not [key for element in root.iter() for key in element.attrib if key.lower().startswith("on")]
        texts = [*plot.figure.legends[0].get_texts()] if plot.figure.legends else plot.figure.axes[0].get_yticklabels()
        labels = {entry.get_text().replace("\n", " ") for entry in texts}
        assert {shown(text) for text in [*HOSTILE, "_hidden"]} <= labels, plot.name
        assert plot.png().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\u202egnp.exe", "‹U+202E›gnp.exe"),
        ("a\x00b\x1b[0m", "a‹U+0000›b‹U+001B›[0m"),
        ("\ud800", "‹U+D800›"),
        ("line\nline\t", "line‹U+000A›line‹U+0009›"),
        ("naïve 漢字　🙂 می‌خواهم", "naïve 漢字　🙂 می‌خواهم"),
    ],
)
def test_what_would_act_is_shown(text, seen):
    assert shown(text) == seen


def test_shown_keeps_what_it_is_told_to_and_cuts_what_is_long():
    assert shown("a\nb\rc", keep="\n") == "a\nb‹U+000D›c"
    assert shown("abcdef", limit=4) == "abc…"


def test_numbers_that_no_axis_holds_do_not_stop_the_rest(tmp_path):
    path = write_run(tmp_path, "ppo", updates=3) / "train.jsonl"
    path.write_text(
        path.read_text().replace('"loss": 1.0', '"loss": 1e308') + '{"stage": "ppo", "update": 4, "kl": -5}\n'
    )
    assert all(plot.svg() for plot in plots(tmp_path).values() if plot.figure)
