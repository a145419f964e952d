"""Options of `data=preferences` and of `annotator=recorded`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from alignbench import Selected, StagePlace, UserError, bounded, check_there, select, unknown_name

PATHS = ("path", "prompts_path", "demonstrations_path")
"""The first that is given is split; the others stand beside it."""
WINNERS = ("a", "b", "tie")


@dataclass
class PreferencesConfig:
    """Preferences, labels, demonstrations or prompts of any common form, from a file, a folder or the hub.

    Rows are read, duplicates left out, then split by prompt: the held-out prompts are the evaluation prompts, and they stay the
    same whatever `max_rows` and the run's seed are.
    """

    annotator: ClassVar[str] = "recorded"  # who ranks, where nobody says otherwise
    reads_files: ClassVar[bool] = True  # whatever file or hub id it is given

    path: str = ""
    """A file (JSON, JSON lines, Parquet, CSV, TSV, Arrow, text; also gz, bz2, xz, zst), a folder of such files, a folder that
    `datasets` saved, or a hub id (owner/name)."""
    subset: str = ""
    """The configuration of a hub data set, or the part of a folder whose name this is; empty: the only one."""
    revision: str = ""
    """Branch, tag or commit on the hub; empty: main."""
    train_split: str = ""
    """The split to train on; empty: the one named train, or all there is."""
    test_split: str = ""
    """The split to hold out; empty: the one named test, validation, dev or eval, where there is one."""
    test_path: str = ""
    """Rows to hold out, in a place of their own, as `path`."""
    demonstrations_path: str = ""
    """Demonstrations for SFT, as `path`; empty: the best responses of `path`."""
    prompts_path: str = ""
    """Prompts to train on by sampling, as `path`; empty: those of `path`."""
    format: str = ""
    """The layout of the rows of `path`, by name (docs/data.md, `alignbench plugins`); empty: each row's, as it is recognised."""
    format_options: dict[str, Any] = field(default_factory=dict)
    """Options of that layout, where it has some."""
    columns: dict[str, Any] = field(default_factory=dict)
    """What a column is, where its name does not say: data.columns.prompt=<column>. The names to the left are those of
    docs/data.md; a value is a column, a path into one (reply.text), or a list of columns."""
    where: dict[str, Any] = field(default_factory=dict)
    """Only rows whose columns have these values: data.where.lang=en; a list: one of these."""
    rating: str = ""
    """Which of several ratings ranks the responses."""
    rating_weights: dict[str, float] = bounded({})
    """Several ratings, weighted: data.rating_weights.helpfulness=1; the sum ranks the responses."""
    winner_values: dict[str, str] = field(default_factory=dict)
    """What the values of a winner column mean: a, b or tie, as in data.winner_values.1=a."""
    system: str = ""
    """A system message for conversations that have none; empty: none."""
    held_out_share: float = bounded(0.1, above=0, below=1)
    """Share of the rows that is held out for evaluation, where no split is; whole prompts."""
    held_out_rows: int = bounded(500, least=0)
    """Most rows that are held out, of a share or of a split; 0: no limit."""
    max_rows: int = bounded(0, least=0)
    """Training rows, picked at random with `split_seed`, whole prompts first; 0: all. What is not picked is not kept in memory."""
    split_seed: int = bounded(0, least=0, most=1e18)
    """Seeds the split and the pick of rows; not the run's seed, so that all seeds are judged on the same prompts."""
    max_bad_share: float = bounded(0.05, least=0, most=1)
    """Largest share of rows that may be damaged: they are set aside and counted; beyond it the run stops and names the first."""
    streaming: bool = False
    """Reads a hub data set without storing it; needs `max_rows`."""

    def __post_init__(self) -> None:
        if self.rating and self.rating_weights:
            raise UserError("data.rating and data.rating_weights both say what ranks the responses: give one of them.")
        if self.streaming and not (self.max_rows and self.held_out_rows):
            raise UserError("data.streaming=true needs data.max_rows and data.held_out_rows: how many rows to keep.")
        if self.train_split and self.train_split == self.test_split:
            raise UserError(
                f"data.train_split and data.test_split are both {self.train_split}: hold out another split."
            )
        if self.format_options and not self.format:
            raise UserError("data.format_options are of no format: give data.format=<name>.")
        self.uses()  # an unknown name is refused here

    def uses(self) -> tuple[Selected, ...]:
        """The layout that was chosen by name."""
        if not self.format:
            return ()
        return (select("format", self.format, self.format_options, where="data.format_options"),)

    def ready(self) -> None:
        """As `ready` of any component's config."""
        from alignbench_data.columns import NAMES

        given = {name: getattr(self, name) for name in (*PATHS, "test_path") if getattr(self, name)}
        if not given:
            raise UserError("data=preferences needs data.path=<file, folder or hub id> (docs/data.md).")
        for name, path in given.items():
            check_there(path, f"data.{name}", hub=True)
        for role, column in self.columns.items():
            if role not in NAMES:
                raise unknown_name("role", str(role), NAMES, where="data.columns")
            if not column and column != 0:
                raise UserError(f"data.columns.{role} is empty: name a column.")
        for value, meaning in self.winner_values.items():
            if meaning not in WINNERS:
                raise unknown_name("winner", meaning, WINNERS, where=f"data.winner_values.{value}")


@dataclass
class RecordedConfig:
    """Rankings that were given before: the data source's own, or a file of them; nothing is sampled."""

    brings_recorded: ClassVar[bool] = True
    inert: ClassVar[Mapping[str, str]] = {"max_bad_share": "it decides what is refused, and changes no ranking"}

    path: str = ""
    """Rankings in any of the forms that `data.path` takes, as {"prompt": text or "messages": [...], "responses": [...],
    "ranks": [...]} in JSON lines; empty: the rankings that the data source brings."""
    max_bad_share: float = bounded(0.0, least=0, most=1)
    """As data.max_bad_share, of the file: nobody's work is left out unless that is said."""

    def ready(self) -> None:
        """As `ready` of any component's config."""
        if self.path:
            check_there(self.path, "annotator.path", hub=True)


@dataclass
class FilterConfig:
    """Leaves out demonstrations that say the same again, are too short or too long, or hold given words; before SFT."""

    place: ClassVar[StagePlace] = StagePlace.BEFORE_SFT
    needs: ClassVar[tuple[str, ...]] = ("demonstrations",)

    duplicates: bool = True
    """Whether one is left out whose prompt and response have the words of an earlier one, whatever their capitals and spaces."""
    per_prompt: int = bounded(0, least=0, most=1e9)
    """Most demonstrations of one prompt, the first ones; 0: no limit."""
    min_words: int = bounded(1, least=0, most=1e9)
    """Fewest words of a response."""
    max_words: int = bounded(0, least=0, most=1e9)
    """Most words of a response; 0: no limit."""
    without: list[str] = field(default_factory=list)
    """Texts that no response may hold, in any case, as ["as an ai language model"]."""

    def __post_init__(self) -> None:
        if self.max_words and self.max_words < self.min_words:
            raise UserError(
                f"max_words={self.max_words} is less than min_words={self.min_words}: nothing would be left."
            )
        if not all(text.strip() for text in self.without):
            raise UserError("without holds an empty text, which is in every response: leave it out.")
