"""Rows of Parquet and Arrow files, of folders that `datasets` saved, and of the hub: read in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alignbench import UserError
from alignbench_data.reading.rows import Part, Row, one_line

_ROWS_AT_ONCE = 256
_SECONDS_TO_REACH_HUB = 5.0


def parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            yield from _of_batches(str(path), file.iter_batches(batch_size=_ROWS_AT_ONCE))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole Parquet file ({one_line(error)}).") from error


def arrow_rows(path: Path) -> Iterator[Row]:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file:
            try:
                reader = pyarrow.ipc.open_stream(file)
                batches: Iterable[Any] = reader
            except pyarrow.ArrowInvalid:
                whole = pyarrow.ipc.open_file(file)
                batches = (whole.get_batch(i) for i in range(whole.num_record_batches))
            pieces = (
                batch.slice(i, _ROWS_AT_ONCE) for batch in batches for i in range(0, batch.num_rows, _ROWS_AT_ONCE)
            )
            yield from _of_batches(str(path), pieces)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole Arrow file ({one_line(error)}).") from error


def _of_batches(name: str, batches: Iterable[Any]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        batch.validate(
            full=True
        )  # a damaged offset would be read beyond the memory of the table, which ends the process
        for values in batch.to_pylist():
            number += 1
            yield Row(name, "row", number, values)


def saved(path: Path) -> list[Part]:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever is wrong with its files
        raise UserError(f"{path}: not a whole folder of a saved dataset ({one_line(error)}).") from error
    return _splits(str(path), found)


def from_hub(name: str, subset: str, revision: str, *, streaming: bool, option: str, has_subset: bool) -> list[Part]:
    """A data set of the hub, or the copy of it in the cache."""
    import datasets
    from huggingface_hub import HfApi

    reason = ""
    try:
        HfApi().dataset_info(name, revision=revision or None, timeout=_SECONDS_TO_REACH_HUB)
    except Exception as error:  # whatever keeps the hub from answering, a cached copy is as good
        reason = one_line(error)
    try:
        found = datasets.load_dataset(
            name,
            subset or None,
            revision=revision or None,
            streaming=streaming and not reason,
            download_config=datasets.DownloadConfig(local_files_only=bool(reason)),
        )
    except Exception as error:
        text = str(error)
        if "Config name is missing" in text or "BuilderConfig" in text:
            how = "choose one by data.subset=" if has_subset else "give the files of one"
            raise UserError(
                f"{option}={name} has several subsets, {how}: {' '.join(text.partition('Example')[0].split())}"
            ) from error
        raise UserError(
            f"{option}={name}: no such file or folder here, and the data set cannot be had from the Hugging Face hub "
            f"({reason or one_line(error)}). Check the name; or download its files elsewhere and give {option}=<folder>."
        ) from error
    return _splits(name, found)


def _splits(name: str, found: Any) -> list[Part]:
    if isinstance(found, dict):
        return [_part(f"{name}, {split}", str(split), held) for split, held in found.items()]
    return [_part(name, "", found)]


def _part(name: str, split: str, held: Any) -> Part:
    def rows() -> Iterator[Row]:
        try:
            yield from _of_batches(name, held.with_format("arrow").iter(_ROWS_AT_ONCE))
        except Exception as error:  # a file of the set that is damaged, or the hub that breaks off
            raise UserError(f"{name} cannot be read: {one_line(error)}.") from error

    return Part(name, split, rows)
