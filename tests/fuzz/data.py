"""A fuzzer of data files: `python -m tests.fuzz.data --count 2000`.

Each case is a file or a folder of a kind that `data=preferences` reads, with bytes that were changed, or with rows of which parts
are something else. It must be refused in one line, or be read, and then be text. Cases follow from `--seed` alone."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.data.writing import LINES, PACKINGS, ROWS, Rows, array, arrow, lines, parquet, put, saved, source, table
from tests.fuzz.count import Count

Write = Callable[[Path, Rows], object]
FORMATS: dict[str, Write] = {
    "x.jsonl": lines,
    "x.ndjson": lines,
    "x.json": array,
    "object.json": lambda path, rows: path.write_text(json.dumps({"data": rows})),
    "x.csv": table,
    "x.tsv": partial(table, delimiter="\t"),
    "x.txt": lambda path, rows: path.write_text("\n".join(str(row.get("prompt", row)) for row in rows)),
    "x.parquet": parquet,
    "x.arrow": arrow,
    **{
        f"x.jsonl.{name}": lambda path, rows, packed=packed: path.write_bytes(packed(lines(path, rows).read_bytes()))
        for name, packed in PACKINGS.items()
    },
    "x.csv.gz": lambda path, rows: path.write_bytes(PACKINGS["gz"](table(path, rows).read_bytes())),
    "saved": saved,
    "folder": lambda path, rows: (
        lines(path / "train.jsonl", rows),
        parquet(path / "test.parquet", [{**row, "prompt": f"held out {row['prompt']}"} for row in ROWS]),
    ),
}
"""Every kind of file and folder, by its name, and what writes one."""

_texts = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    [
        "a",
        "\ud800",
        "\0",
        "\n\nHuman: a\n\nAssistant:",
        "### Human: b### Assistant: c",
        '["x"]',
        "[{",
        "tie",
        "1",
        "user",
        "assistant",
    ]
)
_plain = st.none() | st.booleans() | st.integers() | st.floats() | _texts
_keys = st.sampled_from(
    [
        *("prompt", "input", "messages", "text", "system", "chosen", "rejected", "responses", "scores", "ranks", "finished"),
        *("answer", "response", "label", "winner", "overall_preference", "best", "turn", "judge", "choices", "test_list"),
        *("instruction_id_list", "kwargs", "category", "response_a", "response_b", "conversation_a", "conversation_b"),
        *("score_chosen", "score_rejected", "margin", "helpfulness", "message_id", "parent_id", "role", "replies", "rank"),
        *("content", "from", "value", "type", "annotations", "Rating", "message_tree_id", "id", "winner_model_a"),
    ]
)  # fmt: skip
_values = st.recursive(_plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys | _texts, inner, max_size=4), max_leaves=12)  # fmt: skip
_rows = st.lists(st.dictionaries(_keys | _texts, _values, min_size=1, max_size=7) | _values, min_size=1, max_size=4)
_bases: Rows = [
    ROWS[0],
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "c"}]},
    {"prompt": "a", "responses": ["b", "c"], "scores": [1, 2]},
    {"prompt": "a", "responses": ["b", "c"], "ranks": [1, 2], "finished": [True, False]},
    {"instruction": "a", "completions": [{"response": r, "annotations": {"h": {"Rating": "4"}}} for r in "bc"]},
    {"prompt": {"message_id": "1", "text": "a", "role": "prompter", "replies": [{"text": r, "role": "assistant", "rank": 0, "replies": []} for r in "bc"]}},
    {"message_id": "1", "parent_id": None, "text": "a", "role": "prompter"},
    {"conversation_a": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "conversation_b": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}], "winner": "tie", "turn": 1},
    {"prompt": "a", "response_1": "b", "response_2": "c", "winner": 1},
    {"prompt": "a", "response": "b", "label": True},
    {"prompt": "a", "response": "b", "helpfulness": 3},
    {"prompt": "a", "instruction_id_list": ["x:y"], "kwargs": [{}], "choices": ["a"], "answer": "b"},
    {"text": "Human: a\n\nAssistant: b"},
    {"prompt": "a", "responses": ["b", "c"], "scores": [1, None], "ranks": [1, 2]},
    {"prompt": "Human: \n\nAssistant:", "input": "a", "output": "b"},
    {"messages": "Human: \n\nAssistant:", "label": 1},
    {"prompt": "a", "chosen": ["b"], "rejected": ["c", "d"], "num_correct": 1, "subset": "Ties", "id": "ref:1"},
    {"prompt": "a", "chosen": ["b", "c", "d"], "rejected": ["e", "f", "g"], "domain": "chat"},
    {"question": "a", "response_A": "b", "response_B": "c", "label": "A>B"},
    {"input": "a", "output_1": "b", "output_2": "c", "label": 2},
    {"prompt": "a", "response1": "b", "response2": "c", "overall_preference": [{"score": 1}, -2]},
]  # fmt: skip


@st.composite
def _mutated(draw: st.DrawFn) -> Any:
    """A good row of which a few parts, at any depth, are something else."""
    row = json.loads(json.dumps(draw(st.sampled_from(_bases))))
    for _ in range(draw(st.integers(1, 3))):
        held: Any = row
        while True:
            places = list(held) if isinstance(held, dict) else list(range(len(held)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(held[place], (dict, list)) and draw(st.booleans()):
                held = held[place]
                continue
            if draw(st.booleans()):
                held[place] = draw(_values)
            else:
                held.pop(place)
            break
    return row


@st.composite
def _cases(draw: st.DrawFn, kind: str) -> tuple[str, Callable[[Path], Path]]:
    """What a case is called, and what makes it in a folder."""
    name = draw(st.sampled_from(sorted(FORMATS)))
    if kind == "bytes":
        change = draw(st.sampled_from(("over", "into", "cut")))
        at, noise, which = draw(st.floats(0, 1)), draw(st.binary(max_size=80)), draw(st.integers(0, 9))
        return f"{name}: {noise!r} {change} {at}", partial(_bytes, name, change, at, noise, which)
    rows = draw(st.lists(_mutated(), min_size=1, max_size=3) | _rows)
    return f"{name}: {json.dumps(rows)}", partial(_with_rows, name, rows)


def _bytes(name: str, change: str, at: float, noise: bytes, which: int, folder: Path) -> Path:
    """A good one, of which a file has other bytes."""
    path = folder / name
    if not (kept := folder.parent / "good" / name).exists():
        kept.parent.mkdir(exist_ok=True)
        FORMATS[name](kept, ROWS)
    (shutil.copytree if kept.is_dir() else shutil.copy)(kept, path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) or [path]
    file = files[which % len(files)]
    good = file.read_bytes()
    place = int(at * len(good))
    rest = {"over": good[place + len(noise) :], "into": good[place:], "cut": b""}[change]
    file.write_bytes(good[:place] + noise + rest)
    return path


def _with_rows(name: str, rows: list[Any], folder: Path) -> Path:
    """Some good rows and these; as JSON lines where such a file cannot hold them."""
    try:
        FORMATS[name](folder / name, [*ROWS[:2], *rows])
        return folder / name
    except Exception:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        return put(folder / "rows.jsonl", "\n".join([*LINES[:2], *map(json.dumps, rows)]))


def _read(path: Path, rating: str) -> None:
    """Reads it all, and looks at what was read."""
    data = source(path, max_bad_share=1.0, rating=rating)
    for ranking in data.rankings():
        for text in (*ranking.responses, *(message.content for message in ranking.prompt.messages)):
            text.encode()
        assert ranking.prompt.messages[-1].role == "user" and min(ranking.ranks) == 0
    for shown in data.demonstrations():
        shown.response.encode()
        assert shown.response.strip()


def fuzz(count: int, number: int, folder: Path) -> Count:
    """Tries `count` cases, half of them of changed bytes."""
    found = Count("read")

    def tries(kind: str, most: int) -> None:
        @seed(number)
        @settings(
            max_examples=most,
            database=None,
            deadline=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(_cases(kind), st.sampled_from(["", "helpfulness"]))
        def one(case: tuple[str, Callable[[Path], Path]], rating: str) -> None:
            shutil.rmtree(folder / "case", ignore_errors=True)
            (folder / "case").mkdir()
            name, make = case
            path = make(folder / "case")
            found.attempt(name, lambda: _read(path, rating))

        one()

    tries("bytes", count // 2)
    tries("rows", count - count // 2)
    return found


def main() -> int:
    options = argparse.ArgumentParser("python -m tests.fuzz.data", description=__doc__)
    options.add_argument("--count", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(chosen.count, chosen.seed, Path(folder)).report()


if __name__ == "__main__":
    sys.exit(main())
