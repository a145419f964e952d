"""What is left out of demonstrations before SFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from alignbench_data.config import FilterConfig
from alignbench_data.filtering import Filter

from alignbench import Demonstration, Message, PolicyReader, Prompt, Seeds, StageResult, StageView, UserError

GIVEN = (
    ("What is it?", "It is blue ."),
    ("what  IS it?", "it is BLUE ."),
    ("What is it?", "Blue"),
    ("What is it?", "As an AI language model, I say blue ."),
    ("And this?", "It is blue ."),
    ("And this?", ""),
)


def filtered(folder: Path, **options: Any) -> tuple[StageResult, list[int]]:
    """What the filter gives, and which of those above it keeps."""
    given = tuple(
        Demonstration(Prompt(f"p{i}", (Message("user", asked),)), said) for i, (asked, said) in enumerate(GIVEN)
    )
    view = StageView(PolicyReader(None), None, folder, demonstrations=given)  # type: ignore[arg-type]
    result = Filter(FilterConfig(**options), seeds=Seeds(0)).run(view)
    assert result.demonstrations is not None
    return result, [given.index(one) for one in result.demonstrations]


@pytest.mark.parametrize(
    ("options", "kept", "counts"),
    [
        ({}, [0, 2, 3, 4], {"duplicates": 1, "too_short": 1}),
        ({"duplicates": False, "min_words": 0}, [0, 1, 2, 3, 4, 5], {}),
        ({"min_words": 2, "max_words": 4}, [0, 4], {"duplicates": 1, "too_short": 2, "too_long": 1}),
        ({"without": ["ai language MODEL"]}, [0, 2, 4], {"duplicates": 1, "too_short": 1, "with_words": 1}),
        ({"per_prompt": 1}, [0, 4], {"duplicates": 1, "too_short": 1, "over_per_prompt": 2}),
        ({"per_prompt": 2, "duplicates": False}, [0, 1, 4], {"too_short": 1, "over_per_prompt": 2}),
    ],
)
def test_what_is_kept_and_why_the_rest_is_not(
    options: dict[str, Any], kept: list[int], counts: dict[str, int], tmp_path: Path
) -> None:
    result, found = filtered(tmp_path, **options)
    assert found == kept
    assert {name: value for name, value in result.figures.items() if value} == {"given": 6, "kept": len(kept), **counts}
    lines = [json.loads(line) for line in (tmp_path / "left_out.jsonl").read_text().splitlines()]
    assert [[line["prompt"], line["response"]] for line in lines] == [list(GIVEN[i]) for i in range(6) if i not in kept]
    assert sorted(line["reason"] for line in lines) == sorted(name for name, n in counts.items() for _ in range(n))
    assert f"{len(kept)} of 6 demonstrations kept" in result.summary


@pytest.mark.parametrize("options", [{"min_words": 3, "max_words": 2}, {"without": [" "]}])
def test_what_would_leave_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        FilterConfig(**options)
