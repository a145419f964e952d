"""The annotator whose work is done: it brings rankings of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from alignbench import Annotator, DataSource, Prompt, Ranking, Seeds, Split, UserError
from alignbench_data.config import PreferencesConfig, RecordedConfig
from alignbench_data.parse import Reader
from alignbench_data.reading.places import parts_of
from alignbench_data.splitting import whole


class RecordedAnnotator(Annotator):
    """Rankings from a file, or those of the data source."""

    known = "alignbench_data.known:recorded"
    samples_responses: ClassVar[bool] = False

    def __init__(self, config: RecordedConfig, *, data: DataSource, seeds: Seeds) -> None:
        if config.path:
            self._rankings = _joined(read_rankings(config.path, config.max_bad_share), data)
        else:
            self._rankings = list(data.rankings())

    def recorded(self) -> Sequence[Ranking]:
        return self._rankings


def read_rankings(path: Path | str, max_bad_share: float = 0.0) -> list[Ranking]:
    """The rankings of a file, in any form that holds some. Raises UserError for the first row that is damaged, where more are than
    that share."""
    reader = Reader(PreferencesConfig(max_bad_share=max_bad_share), keep_ids=True, option="annotator")
    records = [
        record for part in parts_of(str(path), option="annotator.path") for record in whole(reader.read(part.rows()))
    ]
    rankings = [record for record in records if isinstance(record, Ranking)]
    if not rankings:
        raise UserError(f"{path} holds no ranking.")
    return rankings


def _joined(rankings: Iterable[Ranking], data: DataSource) -> list[Ranking]:
    """Rankings on the data's own prompts where the conversations are the same: a ranking of an evaluation prompt is
    known by its id and must be held out, also where the file gives no id or another one."""
    prompts = [*data.prompts(Split.TRAIN), *data.prompts(Split.EVALUATION)]
    by_id = {prompt.id: prompt for prompt in prompts}
    by_messages = {prompt.messages: prompt for prompt in prompts}

    def known(prompt: Prompt) -> Prompt:
        same_id = by_id.get(prompt.id)
        if same_id and same_id.messages == prompt.messages:
            return same_id
        if same := by_messages.get(prompt.messages):
            return same
        if same_id:
            raise UserError(
                f"The rankings file has a prompt with the id {prompt.id!r}, which is another prompt in the data. "
                "Leave the ids out, or use the data that the file was made with."
            )
        return prompt

    return [dataclasses.replace(ranking, prompt=known(ranking.prompt)) for ranking in rankings]
