"""Options of `data=hh`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alignbench import bounded, check_there, unknown_name

SUBSETS = ("helpful-base", "helpful-online", "helpful-rejection-sampled", "harmless-base")


@dataclass
class HHConfig:
    """Anthropic HH-RLHF: human preferences between two assistant replies (arXiv 2204.05862).

    Rows are filtered first, then split into training and held-out rows, then cut to `max_rows`: the held-out rows stay
    the same whatever `max_rows` and the run's seed are.
    """

    annotator: ClassVar[str] = "recorded"

    path: str = ""
    """A folder with the files as Anthropic lays them out, or one .jsonl or .jsonl.gz file; empty: from the hub."""
    subset: str = "helpful-base"
    """helpful-base, helpful-online, helpful-rejection-sampled or harmless-base; unused where `path` is a file."""
    revision: str = "main"
    """Branch, tag or commit of the hub data set; unused with `path`."""
    max_rows: int = bounded(0, least=0)
    """Training rows, picked at random with `split_seed`; 0: all."""
    held_out_rows: int = bounded(500, least=0)
    """Rows set aside for evaluation: their rankings are held out and their prompts are the evaluation prompts; 0: all
    of the test file (needs a train file too)."""
    max_prompt_words: int = bounded(0, least=0)
    """Rows with a longer prompt (whole dialogue before the reply, in words) are set aside; 0: no limit."""
    max_response_words: int = bounded(0, least=0)
    """Rows with a longer reply (the longer of the two, in words) are set aside; 0: no limit."""
    split_seed: int = bounded(0, least=0, most=1e18)
    """Seeds the split and the pick of rows; not the run's seed, so that all seeds are judged on the same prompts."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        if self.path:
            check_there(self.path, "data.path")
        if not self.path and self.subset not in SUBSETS:
            raise unknown_name("data.subset", self.subset, SUBSETS)
