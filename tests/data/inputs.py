"""Twelve ordinary inputs as users have them, each written as a file, and the rankings that all of them hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.data.writing import Rows, array, lines, parquet, said, table

Question = tuple[str, str, str]
QUESTIONS: list[Question] = [
    (f"What is {a} and {b}?", f"It is {a + b}.", f"No idea, {a}.") for a in range(4) for b in range(5)
]
"""A prompt, the better response, the worse one."""


def _strings(questions: list[Question]) -> Rows:
    return [{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in questions]


def _messages(questions: list[Question]) -> Rows:
    return [
        {"prompt": [said("user", p)], "chosen": [said("assistant", good)], "rejected": [said("assistant", bad)]}
        for p, good, bad in questions
    ]


def _inside(questions: list[Question]) -> Rows:
    return [
        {role: [said("user", p), said("assistant", reply)] for role, reply in (("chosen", good), ("rejected", bad))}
        for p, good, bad in questions
    ]


def _rated(text: str, score: int) -> dict[str, Any]:
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    return {
        "model": "m",
        "response": text,
        "overall_score": float(score),
        "annotations": {name: {"Rating": str(score), "Rationale": "so"} for name in aspects},
    }


def _ultrafeedback(questions: list[Question]) -> Rows:
    return [
        {"source": "s", "instruction": p, "models": ["m", "m"], "completions": [_rated(good, 5), _rated(bad, 2)]}
        for p, good, bad in questions
    ]


def _instructions(questions: list[Question]) -> Rows:
    return [
        {"instruction": p, "input": "", "output": good, "chosen": good, "rejected": bad} for p, good, bad in questions
    ]


def _trees(questions: list[Question]) -> Rows:
    return [
        {
            "message_tree_id": str(i),
            "tree_state": "ready_for_export",
            "prompt": {
                **_node(p, "prompter"),
                "replies": [_node(bad, "assistant", rank=1), _node(good, "assistant", rank=0)],
            },
        }
        for i, (p, good, bad) in enumerate(questions)
    ]


def _node(text: str, role: str, **more: Any) -> dict[str, Any]:
    return {
        "message_id": text,
        "text": text,
        "role": role,
        "deleted": False,
        "review_result": True,
        "replies": [],
        **more,
    }


SYSTEM = "Be brief."


def _dialogues(questions: list[Question]) -> Rows:
    return [
        {role: f"{SYSTEM}\n\nHuman: {p}\n\nAssistant: {reply}" for role, reply in (("chosen", good), ("rejected", bad))}
        for p, good, bad in questions
    ]


def _saved(folder: Path, rows: Rows) -> Path:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(folder)
    return folder


def _saved_splits(folder: Path, rows: Rows) -> Path:
    import datasets

    halves = {"train": rows[:-4], "test": rows[-4:]}
    datasets.DatasetDict({name: datasets.Dataset.from_list(half) for name, half in halves.items()}).save_to_disk(folder)
    return folder


Write = Callable[[Path, list[Question]], Path]
INPUTS: dict[str, Write] = {
    "1 strings": lambda folder, q: lines(folder / "x.jsonl", _strings(q)),
    "2 messages": lambda folder, q: lines(folder / "x.jsonl", _messages(q)),
    "3 prompt inside": lambda folder, q: lines(folder / "x.jsonl", _inside(q)),
    "4 ultrafeedback": lambda folder, q: lines(folder / "x.jsonl", _ultrafeedback(q)),
    "5 ultrafeedback parquet": lambda folder, q: parquet(folder / "x.parquet", _ultrafeedback(q)),
    "6 saved": lambda folder, q: _saved(folder / "saved", _messages(q)),
    "7 saved splits": lambda folder, q: _saved_splits(folder / "saved", _strings(q)),
    "8 csv": lambda folder, q: table(folder / "x.csv", _strings(q)),
    "9 array": lambda folder, q: array(folder / "x.json", _strings(q)),
    "10 instructions": lambda folder, q: array(folder / "x.json", _instructions(q)),
    "11 trees": lambda folder, q: lines(folder / "x.jsonl", _trees(q)),
    "12 dialogues": lambda folder, q: lines(folder / "x.jsonl", _dialogues(q)),
}
"""Each writes questions into a folder and gives the path that a user would."""
