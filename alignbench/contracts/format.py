"""The contract of a layout of rows that data of preferences may have. See `contracts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from alignbench.records import Demonstration, Labelled, Prompt, Ranking


class Format(ABC):
    """How a row of a file is read, named in `data.format`. Built with nothing beside its config."""

    @abstractmethod
    def read(self, row: Mapping[str, Any]) -> Sequence[Ranking | Labelled | Demonstration | Prompt]:
        """What a row says, by the names of its columns as they stand in the file; nothing where it is whole and teaches nothing.

        Raises UserError for a damaged row: it is set aside and counted, as anything else that is raised. A prompt whose id is empty is
        named by its words, as all prompts of such data."""
