"""How often a reward source prefers what was ranked higher, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from alignbench_rewards.config import HeldOutConfig
from alignbench_rewards.held_out import HeldOut

from alignbench import Message, Prompt, Ranking, Seeds, StageResult, StageView

SCORES = {"a": 3.0, "b b": 2.0, "c c c": 1.0, "d": 2.0}


def looked(folder: Path, *rankings: Ranking, batch_size: int = 64) -> tuple[StageResult, list[list[bool]]]:
    """Its result, and whether the responses of each batch ended by themselves."""
    batches: list[list[bool]] = []

    def encode(prompts: Sequence[Prompt], responses: Sequence[str], *, finished: Sequence[bool]) -> Any:
        batches.append(list(finished))
        return SimpleNamespace(texts=responses)

    view = StageView(
        SimpleNamespace(encode=encode),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        folder,
        held_out=rankings,
        score=lambda samples: torch.tensor([SCORES[text] for text in samples.texts]),
    )
    return HeldOut(HeldOutConfig(batch_size=batch_size), seeds=Seeds(0)).run(view), batches


ASKED = Prompt("p", (Message("user", "?"),))
RANKINGS = (
    Ranking(ASKED, ("a", "b b", "c c c"), (0, 1, 2)),  # three pairs, all right, the better is the shorter
    Ranking(ASKED, ("c c c", "a"), (0, 1), (True, False)),  # wrong, the better is the longer
    Ranking(ASKED, ("b b", "d"), (0, 1)),  # a tie of scores, the better is the longer
    Ranking(ASKED, ("a", "d"), (0, 0)),  # a tie of ranks says nothing
)


@pytest.mark.parametrize("batch_size", [2, 64])
def test_figures(batch_size: int, tmp_path: Path) -> None:
    result, batches = looked(tmp_path, *RANKINGS, batch_size=batch_size)
    assert result.figures == {"pairs": 5, "accuracy": 3.5 / 5, "accuracy_longer": 0.25, "accuracy_shorter": 1.0}
    assert [len(batch) for batch in batches] == ([2, 2, 2, 2, 1] if batch_size == 2 else [9])
    assert [end for batch in batches for end in batch] == [True, True, True, True, False, True, True, True, True]


def test_without_a_pair_there_is_no_share(tmp_path: Path) -> None:
    assert looked(tmp_path, RANKINGS[3])[0].figures == {"pairs": 0}
