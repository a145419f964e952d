"""The tables that are shown are those that `alignbench compare` prints from the committed records."""

from __future__ import annotations

import re

import pytest

from tests.results.on_disk import compare
from tests.results.test_committed import RESULTS, script

WORLD = (
    "helpfulness/gold_reward,helpfulness/accuracy,sycophancy/agreement,diversity/entropy,"
    "optimization/proxy_reward,optimization/kl"
)
EXACT = "exact/total_variation,exact/own_total_variation,exact/objective_gap,exact/kl"
UNCOVERED = "exact/total_variation,exact/own_total_variation,exact/objective_gap,exact/kl,exact/uncovered_mass"
SCORED = "best_of_n,cispo,dapo,grpo,gspo,maxrl,ppo,reinforce_pp,reinforce_pp_baseline,rejection_sampling,rloo,sapo"
PAIRS = "aot,apo,bco,cpo,dpo,exo,ipo,kto,ln_dpo,orpo,simpo,sppo,tdpo,wpo"
SAMPLED = "iterative_dpo,nash_md,online_dpo,online_ipo,xpo"
OF_PREFERENCES = (
    "helpfulness/judge_win_rate,helpfulness/lc_win_rate,helpfulness/judge_reward,optimization/proxy_reward,"
    "sycophancy/pushback_abandoned,sycophancy/opinion_matching,sycophancy/answer_drop,diversity/entropy_response,"
    "diversity/entropy,diversity/cosine_distance,diversity/across_self_bleu,"
    "optimization/kl,optimization/length,optimization/finished"
)
OF_HACKING = (
    "helpfulness/judge_reward,optimization/proxy_reward,optimization/kl,diversity/entropy_response,"
    "diversity/across_self_bleu,optimization/length"
)
PRIMARY_OF_HACKING = ("--primary", "helpfulness/judge_reward", "--primary", "optimization/proxy_reward")
QUOTED = re.compile(r"\|.*\\\[|[>-] .+ against .+ \(\d+ seeds?\): ")
"""A row of differences with their intervals, or a sentence on two rows."""


def shown(printed: str) -> str:
    """The first table of what was printed."""
    lines = printed.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| metric |"))
    end = next(number for number in range(start, len(lines)) if not lines[number].startswith("|"))
    return "\n".join(lines[start:end])


@pytest.mark.parametrize(
    "algorithms", [SCORED, PAIRS, SAMPLED, "ppo,rloo,dpo"], ids=["scored", "pairs", "sampled", "three"]
)
def test_the_worlds_table(algorithms: str, capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, "world", "algorithms.md", WORLD, algorithms)


def test_the_whole_suite_on_three_of_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, "world", "evaluation.md", "", "ppo,dpo")


@pytest.mark.parametrize("annotator", ["honest", "sycophantic"])
def test_the_other_annotators_tables(annotator: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = "best_of_n,dpo,grpo,ipo,kto,online_dpo,ppo,rejection_sampling,rloo,simpo"
    held(capsys, "annotators", "annotators.md", WORLD, few, "--only", f"annotator={annotator}")


@pytest.mark.parametrize("records", ["exact", "exact3"], ids=["two tokens", "three"])
@pytest.mark.parametrize("algorithms", [SCORED.replace("grpo", "gdpo,grpo", 1), PAIRS, SAMPLED])
def test_the_exact_tables(algorithms: str, records: str, capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, records, "exact.md", EXACT, algorithms)


def test_the_table_of_the_world_of_sums(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = "verified,diversity/entropy,diversity/unique,optimization/proxy_reward,optimization/kl"
    held(capsys, "arithmetic", "arithmetic.md", metrics, "ppo,grpo,rloo")


def test_the_table_of_sums(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = "verified,diversity/entropy,diversity/unique,optimization/kl,optimization/length"
    held(capsys, "sums", "sums.md", metrics, "ppo,grpo,rejection_sampling")


def test_the_table_on_four_bits(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = "verified/pass_at_1,verified/pass_at_4,diversity/entropy,optimization/kl,optimization/length"
    folders = [str(RESULTS / "records" / name) for name in ("sums", "sums_nf4")]
    if not RESULTS.is_dir():
        pytest.skip("results/ is not part of this copy")
    assert compare([*folders, "--only", "algo=sft,grpo", "--metrics", metrics, "--format", "markdown"]) == 0
    assert shown(capsys.readouterr().out) in (RESULTS / "sums.md").read_text(encoding="utf-8")


def test_the_table_of_more_updates(capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, "exact3_long", "exact.md", EXACT, "dpo,online_dpo")


def test_the_table_of_what_preferences_never_show(capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, "uncovered", "exact.md", UNCOVERED, "ppo,dpo")


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo", "dpo", "best_of_n"])
def test_the_frontiers_tables(algorithm: str, capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, "frontier", "frontier.md", WORLD, algorithm)


def test_the_frontier_at_one_kl(capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, "frontier", "frontier.md", WORLD, "ppo,rloo,grpo", "--at-kl", "3")


def test_the_table_of_human_preferences(capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, "preferences", "preferences.md", OF_PREFERENCES, "dpo,ppo,rloo")


def test_the_table_of_hacking(capsys: pytest.CaptureFixture[str]) -> None:
    held(capsys, "hacking", "hacking.md", OF_HACKING, "ppo", *PRIMARY_OF_HACKING)


@pytest.mark.parametrize(
    ("page", "commands"),
    [
        ("algorithms.md", [["world", "--only", "algo=sft,ppo,rloo,dpo"]]),
        ("evaluation.md", [["world", "--only", "algo=sft,ppo,dpo"]]),
        ("arithmetic.md", [["arithmetic"]]),
        ("hacking.md", [["hacking", *PRIMARY_OF_HACKING, "--metrics", OF_HACKING]]),
        ("preferences.md", [["preferences", "--metrics", OF_PREFERENCES]]),
        ("sums.md", [["sums"], ["sums", "sums_nf4", "--only", "algo=sft,grpo"]]),
    ],
)
def test_differences_and_verdicts_on_a_page(
    page: str, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    if not RESULTS.is_dir():
        pytest.skip("results/ is not part of this copy")
    folders = {path.name: str(path) for path in (RESULTS / "records").iterdir()}
    for command in commands:
        arguments = [folders.get(word, word) for word in command]
        assert compare([*arguments, "--power", "--format", "markdown"]) == 0
    printed = {line.lstrip("-> ") for line in capsys.readouterr().out.splitlines()}
    text = (RESULTS / page).read_text(encoding="utf-8")
    powers = [
        rows
        for after in text.split("\nSmallest true difference")[1:]
        for rows in after.split("\n\n")[1].splitlines()[2:]
    ]
    quoted = [line for line in text.splitlines() if QUOTED.match(line)] + powers
    assert quoted, "the page quotes none any more"
    assert not [line for line in quoted if line.lstrip("-> ") not in printed]


def test_the_tables_of_rankings(capsys: pytest.CaptureFixture[str]) -> None:
    feedback, page = script("feedback"), RESULTS / "feedback.md"
    feedback.main([str(RESULTS / "records" / "rankings")])
    assert capsys.readouterr().out.strip() in page.read_text(encoding="utf-8")


def test_the_tuners_tables(capsys: pytest.CaptureFixture[str]) -> None:
    tuned = script("tuned")
    for arguments, page in (([], "tuning.md"), (["--against", str(RESULTS / "records" / "world")], "algorithms.md")):
        tuned.main(arguments)
        assert capsys.readouterr().out.strip() in (RESULTS / page).read_text(encoding="utf-8")


def held(
    capsys: pytest.CaptureFixture[str], records: str, page: str, metrics: str, algorithms: str, *options: str
) -> None:
    folder = RESULTS / "records" / records
    if not folder.is_dir():
        pytest.skip("results/ is not part of this copy")
    only = ("--only", f"algo=sft,{algorithms}")
    named = ("--metrics", metrics) if metrics else ()
    assert compare([str(folder), *only, *named, "--format", "markdown", *options]) == 0
    assert shown(capsys.readouterr().out) in (RESULTS / page).read_text(encoding="utf-8")


def test_the_rows_of_trl_are_those_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    """Its page has a row for each algorithm, and words beside the figures."""
    if not RESULTS.is_dir():
        pytest.skip("results/ is not part of this copy")
    metrics = ("total_variation", "own_total_variation", "objective", "kl")
    named = ",".join(f"exact/{name}" for name in metrics)
    assert compare([str(RESULTS / "records" / "trl"), "--metrics", named, "--format", "markdown"]) == 0
    head, _, *rows = (_cells(line) for line in shown(capsys.readouterr().out).splitlines())
    printed = {row[0].removesuffix(" ↓").removesuffix(" ↑"): dict(zip(head, row, strict=True)) for row in rows}
    page = [_cells(line) for line in (RESULTS / "trl.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    on_page = {row[0]: row for row in page if row[0] in head[1:]}
    assert set(on_page) == set(head[1:]) and len(on_page) == 17
    for name, (_, distance, own, _, objective, kl, _) in on_page.items():
        told = (distance, own, objective, "0.00" if kl == "0" else kl)
        assert told == tuple(printed[f"exact/{metric}"][name] for metric in metrics)


def _cells(line: str) -> list[str]:
    return [re.sub("[▲▼◆†]", "", cell).strip() for cell in line.strip("|").split("|")]
