"""Any data of preferences, labels, demonstrations or prompts as a data source: read, counted, split by prompt."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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
from alignbench_data.config import PATHS, PreferencesConfig
from alignbench_data.formats.form import RATING, Record
from alignbench_data.parse import Reader
from alignbench_data.reading.places import chosen_split, idle, parts_of, shares
from alignbench_data.reading.rows import Part, plain
from alignbench_data.splitting import Pool, asked, first_rows, rows_of, whole


@dataclass
class _Set:
    """What reads a set, and what became of its records."""

    reader: Reader
    counts: Counter[str] = field(default_factory=Counter)


class PreferencesData(DataSource):
    """No gold reward: the truth is not known, but where rows bring a reference, which each prompt then holds."""

    known = "alignbench_data.known:preferences"

    def __init__(self, config: PreferencesConfig, *, seeds: Seeds) -> None:
        # The run's `seeds` stay unused: the split has a seed of its own, see PreferencesConfig.split_seed.
        self._config = config
        self._main, *beside = [name for name in PATHS if getattr(config, name)] or [""]
        if not self._main:
            raise UserError("data=preferences needs data.path=<file, folder or hub id> (docs/data.md).")
        self._files: list[str] = []
        self._notes: list[str] = []
        self._set = _Set(Reader(config))
        # What is said of the rows of `path` is not said of those beside it.
        others = dataclasses.replace(config, rating="", rating_weights={}, where={}, format="", format_options={})
        self._beside = _Set(Reader(others, lenient=True))
        held_out, train = self._shares()
        self._train, self._held_out = whole(rows_of(train)), whole(rows_of(held_out))
        own = {name: self._read_beside(name, without=held_out) for name in beside}
        self._demonstrations = tuple(_imitated(own.get("demonstrations_path", self._train)))
        self._prompts = tuple(_asked(own.get("prompts_path", self._train)))
        self._require()
        self._set.reader.require_columns()

    def _shares(self) -> tuple[Mapping[str, list[Record]], Mapping[str, list[Record]]]:
        """Held-out records and those to train on, by prompt."""
        config = self._config
        there = self._parts(self._main)
        train_parts, test_parts = shares(there, config.train_split, "" if config.test_path else config.test_split)
        self._say(self._main, there, train_parts if config.test_path else [*train_parts, *test_parts])
        if config.test_path:
            there = test_parts = self._parts("test_path")
            test_parts = chosen_split(there, config.test_split, "test_split") if config.test_split else there
            self._say("test_path", there, test_parts)
        if test_parts:
            test = self._pool(self._set, test_parts, config.held_out_rows)
            held_out = first_rows(test.groups(), config.held_out_rows, cut=True)
            pool = self._pool(self._set, train_parts, config.max_rows, without=held_out)
            self._set.counts["unused"] += test.held - len(rows_of(held_out))
            rest = list(pool.groups())
        else:
            pool = self._pool(self._set, train_parts, _enough(config))
            share = max(round(config.held_out_share * pool.rows), 1)
            some = itertools.islice(pool.groups(), max(pool.prompts - 1, 0))  # something is left to train on
            held_out = first_rows(some, min(share, config.held_out_rows or share), cut=False)
            rest = [(key, records) for key, records in pool.groups() if key not in held_out]
        train = first_rows(rest, config.max_rows, cut=True)
        self._set.counts["unused"] += sum(len(records) for _, records in rest) - len(rows_of(train))
        return held_out, train

    def _read_beside(self, option: str, without: Iterable[str]) -> list[Record]:
        """Records of a set of their own, without those about held-out prompts."""
        there = self._parts(option)
        train, _ = shares(there, "", "", option=f"data.{option}")
        self._say(option, there, train)
        pool = self._pool(self._beside, train, self._config.max_rows, without=without)
        return whole(rows_of(first_rows(pool.groups(), self._config.max_rows, cut=True)))

    def _parts(self, option: str) -> list[Part]:
        config, own = self._config, option in (self._main, "test_path")
        path, option = getattr(config, option), f"data.{option}"
        subset, revision = (config.subset, config.revision) if own else ("", "")
        found = parts_of(
            path, subset=subset, revision=revision, streaming=config.streaming, option=option, has_subset=own
        )
        for setting in idle(path, subset=subset, revision=revision):
            self._notes.append(f"data.{setting} is not used: {option}={path} is here and not on the hub.")
        return found

    def _say(self, option: str, there: Sequence[Part], read: Sequence[Part]) -> None:
        """What is read of what lies at a place, and what is not."""
        self._files += [part.name for part in there if part in read]
        if others := [part.name for part in there if part not in read]:
            names = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
            main = option == self._main
            how = "data.train_split= and data.test_split= choose others" if main else "give the files of another alone"
            self._notes.append(f"Not read of data.{option}: {names}. What is named as a split is read alone ({how}).")

    def _pool(self, read: _Set, parts: Iterable[Part], most: int, without: Iterable[str] = ()) -> Pool:
        pool = Pool(Seeds(self._config.split_seed).child("preferences"), read.counts, most, without)
        for part in parts:
            for record in read.reader.read(part.rows()):
                pool.add(record)
        return pool

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
            **_counted(self._set),
            **{f"beside_{name}": count for name, count in _counted(self._beside).items() if count},
            "train": len(self._train),
            "held_out": len(self._held_out),
            "demonstrations": len(self._demonstrations),
            "ties": sum(len(set(ranking.ranks)) == 1 for ranking in rankings),
            "annotators": len({ranking.annotator for ranking in rankings if ranking.annotator}),
        }

    def description(self) -> Description:
        reader = self._set.reader
        notes = list(self._notes)
        if reader.unused:
            names = ", ".join(f"{name} ({role})" for role, name in reader.unused.items())
            notes.append(f"Not read of this form: {names}.")
        for option, role in (("rating", RATING), ("rating_weights", RATING), ("winner_values", "winner")):
            if getattr(self._config, option) and role not in reader.used:
                notes.append(f"data.{option}={getattr(self._config, option)} is not used: no row has what it is for.")
        return Description(
            tuple(self._files), dict(reader.forms), dict(reader.columns), dict(reader.first), tuple(map(plain, notes))
        )

    def _require(self) -> None:
        if self._train and self._held_out:
            return
        reader = self._set.reader
        aside = ", ".join(f"{name} {count}" for name, count in reader.counts.items() if name != "read") or "none"
        first = f" {next(iter(reader.first.values()))}." if reader.first else ""
        raise UserError(
            f"{', '.join(self._files[:3])}: of {reader.counts['read']} rows read (set aside: {aside}), {len(self._held_out)} "
            f"are held out and {len(self._train)} are left to train on: two prompts at least are needed.{first}"
        )


def _counted(read: _Set) -> dict[str, int]:
    """Rows by their form or why they are set aside, and records that are not used."""
    counts = dict(read.reader.counts)
    return {"read": counts.pop("read", 0), **read.reader.forms, **counts, **read.counts}


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
