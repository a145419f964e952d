"""HH-RLHF as a data source: read, filtered, counted, split by prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from alignbench import DataSource, Demonstration, Prompt, Ranking, Seeds, Split, UserError, unknown_name
from alignbench_hh.config import SUBSETS, HHConfig
from alignbench_hh.files import download, locate, read_rows
from alignbench_hh.parse import Pair, Reason, parse_row

DUPLICATE_ROW, LONG_PROMPT, LONG_RESPONSE = "duplicate_row", "long_prompt", "long_response"
_SET_ASIDE = (*(reason.value for reason in Reason), DUPLICATE_ROW, LONG_PROMPT, LONG_RESPONSE)


class HHDataSource(DataSource):
    """Human pairs as rankings of two, chosen replies as demonstrations; no gold reward: the truth is not known."""

    known = "alignbench_hh.known:hh"

    def __init__(self, config: HHConfig, *, seeds: Seeds) -> None:
        # The run's `seeds` stay unused: the split has a seed of its own, see HHConfig.split_seed.
        _check(config)
        files = locate(Path(config.path), config.subset) if config.path else download(config.subset, config.revision)
        reader = Reader(config.max_prompt_words, config.max_response_words)
        own = Seeds(config.split_seed).child("hh")

        def shuffled(path: Path) -> list[Pair]:
            """Rows of one prompt stay neighbours, so that a cut by rows parts at most one prompt."""
            groups: dict[str, list[Pair]] = {}
            for pair in reader.read(path):
                groups.setdefault(pair.prompt.id, []).append(pair)
            return [pair for key in own.python("order").sample(sorted(groups), len(groups)) for pair in groups[key]]

        train, test = shuffled(files.train), shuffled(files.test) if files.test else None
        pool = train if test is None else test
        self._held_out = tuple(pool[: config.held_out_rows or len(pool)])
        held_out_prompts = {pair.prompt.id for pair in self._held_out}
        rest = [pair for pair in train if pair.prompt.id not in held_out_prompts]
        self._train = tuple(rest[: config.max_rows or len(rest)])
        self._counts = {
            **reader.counts,
            "train": len(self._train),
            "held_out": len(self._held_out),
            "unused": reader.counts["kept"] - len(self._train) - len(self._held_out),
        }
        _require_rows(self._counts)

    def demonstrations(self) -> Sequence[Demonstration]:
        return [Demonstration(pair.prompt, pair.chosen) for pair in self._train]

    def prompts(self, split: Split) -> Sequence[Prompt]:
        pairs = self._train if split is Split.TRAIN else self._held_out
        return list({pair.prompt.id: pair.prompt for pair in pairs}.values())

    def rankings(self) -> Sequence[Ranking]:
        """Training and held-out pairs; the held-out ones are those whose prompt is an evaluation prompt."""
        return [Ranking(p.prompt, (p.chosen, p.rejected), (0, 1)) for p in (*self._train, *self._held_out)]

    def counts(self) -> Mapping[str, int]:
        """read = kept + all reasons of being set aside; kept = train + held_out + unused (beyond data.max_rows or
        data.held_out_rows, or a training row whose prompt is held out); repeated_prompt tells of kept rows."""
        return dict(self._counts)


class Reader:
    """Reads files, one after another, and counts what becomes of their rows; 0 as a limit: none."""

    def __init__(self, max_prompt_words: int = 0, max_response_words: int = 0) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(("read", "kept", *_SET_ASIDE, "repeated_prompt"), 0))
        self._max_prompt_words, self._max_response_words = max_prompt_words, max_response_words
        self._prompts: set[str] = set()
        self._rows: set[tuple[str, str, str]] = set()

    def read(self, path: Path) -> Iterable[Pair]:
        for chosen, rejected in read_rows(path):
            self.counts["read"] += 1
            pair = parse_row(chosen, rejected)
            if isinstance(pair, Reason):
                self.counts[pair.value] += 1
            elif reason := self._unwanted(pair):
                self.counts[reason] += 1
            else:
                self.counts["kept"] += 1
                self.counts["repeated_prompt"] += pair.prompt.id in self._prompts
                self._prompts.add(pair.prompt.id)
                yield pair

    def _unwanted(self, pair: Pair) -> str:
        row = (pair.prompt.id, pair.chosen, pair.rejected)
        if row in self._rows:
            return DUPLICATE_ROW
        self._rows.add(row)
        if 0 < self._max_prompt_words < pair.prompt_words:
            return LONG_PROMPT
        return LONG_RESPONSE if 0 < self._max_response_words < pair.response_words else ""


def _check(config: HHConfig) -> None:
    for name in ("max_rows", "held_out_rows", "max_prompt_words", "max_response_words"):
        if getattr(config, name) < 0:
            raise UserError(f"data.{name} must be 0 or more, not {getattr(config, name)}.")
    if not config.path and config.subset not in SUBSETS:
        raise unknown_name("subset of HH-RLHF", config.subset, SUBSETS)


def _require_rows(counts: Mapping[str, int]) -> None:
    if counts["train"] and counts["held_out"]:
        return
    aside = ", ".join(f"{name} {counts[name]}" for name in _SET_ASIDE if counts[name]) or "none"
    raise UserError(
        f"HH-RLHF: of {counts['read']} rows read (set aside: {aside}), {counts['held_out']} are held out and "
        f"{counts['train']} are left to train on. Lower data.held_out_rows, or loosen data.max_prompt_words and "
        "data.max_response_words."
    )
