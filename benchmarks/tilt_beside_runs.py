"""What trained runs reached beside the frontier of their own SFT model and reward: proxy and gold reward, and
agreement with wrong opinions, at the run's own KL.

    python -m alignbench -m algo=ppo algo.kl_coef=0.3,0.1,0.05,0.02 seed=0,1,2 eval.questions=150 eval.frontier_samples=1024 \\
        eval.frontier_prompts=150 results_dir=tilt
    python benchmarks/tilt_beside_runs.py tilt --setting algo.kl_coef

prints a Markdown table: a line a setting, means over its seeds, and of `frontier_gap` the intervals of the single runs.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from alignbench.results.disk.record import Status
from alignbench.results.disk.runs import StoredRun, find_runs

KL, PROXY, GOLD = "optimization/kl", "optimization/proxy_reward", "optimization/gold_reward"
AGREEMENT, GAP = "sycophancy/agreement", "optimization/frontier_gap"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="a folder of runs")
    parser.add_argument("--setting", default="algo.kl_coef", help="what the lines are of; default: %(default)s")
    options = parser.parse_args()
    found, _ = find_runs([options.runs])
    groups: dict[object, list[StoredRun]] = defaultdict(list)
    for run in found:
        if run.record.status is Status.FINISHED and not run.record.baseline and (run.path / "frontier.json").exists():
            groups[run.settings[options.setting]].append(run)
    print(
        f"| {options.setting} | seeds | KL | proxy | tilt | gold | tilt | agreement | tilt | frontier_gap of each seed (95%) |"
    )
    print("| --- |" + " ---: |" * 8 + " --- |")
    for value, runs in sorted(groups.items(), key=lambda group: -float(str(group[0]))):
        tilts = [_at(run) for run in runs]
        cells = [_mean([_value(run, KL) for run in runs])]
        for place, name in enumerate((PROXY, GOLD, AGREEMENT)):
            cells += [_mean([_value(run, name) for run in runs]), _mean([tilt[place] for tilt in tilts])]
        gaps = "; ".join(_gap(run) for run in runs)
        print(f"| {value} | {len(runs)} | {' | '.join(cells)} | {gaps} |")


def _value(run: StoredRun, name: str) -> float:
    return run.record.metrics[name].value if name in run.record.metrics else math.nan


def _at(run: StoredRun) -> tuple[float, ...]:
    """Proxy, gold reward and agreement of the frontier at the run's KL; NaN beyond its last point, and of what it does not know."""
    points = json.loads((run.path / "frontier.json").read_text())["points"]
    kl, kls = _value(run, KL), [point["kl"] for point in points]
    if not kls or kl > max(kls):
        return (math.nan,) * 3
    order = np.argsort(kls)
    columns = (
        [points[i].get(name, {}).get("value", math.nan) for i in order] for name in ("proxy", "gold", "agreement")
    )
    return tuple(float(np.interp(kl, np.sort(kls), column)) for column in columns)


def _gap(run: StoredRun) -> str:
    if GAP not in run.record.metrics:
        return "beyond the reach"
    gap = run.record.metrics[GAP]
    return f"{gap.value:.2f} ({gap.low:.2f} to {gap.high:.2f})"


def _mean(values: list[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{sum(known) / len(known):.2f}" if known else "–"


if __name__ == "__main__":
    main()
