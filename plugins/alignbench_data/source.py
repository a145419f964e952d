"""Any data of preferences, labels, demonstrations or prompts as a data source: read, counted, split by prompt."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from alignbench import (
    DataSource,
    Demonstration,
    Description,
    Labelled,
    Prompt,
    Ranking,
    Seeds,
    Split,
    UserError,
)
from alignbench_data.config import PreferencesConfig
from alignbench_data.formats.form import Record
from alignbench_data.parse import Reader
from alignbench_data.reading.places import parts_of, shares
from alignbench_data.reading.rows import Part
from alignbench_data.splitting import Pool, asked, first_rows, rows_of, whole


class PreferencesData(DataSource):
    """No gold reward: the truth is not known, but where rows bring a reference, which each prompt then holds."""

    def __init__(self, config: PreferencesConfig, *, seeds: Seeds) -> None:
        # The run's `seeds` stay unused: the split has a seed of its own, see PreferencesConfig.split_seed.
        self._config = config
        self._reader = Reader(config)
        self._files: list[str] = []
        self._split_counts: Counter[str] = Counter()
        option = next((name for name in ("path", "prompts_path", "demonstrations_path") if getattr(config, name)), "")
        if not option:
            raise UserError("data=preferences needs data.path=<file, folder or hub id> (docs/data.md).")
        held_out, train = self._shares(option)
        self._train, self._held_out = whole(rows_of(train)), whole(rows_of(held_out))
        self._not_trained_on = frozenset(held_out)
        others = {name: self._beside(name) for name in ("demonstrations_path", "prompts_path") if name != option}
        self._demonstrations = tuple(_imitated(others.get("demonstrations_path") or self._train))
        self._prompts = tuple(_asked(others.get("prompts_path") or self._train))
        self._require()

    def _shares(self, option: str) -> tuple[Mapping[str, list[Record]], Mapping[str, list[Record]]]:
        """Held-out records and those to train on, by prompt."""
        config, counts = self._config, self._split_counts
        train_parts, test_parts = shares(self._parts(option), config.train_split, config.test_split)
        if config.test_path:
            train_parts, test_parts = (
                [*train_parts, *([] if config.test_split else test_parts)],
                self._parts("test_path"),
            )
        if test_parts:
            test = self._pool(test_parts, config.held_out_rows)
            held_out = first_rows(test.groups(), config.held_out_rows, cut=True)
            counts["unused"] += sum(len(records) for _, records in test.groups()) - len(rows_of(held_out))
            pool = self._pool(train_parts, config.max_rows, without=held_out)
            rest = list(pool.groups())
        else:
            pool = self._pool(train_parts, _enough(config))
            share = max(round(config.held_out_share * pool.rows), 1)
            some = itertools.islice(pool.groups(), max(pool.prompts - 1, 0))  # something is left to train on
            held_out = first_rows(some, min(share, config.held_out_rows or share), cut=False)
            rest = [(key, records) for key, records in pool.groups() if key not in held_out]
        train = first_rows(rest, config.max_rows, cut=True)
        counts["unused"] += sum(len(records) for _, records in rest) - len(rows_of(train))
        return held_out, train

    def _parts(self, option: str) -> list[Part]:
        config = self._config
        path = getattr(config, option)
        main = option != "test_path" and option == next(
            name for name in ("path", "prompts_path", "demonstrations_path") if getattr(config, name)
        )
        found = parts_of(
            path,
            subset=config.subset if main or option == "test_path" else "",
            revision=config.revision if main or option == "test_path" else "",
            streaming=config.streaming,
            option=f"data.{option}",
        )
        self._files += [part.name for part in found]
        return found

    def _pool(self, parts: Iterable[Part], most: int, without: Iterable[str] = ()) -> Pool:
        pool = Pool(Seeds(self._config.split_seed).child("preferences"), self._split_counts, most, without)
        for part in parts:
            for record in self._reader.read(part.rows()):
                pool.add(record)
        return pool

    def _beside(self, option: str) -> list[Record]:
        """Records of a set of their own, without those about held-out prompts."""
        if not getattr(self._config, option):
            return []
        train, _ = shares(self._parts(option), "", "")
        return [
            record
            for _, records in self._pool(train, 0, without=self._not_trained_on).groups()
            for record in whole(records)
        ]

    def demonstrations(self) -> Sequence[Demonstration]:
        return self._demonstrations

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return self._prompts if split is Split.TRAIN else list(_asked(self._held_out))

    def rankings(self) -> Sequence[Ranking]:
        """Training and held-out rankings; the held-out ones are those whose prompt is an evaluation prompt."""
        return [record for record in (*self._train, *self._held_out) if isinstance(record, Ranking)]

    def labelled(self) -> Sequence[Labelled]:
        """Training and held-out labels, as `rankings`."""
        return [record for record in (*self._train, *self._held_out) if isinstance(record, Labelled)]

    def counts(self) -> Mapping[str, int]:
        """read: rows, of which each is of a form, or set aside by a reason; train, held_out, unused and duplicate_row tell of the
        records that they make: a tree makes many. Rated responses to one prompt are made one record in the end."""
        rankings = self.rankings()
        return {
            "read": self._reader.counts["read"],
            **self._reader.forms,
            **{name: count for name, count in self._reader.counts.items() if name != "read"},
            **self._split_counts,
            "train": len(self._train),
            "held_out": len(self._held_out),
            "demonstrations": len(self._demonstrations),
            "ties": sum(len(set(ranking.ranks)) == 1 for ranking in rankings),
            "annotators": len({ranking.annotator for ranking in rankings if ranking.annotator}),
        }

    def description(self) -> Description:
        return Description(
            tuple(self._files), dict(self._reader.forms), dict(self._reader.columns), dict(self._reader.first)
        )

    def _require(self) -> None:
        if self._train and self._held_out:
            return
        reader = self._reader
        aside = ", ".join(f"{name} {count}" for name, count in reader.counts.items() if name != "read") or "none"
        first = f" {next(iter(reader.first.values()))}." if reader.first else ""
        raise UserError(
            f"{', '.join(self._files[:3])}: of {reader.counts['read']} rows read (set aside: {aside}), {len(self._held_out)} "
            f"are held out and {len(self._train)} are left to train on: two prompts at least are needed.{first}"
        )


def _enough(config: PreferencesConfig) -> int:
    """Rows to keep for a split by share; 0: all. Where there are so many, `held_out_rows` binds and not the share of them."""
    if not (config.max_rows and config.held_out_rows):
        return 0
    return max(config.max_rows + config.held_out_rows, math.ceil(config.held_out_rows / config.held_out_share))


def _imitated(records: Iterable[Record]) -> Iterable[Demonstration]:
    """Demonstrations as they are, the best response of each ranking that has one, responses that were called good; each once."""
    seen: set[tuple[str, str]] = set()
    for record in records:
        match record:
            case Demonstration():
                found = record
            case Ranking() if len(set(record.ranks)) > 1:
                found = Demonstration(record.prompt, record.responses[record.ranks.index(0)])
            case Labelled() if record.good:
                found = Demonstration(record.prompt, record.response)
            case _:
                continue
        key = (found.prompt.id, found.response)
        if found.response.strip() and key not in seen:
            seen.add(key)
            yield found


def _asked(records: Iterable[Record]) -> Iterable[Prompt]:
    return {asked(record).id: asked(record) for record in records}.values()
