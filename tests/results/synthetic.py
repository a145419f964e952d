"""Run directories of a sweep that nobody ran: figures follow Gao et al.'s curves, text is as given."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

from alignbench import Direction, Generation, Message, Metric, Prompt, Verdict
from alignbench.results.compared.paired import Difference
from alignbench.results.compared.table import Table, build_table
from alignbench.results.disk.directory import RunDirectory
from alignbench.results.disk.environment import config_hash
from alignbench.results.disk.record import Cost, Identity, RunRecord, Status
from alignbench.results.disk.runs import find_runs
from tests.results.on_disk import measured

HIGHER, LOWER, NEITHER = Direction.HIGHER, Direction.LOWER, Direction.NEITHER
ALPHA, BETA, SFT_GOLD = 1.5, 0.6, 2.5
PROMPTS = 50
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</script><script>alert(1)</script>",
    "</style></title></textarea><b>",
    "]]><!-- -->",
    "<!--<script>",
    r"$\frac{1}{$ costs $x^2$",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &amp;",
    "\x1b[31mred\x07",
    "null\x00byte",
    "lone \ud800 surrogate",
    "\u202eoverride\u2066",
    "漢字 🙂 عربي",
)


def gold(d: float, *, best_of_n: bool = False) -> float:
    """At d = sqrt(KL): equations 1 and 2 of arXiv 2210.10760, from the SFT model's gold reward on."""
    return SFT_GOLD + d * (ALPHA - BETA * (d if best_of_n else math.log(d))) if d > 0 else SFT_GOLD


def write_run(
    folder: Path,
    algo: str,
    settings: dict | None = None,
    *,
    d: float = 1.0,
    seed: int = 0,
    label: str = "",
    bound: bool = False,
    has_gold: bool = True,
    data: str = "world",
    updates: int = 30,
    text: str = "kessa .",
    status: Status = Status.FINISHED,
    error: str | None = None,
    noise: float = 0.02,
    **identity,
) -> Path:
    """A run whose policy went to sqrt(KL) = d, with the row of its SFT model."""
    rng = random.Random(f"{algo} {settings} {seed}")
    config = {"seed": seed, "algo": {"component": algo, **(settings or {})}, "data": {"component": data}}
    directory = RunDirectory.create(
        folder, algo=algo, model="tiny", data=data, seed=seed, config_hash=config_hash(config)
    )
    _write_model(
        directory, config, algo, seed, d + rng.gauss(0, noise), rng,
        label=label, bound=bound, has_gold=has_gold, data=data, text=text, status=status, error=error, **identity,
    )  # fmt: skip
    _write_model(
        directory.baseline(), {**config, "algo": None}, "sft", seed, 0.0, random.Random(seed),
        has_gold=has_gold, data=data, text="lemmo ?", baseline=True,
    )  # fmt: skip
    for update in range(1, 1 + (0 if bound else updates)):
        way = update / updates
        figures = {
            "kl": d * d * way,
            "reward": 0.8 * way + rng.gauss(0, 0.05),
            "entropy": 0.7 - 0.3 * way,
            "loss": 1 / update,
        }
        directory.append_training(algo, update, figures)
    return directory.path


def _write_model(
    directory: RunDirectory, config: dict, algo: str, seed: int, d: float, rng: random.Random,
    *, label: str = "", bound: bool = False, has_gold: bool = True, data: str = "world", text: str = "",
    baseline: bool = False, status: Status = Status.FINISHED, error: str | None = None,
    packages: dict | None = None, hardware: dict | None = None, commit: str = "c0ffee",
) -> None:  # fmt: skip
    def near(value: float, direction: Direction) -> Metric:
        return measured(value + rng.gauss(0, 0.01), 0.02, 600, direction)

    metrics = {
        "helpfulness/gold_reward": near(gold(d, best_of_n=bound), HIGHER),
        "sycophancy/agreement": near(0.3 - 0.05 * d, LOWER),
        "diversity/entropy": near(0.7 - 0.1 * d, HIGHER),
        "diversity/distinct_2": near(0.75 - 0.08 * d, HIGHER),
        "optimization/proxy_reward": near(0.5 * d, HIGHER),
        "optimization/gold_reward": near(gold(d, best_of_n=bound), HIGHER),
        "optimization/kl_bound" if bound else "optimization/kl": measured(d * d, 0.05, 600, NEITHER),
    }
    if bound:
        del metrics["diversity/entropy"]
    if not has_gold:
        metrics = {name: metric for name, metric in metrics.items() if "gold" not in name and "helpful" not in name}
    identity = Identity(
        algo=algo, plugin="alignbench", plugin_version="0.1.0", model="tiny", data=data, annotator="mild",
        reward="learned", seed=seed, config_hash=config_hash(config), git_commit=commit, algo_label=label,
        packages=packages or {"torch": "2.13.0"}, hardware=hardware or {"cpu": "synthetic"},
    )  # fmt: skip
    seconds = {"sft": 50.0, algo: 0.0 if baseline else 60.0 + 20 * d + rng.gauss(0, 4)}
    record = RunRecord(directory.run_id, status, identity, Cost(seconds), metrics, baseline=baseline, error=error)
    directory.write_config(json.dumps(config, ensure_ascii=False))  # JSON is YAML
    directory.write_record(record)
    directory.write_generations(
        Generation(
            Prompt(f"prompt-{i}", (Message("user", f"what is the river of town {i} ?"),)),
            index, f"{text} {i}", 3, True, -1.0, -2.0, 0.5, 0.25, Verdict(3.0, True, False) if has_gold else None,
        )
        for i in range(PROMPTS)
        for index in range(3)
    )  # fmt: skip


def write_sweep(folder: Path, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """PPO over five KL coefficients, best-of-n over five n, DPO once."""
    for seed in seeds:
        for d in (0.5, 1.0, 1.8, 2.6, 3.5):
            write_run(folder, "ppo", {"kl_coef": round(0.3 / d, 2)}, d=d, seed=seed)
        for n in (2, 4, 16, 64, 256):
            write_run(
                folder, "best_of_n", {"n": n}, d=math.sqrt(math.log(n) - (n - 1) / n), seed=seed, bound=True, noise=0
            )
        write_run(folder, "dpo", {"beta": 0.1}, d=1.2, seed=seed)


def read(folder: Path) -> Table:
    return build_table(*find_runs([folder]))


def difference(row: tuple[str, ...], **changes) -> Difference:
    fields = {
        "row": row, "baseline": ("sft",), "metric": "helpfulness/gold_reward", "value": 0.5, "low": 0.2, "high": 1.0,
        "p_value": 0.001, "p_holm": 0.01, "effect_size": 0.4, "significant": True, "over_seeds": True, "seeds": 3,
        "examples": 600,
    }  # fmt: skip
    return Difference(**{**fields, **changes})
