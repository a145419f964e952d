"""What the diversity family costs, and how many examples give which interval.

    python benchmarks/diversity.py [--texts CSV]

times every metric that needs no model on 1800 prompts of 4 responses of about 10 tokens. With --texts, a file with the columns `mr`
and `ref` (devset.csv of E2E NLG: several texts by people of one meaning), it also prints the spread of each metric over prompts,
K = 4 texts each, and the half-width of the 95% interval that 100, 400 and 1600 prompts give (across prompts: of their bundles of 10).
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import statistics
import time
from collections import defaultdict
from pathlib import Path

from alignbench_suite.config import DiversityConfig
from alignbench_suite.diversity.evaluation import Diversity

from alignbench import Generation, Message, Prompt, Subject, Verdict

NORMAL_95 = 1.96


class Words:
    """A tokenizer of whole words."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ids: dict[str, int] = {}

    def __len__(self) -> int:
        return self._size

    def __call__(self, texts: list[str], *, add_special_tokens: bool) -> dict[str, list[list[int]]]:
        ids = self._ids
        return {"input_ids": [[ids.setdefault(word, len(ids)) for word in text.split()] for text in texts]}


def subject(answers: list[list[str]], vocabulary: int, *, ordinary_text: bool) -> Subject:
    generations = tuple(
        Generation(Prompt(str(n), (Message("user", str(n)),)), i, text, 10, True, -1.0, -1.0, 0.5, None, Verdict(1.0))
        for n, texts in enumerate(answers)
        for i, text in enumerate(texts)
    )
    tokenizer = Words(vocabulary)
    return Subject(
        Path(), generations, generations, tokenizer, lambda p, n: (), lambda p, r: (), ordinary_text=ordinary_text
    )  # type: ignore[arg-type]


def seconds() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(140)]
    answers = [[" ".join(rng.choices(words, k=rng.randint(8, 12))) for _ in range(4)] for _ in range(1800)]
    for label, metrics in (("default metrics", DiversityConfig().metrics), ("all metrics", ["all"])):
        evaluation = Diversity(DiversityConfig(metrics=metrics))
        asked = subject(answers, 140, ordinary_text=False)
        start = time.process_time()
        evaluation.evaluate(asked)
        print(f"{label}: {time.process_time() - start:.1f} s of processor time for 1800 prompts x 4")


def intervals(path: Path) -> None:
    people: dict[str, list[str]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            people[row["mr"]].append(row["ref"])
    answers = [texts[:4] for texts in people.values() if len(texts) >= 4]
    config = DiversityConfig(metrics=["all"], self_bleu_prompts=0)
    values: dict[str, list[float]] = defaultdict(list)
    for score in Diversity(config).evaluate(subject(answers, 50_000, ordinary_text=True)):
        if "entropy" not in score.metric and "utility" not in score.metric:
            values[score.metric].append(score.value)
    print(
        f"\n{len(answers)} prompts x 4 texts by people\n{'metric':34} {'mean':>7} {'s':>7} {'100':>7} {'400':>7} {'1600':>7}"
    )
    for name, found in values.items():
        spread = statistics.stdev(found)
        size = config.bundle if "across_" in name else 1
        halves = [NORMAL_95 * spread / math.sqrt(prompts / size) for prompts in (100, 400, 1600)]
        print(f"{name:34} {statistics.fmean(found):7.3f} {spread:7.3f} " + " ".join(f"±{half:6.3f}" for half in halves))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="a CSV file with the columns mr and ref")
    arguments = parser.parse_args()
    seconds()
    if arguments.texts:
        intervals(arguments.texts)


if __name__ == "__main__":
    main()
