"""`alignbench evaluate-reward`: a reward source by itself, that of a run, and what a run's policy prefers."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import polars
import pytest
import torch

from alignbench import Message, Prompt, Seeds
from alignbench.app.compose import load_config
from tests.core.conftest import Finished
from tests.core.harness import SMALL, Command, Done, records
from tests.core.test_evaluate import checkpoint
from tests.rewards.server import KEY, VARIABLE, Answer, stub

FAST = ("--best-of=4", "--questions=3")
NUMBERS = ("reward=function", "reward.target=tests.core.test_evaluate_reward:number", "data=preferences")


def number(prompt: str, response: str) -> float:
    """A response is worth the number that it begins with."""
    return float(response.split()[0])


def bench(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "bench.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data.path={path}"


def measured(done: Done, results: Path) -> dict[str, Any]:
    assert done.code == 0, done.err
    (record,) = records(results)
    assert record["status"] == "finished"
    return record


def value(record: Mapping[str, Any], metric: str) -> float:
    found: float = record["metrics"][f"reward/{metric}"]["value"]
    return found


def test_reward_bench_2_from_its_file(command: Command, tmp_path: Path) -> None:
    def row(name: str, right: Sequence[str], wrong: Sequence[str], subset: str) -> dict[str, Any]:
        counts = {"num_correct": len(right), "num_rejected": len(wrong), "total_completions": len(right) + len(wrong)}
        return {
            "id": name,
            "prompt": f"Question {name}?",
            "chosen": right,
            "rejected": wrong,
            "subset": subset,
            **counts,
        }

    rows = [
        row("1", ["5"], ["1", "2", "3"], "Math"),
        row("2", ["2"], ["2.0", "1", "0"], "Math"),
        row("3", ["1"], ["2", "3", "0"], "Precise IF"),
        row("ref:0", ["9"], ["1", "2"], "Ties"),
        row("tied:0", ["8", "7"], ["3", "1"], "Ties"),
        row("ref:1", ["1"], ["2", "3"], "Ties"),
        row("tied:1", ["8", "6"], ["5", "2"], "Ties"),
    ]
    settings = (f"results_dir={tmp_path / 'runs'}", "data.subset=some")
    done = command("evaluate-reward", *NUMBERS, bench(tmp_path, rows), *settings)
    assert "  data.subset=some is not used: data.path=" in done.err
    record = measured(done, tmp_path / "runs")
    assert value(record, "best_of_k_math") == 0.75 and value(record, "best_of_k_precise_if") == 0
    ties = mean([1 + 0.01 * math.tanh(4 / 1 - 1), 0.3 + 0.01 * math.tanh(-2 / 2 - 1)])
    assert value(record, "ties") == pytest.approx(ties)
    assert value(record, "mean_of_subsets") == pytest.approx(mean([0.75, 0, ties]))
    assert record["metrics"]["reward/ties"]["n"] == 2
    assert record["identity"]["model"] == "none" and record["identity"]["annotator"] is None
    assert "7" in done.out and "Precise IF" in done.out and "ties (RewardBench 2)" in done.out


def test_rm_bench_llmbar_and_judgebench_from_their_files(command: Command, tmp_path: Path) -> None:
    styled = [
        {
            "id": i,
            "prompt": f"Q{i}?",
            "chosen": ["1 a", "2 b", "3 c"],
            "rejected": ["0 d", "2.5 e", "4 f"],
            "domain": domain,
        }
        for i, domain in enumerate(("chat", "safety-refuse", "chat"))
    ]
    labelled = [
        {"input": "First?", "output_1": "3", "output_2": "1", "label": 1},
        {"input": "Second?", "output_1": "3", "output_2": "1", "label": 2},
        {"input": "Third?", "output_1": "3", "output_2": "1", "label": 1},
    ]
    judged = [
        {"pair_id": str(i), "question": f"{i}?", "source": source, "response_A": "1", "response_B": "2", "label": label}
        for i, (source, label) in enumerate(
            (("mmlu-pro-law", "B>A"), ("livebench-math", "A>B"), ("mmlu-pro-law", "B>A"))
        )
    ]
    expected: list[tuple[str, list[dict[str, Any]], dict[str, float]]] = [
        (
            "rm.json",
            styled,
            {"hard": 0, "normal": 1 / 3, "easy": 1, "hard_chat": 0, "easy_safety_refuse": 1},
        ),  # right > wrong: 1, 2, 3 > 0; 3 > 2.5
        ("llmbar.json", labelled, {"accuracy": 2 / 3}),
        ("judgebench.json", judged, {"accuracy": 2 / 3, "accuracy_mmlu_pro_law": 1, "accuracy_livebench_math": 0}),
    ]
    for name, rows, figures in expected:
        runs = tmp_path / name.partition(".")[0]
        done = command("evaluate-reward", *NUMBERS, bench(tmp_path, rows, f"{name}l"), f"results_dir={runs}")
        record = measured(done, runs)
        assert {metric: value(record, metric) for metric in figures} == pytest.approx(figures), name


def test_a_runs_own_reward_on_what_it_held_out(command: Command, finished: Finished, tmp_path: Path) -> None:
    """The accuracy is that which the fit itself found; nothing of the run is changed."""
    before = {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()}
    done = command("evaluate-reward", f"reward={finished.path}", *FAST, f"results_dir={tmp_path / 'runs'}")
    record = measured(done, tmp_path / "runs")
    (trained, _) = records(finished.path)
    assert value(record, "accuracy") == pytest.approx(trained["reports"]["reward/held_out_accuracy"])
    assert record["metrics"]["reward/accuracy"]["n"] == trained["reports"]["reward/held_out_pairs"]
    assert (record["identity"]["algo"], record["identity"]["reward"]) == ("reward", "learned")
    assert record["identity"]["annotator"] == "mild"
    assert record["reused"]["reward"] == finished.path.name
    assert {path: path.read_bytes() for path in before} == before
    assert "KL at most" in done.out and value(record, "gold_at_4") is not None
    (home,) = (tmp_path / "runs").iterdir()
    examples = polars.read_parquet(home / "examples.parquet")
    assert examples.filter(polars.col("metric") == "reward/gold_at_4").height == 3 * 3, "a question has three prompts"
    everything = command(
        "evaluate-reward", f"reward={finished.path}", *FAST, "--all", f"results_dir={tmp_path / 'all'}"
    )
    pairs = measured(everything, tmp_path / "all")["metrics"]["reward/accuracy"]["n"]
    assert pairs > record["metrics"]["reward/accuracy"]["n"]


def test_a_reward_fitted_here_is_that_of_the_run(command: Command, tmp_path: Path) -> None:
    """By the stages of a run, and under their names: the same numbers, the same row."""
    settings = (*(s for s in SMALL if not s.startswith(("algo.", "eval."))), "reward.updates=2", *FAST)
    cache = f"cache_dir={tmp_path / 'cache'}"
    run = command(*SMALL, "algo.updates=2", "reward.updates=2", "eval=quick", f"results_dir={tmp_path / 'run'}", cache)
    assert run.code == 0, run.err
    (path,) = (tmp_path / "run").iterdir()
    fitted = command("evaluate-reward", "reward=learned", *settings, f"results_dir={tmp_path / 'here'}", cache)
    found = command("evaluate-reward", f"reward={path}", *FAST, f"results_dir={tmp_path / 'there'}")
    here, there = measured(fitted, tmp_path / "here"), measured(found, tmp_path / "there")
    assert here["metrics"] == there["metrics"] and here["identity"]["config_hash"] == there["identity"]["config_hash"]
    assert set(here["reused"]) == {"sft", "rankings", "reward"}, "what a run has made is not made again"
    length = command(
        "evaluate-reward", "reward=length", *settings[:-3], *FAST, f"results_dir={tmp_path / 'here'}", cache
    )
    assert length.code == 0, length.err
    table = command("compare", str(tmp_path / "here"), "--baseline", "reward reward=length", "--format", "json")
    assert table.code == 0, table.err
    (difference,) = [d for d in json.loads(table.out)["differences"] if d["metric"] == "reward/accuracy"]
    assert difference["examples"] == here["metrics"]["reward/accuracy"]["n"], "compared pair by pair"


@pytest.mark.parametrize(("algo", "beta"), [("dpo", 0.1), ("simpo", 2.0)])
def test_what_a_policy_prefers_by_its_algorithm(command: Command, tmp_path: Path, algo: str, beta: float) -> None:
    run = command(*SMALL, f"algo={algo}", "algo.updates=2", "eval=quick", f"results_dir={tmp_path / 'run'}")
    assert run.code == 0, run.err
    (path,) = (tmp_path / "run").iterdir()
    done = command("evaluate-reward", f"reward=dpo:{path}", "--best-of=0", f"results_dir={tmp_path / 'runs'}")
    record = measured(done, tmp_path / "runs")
    config = load_config([*SMALL, f"algo={algo}"])
    assert config.algo.config.beta == beta
    seeds = Seeds(0)
    data = config.data.build(seeds=seeds.child("data"))
    policy = config.model.build(tokenizer=data.tokenizer(), device=torch.device("cpu"), seeds=seeds.child("model"))
    rows = [json.loads(line) for line in (path / "rankings.jsonl").read_text().splitlines()]
    margins = gaps(policy, path, [row for row in rows if row["split"] == "held_out"], per_token=algo == "simpo")
    assert value(record, "accuracy") == pytest.approx(mean(gap > 0 for gap in margins))
    brier = mean((1 - 1 / (1 + math.exp(-beta * gap))) ** 2 for gap in margins)
    assert value(record, "brier") == pytest.approx(brier, abs=1e-5)
    assert record["identity"]["reward"] == f"{algo}'s policy" and "gold_at_1" not in str(record["metrics"])
    refused = command("evaluate-reward", f"reward={path}")
    assert refused.code == 2 and f"reward=dpo:{path.name} measures what its policy prefers" in refused.errors[0]


@pytest.mark.parametrize(
    "settings", [("algo=best_of_n", "reward=length"), ("algo=sft", "algo.updates=2", "algo.batch_size=16")], ids=str
)
def test_a_run_without_a_policy_of_its_own_prefers_nothing(
    command: Command, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    quick = ("eval.families=[optimization]", "eval.frontier_samples=0")
    small = [setting for setting in SMALL if not setting.startswith("algo.")]
    run = command(*small, *settings, *quick, f"results_dir={tmp_path / 'run'}")
    assert run.code == 0, run.err
    (path,) = (tmp_path / "run").iterdir()
    done = command("evaluate-reward", f"reward=dpo:{path}", "--best-of=0")
    assert done.code == 2
    assert f"{path.name} trained no policy" in done.errors[0]


def gaps(policy: Any, run: Path, rows: Sequence[Mapping[str, Any]], *, per_token: bool) -> list[float]:
    """For each held-out pair how much more the trained model's log-probability rose for the better response than the SFT model's; or how
    much higher that of its mean token is."""

    def worth(folder: Path) -> list[list[float]]:
        policy.load(folder)
        found = []
        for row in rows:
            prompt = Prompt(row["id"], tuple(Message(**m) for m in row["messages"]))
            given = policy.encode(
                [prompt] * len(row["responses"]), row["responses"], finished=row["finished"]
            ).sequences
            with torch.no_grad():
                sums = (policy.logprobs(given).logprobs * given.response_mask).sum(1)
            found.append((sums / given.response_mask.sum(1) if per_token else sums).tolist())
        return found

    after, before = worth(run / "model"), worth(run / "sft" / "model")
    differences = []
    for row, own, ref in zip(rows, after, before, strict=True):
        for a, rank in enumerate(row["ranks"]):
            for b, other in enumerate(row["ranks"]):
                if rank < other and row["responses"][a] != row["responses"][b]:
                    differences.append(own[a] - own[b] - (0 if per_token else ref[a] - ref[b]))
    return differences


def test_other_data_in_another_language_is_refused(command: Command, finished: Finished, tmp_path: Path) -> None:
    rows = [{"prompt": f"{q}?", "chosen": "2 yes", "rejected": "1 no"} for q in "abc"]
    for other in (("data=preferences", bench(tmp_path, rows)), ("data=arithmetic",), ("data=exact",)):
        done = command("evaluate-reward", f"reward={finished.path}", *other)
        assert done.code == 2
        assert f"{other[0]} is not in the language of {finished.path.name}" in done.errors[0]
    same = command("evaluate-reward", f"reward={finished.path}", "data=world", "data.train_prompts=99")
    assert same.code == 2 and "data=world has no recorded rankings" in same.errors[0], "its own language"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data=world",), "Say what is measured, once: reward=<"),
        (("reward=nobody",), "learned"),
        (("reward=lenght",), "Did you mean 'length'"),
        (("reward=dpo:nothing",), "is no finished run"),
        ((f"reward=dpo:{'a' * 5000}",), "too long for a path"),
        (("reward=[1,2]",), "Say what is measured, once"),
        (("reward=length", "reward=gold"), "Say what is measured, once"),
        (("reward=no/such/run",), "is no finished run"),
        (("reward=RUN", "algo=dpo"), "algo: a run's reward is measured as it is"),
        (("reward=RUN", "reward.loss=plackett_luce"), "a run's reward is measured as it is"),
        (("reward=SFT",), "is the SFT model of a run: name the run"),
        (("reward=length", "algo=dpo"), "leave algo out"),
        (("reward=length", "--best-of=1"), "choose 2 or more responses, or 0"),
        (("reward=length", "--questions=0"), "must be 1 or more"),
        (("reward=length", "rewards.scale=1"), "rewards"),
        (("reward=function", "data=preferences", "data.path=nowhere.jsonl"), "nowhere.jsonl"),
        (("reward=learned", "data=preferences", "DATA", "annotator=recorded"), "model"),
    ],
)
def test_bad_requests(
    command: Command, finished: Finished, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    data = bench(tmp_path, [{"prompt": f"{q}?", "chosen": "2 yes", "rejected": "1 no"} for q in "abc"])
    known = {"DATA": data, "reward=RUN": f"reward={finished.path}", "reward=SFT": f"reward={finished.path / 'sft'}"}
    done = command("evaluate-reward", *(known.get(argument, argument) for argument in arguments))
    assert done.code == 2, done.err
    (error,) = done.errors
    assert message in error


def test_a_source_that_needs_a_model_says_so(command: Command, tmp_path: Path) -> None:
    data = bench(tmp_path, [{"prompt": f"{q}?", "chosen": "2 yes", "rejected": "1 no"} for q in "abc"])
    parts = ("reward=mix", "reward.parts={length:1}")
    done = command("evaluate-reward", *parts, "data=preferences", data)
    assert done.code == 2 and "add model=<name>" in done.errors[0]


def test_a_judge_rates_and_compares_in_both_orders(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rates by the number in the answer, and compares in favour of what is shown first where a question mentions the sun."""
    monkeypatch.setenv(VARIABLE, KEY)

    def script(number: int, body: dict[str, Any]) -> Answer:
        text = body["messages"][-1]["content"]
        numbers = [int(found) for found in re.findall(r"\n(\d) said", text)]
        if len(numbers) == 1:
            return Answer(f"Rating: {numbers[0]}")
        return Answer("Verdict: A" if "sun" in text or numbers[0] > numbers[1] else "Verdict: B")

    rows = [
        {"prompt": "The moon?", "chosen": "8 said", "rejected": "3 said"},
        {"prompt": "The sun?", "chosen": "5 said", "rejected": "2 said"},
        {"prompt": "The sea?", "chosen": "2 said", "rejected": "9 said"},
    ]
    with stub(script) as server:
        judge = ("reward=judge", f"reward.url={server.url}", "reward.model=referee", f"reward.key_variable={VARIABLE}")
        judge = (*judge, "reward.cache=false", "data=preferences", bench(tmp_path, rows))
        done = command("evaluate-reward", *judge, f"results_dir={tmp_path / 'runs'}")
    record = measured(done, tmp_path / "runs")
    assert value(record, "accuracy") == pytest.approx(2 / 3)
    assert value(record, "compared_accuracy") == pytest.approx((1 + 0.5 + 0) / 3)
    assert value(record, "orders_agree") == pytest.approx(2 / 3)
    assert len(server.asked) == 6 + 6, "each response once, each pair in two orders"
    assert record["reports"]["reward/requests"] == 12


def test_ordinary_text_with_a_model_and_recorded_rankings(command: Command, tmp_path: Path) -> None:
    """Fitted to some of the rankings, and measured by those that were held out; then by other data, all of it."""
    checkpoint(tmp_path / "model")
    rows = [
        {"prompt": p, "chosen": c, "rejected": r} for p, c, r in zip("abcdefgh", "bcdefgha", "cdefghab", strict=True)
    ]
    own = ("data=preferences", bench(tmp_path, rows), "data.held_out_rows=2", "data.held_out_share=0.3")
    model = ("model=hf", f"model.path={tmp_path / 'model'}", "model.max_prompt_tokens=8", "model.max_response_tokens=6")
    settings = (
        *own,
        *model,
        "annotator=recorded",
        "sft.updates=1",
        "reward.updates=2",
        "algo.updates=1",
        "algo.batch_size=4",
    )
    settings = (*settings, "sft.batch_size=4", "algo.micro_batch_size=4")
    fitted = command("evaluate-reward", "reward=learned", *settings, f"results_dir={tmp_path / 'here'}")
    record = measured(fitted, tmp_path / "here")
    assert record["metrics"]["reward/accuracy"]["n"] == 2 and "held-out rankings, 2" in fitted.out
    assert not [name for name in record["metrics"] if "gold" in name], "nobody knows the truth"
    run = command(
        "algo=ppo",
        "eval=quick",
        *settings,
        "eval.families=[optimization]",
        "eval.samples=1",
        f"results_dir={tmp_path / 'run'}",
    )
    assert run.code == 0, run.err
    (path,) = (tmp_path / "run").iterdir()
    others = bench(
        tmp_path, [{"prompt": f"{a} {b}", "chosen": a, "rejected": b} for a, b in ("ab", "cd", "ef")], "others.jsonl"
    )
    elsewhere = command(
        "evaluate-reward", f"reward={path}", "data=preferences", others, f"results_dir={tmp_path / 'there'}"
    )
    assert measured(elsewhere, tmp_path / "there")["metrics"]["reward/accuracy"]["n"] == 3
    assert "all rankings, 3" in elsewhere.out
    world = command("evaluate-reward", f"reward={path}", "data=world")
    assert "data=world has no recorded rankings" in world.errors[0], "its words do not stand in the way"


def spoil(folder: Path, name: str) -> None:
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    elif name in ("config.yaml", "rankings.jsonl"):
        path.write_text(path.read_text() + "\n{[")
    else:
        path.write_text("x")


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ("reward", "scalar.safetensors cannot be read"),
        ("sft", "its weights are gone"),
        ("config.yaml", "config.yaml cannot be read"),
        ("rankings.jsonl", "is no ranking as a run writes it"),
        ("result.json", "result.json cannot be read: not JSON"),
    ],
)
def test_damaged_runs_are_refused_in_one_line(
    command: Command, finished: Finished, tmp_path: Path, spoilt: str, message: str
) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    spoil(tmp_path / "run", spoilt)
    done = command("evaluate-reward", f"reward={tmp_path / 'run'}", f"results_dir={tmp_path / 'runs'}")
    assert done.code == 2
    (error,) = done.errors
    assert message in error
