"""What four bits change in training: the curves of runs on bases of different precision, side by side.

    export OMP_NUM_THREADS=1
    python -m alignbench -m experiment=hh_smollm2 data.path=<folder of HH-RLHF> algo=ppo model.quantization=none,nf4 seed=0,1 \
        'eval.families=[optimization]' results_dir=RUNS
    python benchmarks/precision.py RUNS

Prints for each finished run of the folder what training started from and arrived at, as means over three updates: the loss of supervised
fine-tuning, the reward and the KL of PPO; then the reward model's accuracy and the proxy reward of the evaluation. Below, the mean over
the seeds of each base, and how far the bases are apart beside how far the seeds of one base are.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

AT_ONCE = 3
COLUMNS = (
    "SFT loss, start", "SFT loss, end", "accuracy", "PPO reward, start", "PPO reward, end", "KL, end", "proxy reward", "SFT's",
)  # fmt: skip


def ends(folder: Path, stage: str, figure: str) -> tuple[float, float]:
    """The mean of a figure over the first updates of a stage, and over its last."""
    lines = map(json.loads, (folder / "train.jsonl").read_text().splitlines())
    found = [line[figure] for line in lines if line["stage"] == stage]
    return statistics.fmean(found[:AT_ONCE]), statistics.fmean(found[-AT_ONCE:])


def figures(folder: Path) -> list[float]:
    record, start = (json.loads((f / "result.json").read_text()) for f in (folder, folder / "sft"))
    proxy = [r["metrics"]["optimization/proxy_reward"]["value"] for r in (record, start)]
    accuracy = record["reports"]["reward/held_out_accuracy"]
    return [
        *ends(folder, "sft", "loss"), accuracy, *ends(folder, "ppo", "reward"), ends(folder, "ppo", "kl")[1], *proxy
    ]  # fmt: skip


def runs(root: Path) -> Iterator[tuple[str, int, list[float]]]:
    """Base, seed and figures of the finished runs."""
    for result in sorted(root.glob("*/result.json")):
        if json.loads(result.read_text())["status"] == "finished":
            config = OmegaConf.load(result.parent / "config.yaml")
            base = config.model.quantization if config.model.quantization != "none" else "not quantised"
            yield base, config.seed, figures(result.parent)


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(root: Path) -> None:
    print(line(["base", "seed", *COLUMNS]))
    print(line(["---", "---:", *["---:"] * len(COLUMNS)]))
    of_base = defaultdict(list)
    for base, seed, found in sorted(runs(root)):
        of_base[base].append(found)
        print(line([base, str(seed), *(f"{value:.3f}" for value in found)]))
    means = {base: [statistics.fmean(column) for column in zip(*rows, strict=True)] for base, rows in of_base.items()}
    for base, mean in means.items():
        print(line([base, "mean", *(f"{value:.3f}" for value in mean)]))
    if len(means) == 2:
        apart = [abs(one - other) for one, other in zip(*means.values(), strict=True)]
        spread = [
            max(max(column) - min(column) for column in (list(zip(*rows, strict=True))[i] for rows in of_base.values()))
            for i in range(len(COLUMNS))
        ]
        print(line(["bases apart", "", *(f"{value:.3f}" for value in apart)]))
        print(line(["seeds apart", "at most", *(f"{value:.3f}" for value in spread)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
