"""Ratings: evalica's published tables, and who wins in run directories."""

import csv
import dataclasses
import io
import json
import math
import re

import pytest
from evalica import Winner

from alignbench import Direction, UserError
from alignbench.results.compared.examples import read_examples
from alignbench.results.compared.ratings import Games, elo, ratings, strengths, win_rates
from alignbench.results.shown.leaderboard import legend
from tests.results.on_disk import compare as main
from tests.results.on_disk import dpo, ppo, table_of, write, write_scores
from tests.shared_data import shared_data

SCORE = "helpfulness/score"
WINNERS = {"left": Winner.X, "right": Winner.Y, "tie": Winner.Draw}


@pytest.mark.parametrize("name", ["simple", "food"])
@pytest.mark.parametrize(
    ("algorithm", "rate"), [("bradley_terry", strengths), ("elo", elo), ("average_win_rate", win_rates)]
)
def test_published_tables_are_reproduced(name, algorithm, rate):
    folder = shared_data("evalica-golden")
    with (folder / f"{name}.csv").open() as comparisons, (folder / f"{name}-golden.csv").open() as golden:
        played = list(csv.DictReader(comparisons))
        expected = {row["item"]: float(row["score"]) for row in csv.DictReader(golden) if row["algorithm"] == algorithm}
    xs, ys = [game["left"] for game in played], [game["right"] for game in played]
    found = rate(Games(xs, ys, [WINNERS[game["winner"]] for game in played], [1.0] * len(played)))
    assert len(expected) == 5
    assert found.to_dict() == pytest.approx(expected, rel=1e-6)


def test_two_rows_of_strengths_are_their_odds():
    """Of two players the maximum of the likelihood is known: wins of each by all games."""
    games = Games([0, 0, 0], [1, 1, 1], [Winner.X, Winner.Draw, Winner.Y], [6.0, 2.0, 2.0])
    assert strengths(games).to_dict() == pytest.approx({0: 0.7, 1: 0.3})
    assert win_rates(games).to_dict() == pytest.approx({0: 0.7, 1: 0.3})


@pytest.mark.parametrize("games", [[("a", "b", Winner.X)], [("a", "b", Winner.X), ("b", "c", Winner.Draw)]])
def test_who_never_loses_has_no_finite_strength(games):
    xs, ys, winners = map(list, zip(*games, strict=True))
    assert strengths(Games(xs, ys, winners, [1.0] * len(games))).isna().all()


def rated(folder, metric=SCORE):
    table = table_of(folder)
    return ratings(table, metric, read_examples(run for row in table.rows for run in row.runs))


def test_wins_are_counted_by_example_and_seed(tmp_path):
    for seed in (0, 1):
        write_scores(write(tmp_path, ppo(seed=seed)), SCORE, [1.0, 2.0, 3.0, 9.0], list("aabb"))
        write_scores(write(tmp_path, dpo(seed=seed)), SCORE, [0.0, 2.0, 5.0, 0.0], list("aabb"))
    first, second = rated(tmp_path)
    assert (first.row, first.games, second.games) == (("ppo",), 8, 8)
    assert first.average_win_rate.value == pytest.approx((2 + 0.5) / 4)
    assert first.bradley_terry.value == pytest.approx(0.625)
    assert first.bradley_terry.low <= 0.625 <= first.bradley_terry.high
    assert first.elo.value > 1000 > second.elo.value
    assert first.elo.low < first.elo.value < first.elo.high
    assert first.seeds == second.seeds == 2
    assert rated(tmp_path) == rated(tmp_path)


def test_lower_wins_where_lower_is_better(tmp_path):
    write_scores(write(tmp_path, ppo()), SCORE, [1.0, 2.0])
    write_scores(write(tmp_path, dpo()), SCORE, [0.0, 1.0])
    table = table_of(tmp_path)
    examples = read_examples(run for row in table.rows for run in row.runs)
    lower = dataclasses.replace(table, metrics={SCORE: Direction.LOWER})
    assert ratings(table, SCORE, examples)[0].row == ("ppo",)
    assert ratings(lower, SCORE, examples)[0].row == ("dpo",)
    with pytest.raises(UserError, match="no better direction"):
        ratings(dataclasses.replace(table, metrics={SCORE: Direction.NEITHER}), SCORE, examples)


def test_from_the_command_line(tmp_path, capsys):
    for i in range(3):
        scores = [float((i * k) % 5) for k in range(20)]
        write_scores(write(tmp_path, ppo(0.1 * (i + 1))), SCORE, scores)
    assert main([str(tmp_path), "--ratings", SCORE]) == 0
    assert "Bradley-Terry" in capsys.readouterr().out
    assert main([str(tmp_path), "--ratings", SCORE, "--format", "json"]) == 0
    assert sum(r["bradley_terry"]["value"] for r in json.loads(capsys.readouterr().out)["ratings"]) == pytest.approx(1)
    assert main([str(tmp_path), "--ratings", SCORE, "--format", "csv"]) == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == 3
    for form, start in (("markdown", "| row"), ("latex", "\\providecommand")):
        assert main([str(tmp_path), "--ratings", SCORE, "--format", form]) == 0
        assert capsys.readouterr().out.startswith(start)
    assert main([str(tmp_path), "--ratings", "helpfulness/scores"]) == 2
    assert "Did you mean 'helpfulness/score'?" in capsys.readouterr().err


def test_one_row_has_nobody_to_win_against(tmp_path):
    write_scores(write(tmp_path, ppo()), SCORE, [1.0, 2.0])
    with pytest.raises(UserError, match="at least two rows"):
        rated(tmp_path)


@pytest.mark.parametrize("shared", [0, 1])
def test_rows_that_met_on_one_example_or_none_are_rated_or_refused(tmp_path, capsys, shared):
    for number, settings in enumerate((ppo(), dpo())):
        answered = [i >= 20 if number else i < 20 + shared for i in range(40)]
        write_scores(write(tmp_path, settings), SCORE, [i * 1.0 if a else math.nan for i, a in enumerate(answered)])
        record = tmp_path / f"{sorted(p.name for p in tmp_path.iterdir())[-1]}" / "result.json"
        record.write_text(re.sub(r'"missing": ?\d+', '"missing": 0', record.read_text()))
    code = main([str(tmp_path), "--ratings", SCORE])
    printed = capsys.readouterr()
    assert (code, "no other row has answered" in printed.err) == ((0, False) if shared else (2, True))


def test_rows_that_lack_answers_or_have_another_reward_are_not_rated(tmp_path, capsys):
    for settings, missing in ((ppo(), 0), (dpo(), 1)):
        write_scores(write(tmp_path, settings), SCORE, [1.0] * 39 + [math.nan] * missing)
    assert main([str(tmp_path), "--ratings", SCORE]) == 2
    assert "all examples of at least two rows, and 1 has them" in capsys.readouterr().err
    other = tmp_path / "other"
    for settings, annotator in ((ppo(), "honest"), (dpo(), "mild")):
        run = write(other, settings | {"annotator": annotator}, annotator=annotator, reward="learned")
        write_scores(run, "optimization/proxy_reward", [float(i) for i in range(9)])
    assert main([str(other), "--ratings", "optimization/proxy_reward"]) == 2
    assert "measured by different rewards" in capsys.readouterr().err


def test_comparisons_of_one_item_have_no_interval_and_none_speaks_of_training(tmp_path, capsys):
    file = tmp_path / "games.csv"
    file.write_text("left,right,winner,item\na,b,a,one\na,b,b,one\n")
    assert main(["--comparisons", str(file), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert (
        "95% interval (hierarchical bootstrap) over items" in out
        and "seed" not in out.partition("Bradley-Terry:")[0].partition("Who wins")[2]
    )
    assert "| a | 0.500 |" in out and "| 0.500 | 2 |" in out
    for useless in (["--at-kl", "1"], ["--only", "algo=ppo"], ["--plots", str(tmp_path)], [str(tmp_path)]):
        assert main(["--comparisons", str(file), *useless]) == 2, useless
        capsys.readouterr()


def test_an_interval_says_what_it_is_over(tmp_path):
    """Two rows of two seeds, and one that met them on one."""
    for seed in (0, 1):
        write_scores(write(tmp_path, ppo(seed=seed)), SCORE, [1.0, 2.0, 3.0, 9.0])
        write_scores(write(tmp_path, dpo(seed=seed)), SCORE, [0.0, 2.0, 5.0, 0.0])
    (both,) = [line for line in legend(SCORE, rated(tmp_path)) if line.startswith("Who wins")]
    assert "95% interval (hierarchical bootstrap) over seeds and examples; a guide" in both
    write_scores(write(tmp_path, ppo(0.2)), SCORE, [1.0, 0.0, 2.0, 2.0])
    found = rated(tmp_path)
    assert {" ".join(r.row): r.seeds for r in found} == {"ppo kl_coef=0.1": 2, "ppo kl_coef=0.2": 1, "dpo": 2}
    (some,) = [line for line in legend(SCORE, found) if line.startswith("Who wins")]
    assert "over seeds and examples; of ppo kl_coef=0.2, and of others in games against it, over examples only" in some
    (alone,) = legend(SCORE, [r for r in found if r.seeds == 1])[:1]
    assert "over evaluation examples only, training noise left out: one seed" in alone and "over seeds" not in alone


def test_elo_is_the_mean_over_orders_of_the_games(tmp_path):
    """A single game has one order; who wins half of many is at 1000 in the mean, whichever game comes last."""
    write_scores(write(tmp_path, ppo()), SCORE, [1.0])
    write_scores(write(tmp_path, dpo()), SCORE, [0.0])
    first, second = rated(tmp_path)
    assert (first.elo.value, first.elo.low, first.elo.high) == (1002.0, 1002.0, 1002.0) and second.elo.value == 998
    write_scores(write(tmp_path / "many", ppo()), SCORE, [1.0, 0.0] * 40)
    write_scores(write(tmp_path / "many", dpo()), SCORE, [0.0, 1.0] * 40)
    one, _ = rated(tmp_path / "many")
    assert one.elo.low < 999 < 1001 < one.elo.high and abs(one.elo.value - 1000) < 1
