"""References of data=preferences are what reward=verify reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from alignbench_verify.config import VerifyConfig
from alignbench_verify.reward import VerifyReward

from alignbench import DataSource, Seeds, Split, UserError, select
from tests.verify.rows import passes, verifier

ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "{i}+2?", "answer": "It is {i} and 2.\n#### 7"},
    "choices": {"prompt": "which {i}?", "choices": ["red", "blue"], "answer": "B"},
    "mbpp": {"prompt": "write f{i}", "test_list": ["assert f(1) == 2", "assert f(2) == 3"]},
}
RIGHT = {"gsm8k": "so 7", "choices": "blue", "mbpp": "def f(x): return x + 1"}
WRONG = {"gsm8k": "7, or 8", "choices": "red", "mbpp": "def f(x): return 2"}
COLUMNS = {"gsm8k": {"prompt": "question", "response": "answer", "answer": "answer"}}


def read(tmp_path: Path, row: dict[str, Any], columns: dict[str, str]) -> DataSource:
    lines = (json.dumps(row).replace("{i}", str(i)) for i in range(20))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    options = {"path": str(tmp_path / "rows.jsonl"), "columns": columns}
    source: DataSource = select("data", "preferences", options, where="data").build(seeds=Seeds(0))
    return source


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_verified(name: str, tmp_path: Path) -> None:
    data = read(tmp_path, ROWS[name], COLUMNS.get(name, {}))
    VerifyReward.check_data(VerifyConfig(), data)
    prompt = data.prompts(Split.TRAIN)[0]
    assert passes(verifier(), prompt, RIGHT[name], WRONG[name]) == [True, False]


def test_rows_without_references_are_refused(tmp_path: Path) -> None:
    data = read(tmp_path, {"prompt": "which {i}?", "response": "x"}, {})
    with pytest.raises(UserError, match=r"reward=verify: \d+ of \d+ train prompts do not bring"):
        VerifyReward.check_data(VerifyConfig(), data)
