"""`annotator=auto`: who ranks follows from the data, and the run is the same as if it had been named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from alignbench import UserError
from alignbench.app.compose import load_config
from alignbench.app.config import RunConfig


def identity(config: RunConfig) -> tuple[str, ...]:
    return config.yaml, config.hash, config.sft_hash, config.annotator_hash, config.annotator.label


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "annotator=mild"),
        (["annotator.b_agree=3"], "annotator=mild"),
        (["data=exact", "model=micro"], "annotator=exact"),
        (["experiment=exact"], "annotator=exact"),
        (["data=hh", "model=smollm2"], "annotator=recorded"),
        (["annotator.path=mine.jsonl"], "annotator=recorded"),
        (["data=hh", "annotator.path=mine.jsonl"], "annotator=recorded"),
    ],
)
def test_it_is_whom_the_data_names(
    given: Sequence[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    assert identity(load_config(given)) == identity(load_config([named, *given]))


def test_who_is_named_ranks() -> None:
    assert load_config(["annotator=honest"]).annotator.label == "honest"
    assert load_config(["data=exact", "model=micro", "annotator=recorded"]).annotator.label == "recorded"


def test_a_wrong_setting_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match="b_agre' in annotator.*b_agree"):
        load_config(["annotator.b_agre=3"])
    with pytest.raises(UserError, match="temperature"):
        load_config(["annotator.temperature=warm"])
    with pytest.raises(UserError, match="auto, exact, honest"):
        load_config(["annotator=nobody"])
