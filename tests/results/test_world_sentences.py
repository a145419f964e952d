"""The pages of the algorithms say what the committed table says."""

from __future__ import annotations

import pytest

from tests.results import world_sentences


def test_pages_say_what_the_table_says() -> None:
    if not world_sentences.RECORDS.is_dir():
        pytest.skip("results/ is not part of this copy")
    said = world_sentences.sentences()
    assert len(said) > 25
    for algo, sentence in said.items():
        if algo not in world_sentences.SHARED:
            found = world_sentences.page(algo).read_text(encoding="utf-8")
            assert world_sentences.BEGIN + sentence in found, f"{algo}: python tests/results/world_sentences.py"
