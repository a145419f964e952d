"""Sums in words, for a real model to learn by a verified reward: JSON lines with `prompt`, `answer` and `subset`.

    python results/word_sums.py FOLDER      # writes FOLDER/train.jsonl and FOLDER/test.jsonl

No two problems with the same numbers, names and thing are in both files, and a pair of numbers is in one of them alone: the held-out
problems ask for sums that were never trained on. The numbers are from 2 to 30; `easy` ends below 20. The same files come out every time.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

SEED, HELD_OUT_PAIRS, LARGEST, EASY = 0, 60, 30, 20
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry")
THINGS = ("apples", "books", "coins", "stamps", "marbles", "pencils", "shells", "tickets")
STORIES = {
    "+": (
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "There are {a} {things} on the table and {b} {things} in a box. How many {things} are there in all?",
    ),
    "-": (
        "{name} has {a} {things} and gives away {b}. How many {things} are left?",
        "There were {a} {things} in a box. {name} took {b} of them. How many {things} are still in the box?",
    ),
}
ASKED = " Answer with one number."


def problems(pairs: list[tuple[int, int]], per_pair: int, rng: random.Random) -> Iterator[dict[str, str]]:
    for a, b in pairs:
        for _ in range(per_pair):
            sign = "-" if a > b and rng.random() < 0.5 else "+"
            result = a + b if sign == "+" else a - b
            told = rng.choice(STORIES[sign]).format(name=rng.choice(NAMES), things=rng.choice(THINGS), a=a, b=b)
            yield {
                "prompt": told + ASKED,
                "answer": str(result),
                "subset": "easy" if max(a, b, result) < EASY else "hard",
            }


def main(folder: Path) -> None:
    rng = random.Random(SEED)
    pairs = list(itertools.product(range(2, LARGEST + 1), repeat=2))
    rng.shuffle(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen, per_pair in (("test", pairs[:HELD_OUT_PAIRS], 4), ("train", pairs[HELD_OUT_PAIRS:], 3)):
        rows = list({row["prompt"]: row for row in problems(chosen, per_pair, rng)}.values())
        rng.shuffle(rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{folder / name}.jsonl: {len(rows)} problems")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
