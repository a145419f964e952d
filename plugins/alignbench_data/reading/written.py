"""Rows of files that are text: JSON lines, one JSON value, CSV, plain lines. Line by line, so that each row has its number."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignbench import UserError
from alignbench_data.reading.opening import MOST_OF_A_LINE, lines, open_bytes, whole
from alignbench_data.reading.rows import Row, one_line
from alignbench_data.reasons import Reason, Unusable

_CONTAINERS = ("data", "rows", "examples", "instances", "items", "train", "test", "validation", "dev")
"""What a JSON object calls the list that it holds."""
_NO_UTF8, _SAVE_AS_UTF8 = (
    "not UTF-8 text",
    ": save the file as UTF-8, as by iconv -f latin1 -t utf-8 where it is Latin-1",
)
_PARTED_BY = ",;\t"


def json_rows(path: Path) -> Iterator[Row]:
    """JSON lines, or one JSON value: a list of rows or an object with one."""
    with open_bytes(path) as file:
        filled = (line for line in lines(file, path) if line.strip())
        first, more = next(filled, b""), next(filled, b"")
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        return _of_one_value(path)
    value = _parsed(first)
    if isinstance(value, dict) and any(_rows(held) for key, held in value.items() if key in _CONTAINERS) and not more:
        return _of_one_value(path)
    if isinstance(value, Unusable) and start.startswith(b"{") and not start.rstrip().endswith(b"}"):
        return _of_one_value(path, otherwise=_of_lines(path))  # an object over several lines, or a damaged first line
    return _of_lines(path)


def _rows(held: Any) -> bool:
    return isinstance(held, list) and all(isinstance(row, dict) for row in held)


def holds_json(head: bytes) -> bool:
    """Whether the beginning of a text is that of JSON lines or of one JSON value, and not a text that begins with a bracket."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    first, ended, _ = start.partition(b"\n")
    if not re.match(rb'\[?\s*\{\s*"', start):
        return False
    return not ended or first.rstrip().endswith((b"{", b"[", b",")) or not isinstance(_parsed(first), Unusable)


def _of_lines(path: Path) -> Iterator[Row]:
    with open_bytes(path) as file:
        for number, line in enumerate(lines(file, path), start=1):
            if line.strip():
                value = _parsed(line)
                problem = value if isinstance(value, Unusable) else None
                if problem and number == 1 and b"{" not in line and b"," in line:
                    problem = Unusable(problem.reason, f"{problem.detail}; a table should be named .csv")
                yield Row(str(path), "line", number, None if problem else value, problem)


def _parsed(line: bytes) -> Any:
    """The JSON value, or what is wrong with it."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return Unusable(Reason.NOT_JSON, f"not JSON ({error.msg} at column {error.colno})")
    except UnicodeDecodeError as error:
        return Unusable(Reason.NOT_TEXT, f"{_NO_UTF8} ({error.reason}){_SAVE_AS_UTF8}")
    except RecursionError as error:  # thousands of brackets
        return Unusable(Reason.NOT_JSON, f"no row ({one_line(error)})")
    except ValueError:
        return Unusable(Reason.NOT_JSON, "no row: a number of thousands of digits, which should be a text in quotes")


def _of_one_value(path: Path, otherwise: Iterator[Row] | None = None) -> Iterator[Row]:
    with open_bytes(path) as file:
        content = whole(file, path)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        if otherwise is not None:
            yield from otherwise
            return
        number = error.lineno if isinstance(error, json.JSONDecodeError) else 1 if len(content.splitlines()) == 1 else 0
        at = f", line {number}" if number else ""
        raise UserError(f"{path}{at}: not JSON ({one_line(error)}).") from error
    if isinstance(value, dict):
        lists = {key: held for key, held in value.items() if key in _CONTAINERS and isinstance(held, list)}
        if not lists:
            value = [value]
        elif len(lists) == 1:
            value = next(iter(lists.values()))
        else:
            raise UserError(
                f"{path}: an object with several lists ({', '.join(lists)}). Save each as a file of its own."
            )
    for number, row in enumerate(value, start=1):
        yield Row(str(path), "row", number, row)


def delimiter_of(head: bytes, usual: str) -> str:
    """What parts the columns in the first line of a table: the `usual` one where it is there, as spreadsheets use others too."""
    first = head.lstrip(b"\xef\xbb\xbf\r\n").partition(b"\n")[0].decode("utf-8", "replace")
    unquoted = re.sub(r'"[^"]*"', "", first)
    return next((mark for mark in (usual, *_PARTED_BY) if mark in unquoted), usual)


def csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    """Every value is text, as it stands there: what looks like a number or like nothing may be a response."""
    csv.field_size_limit(MOST_OF_A_LINE)  # of the process; the module's own is less than a long answer
    with open_bytes(path) as file:
        reader = csv.reader(_decoded(lines(file, path), path), delimiter=delimiter, strict=True)
        names: list[str] = []
        begun = 0
        while True:
            try:
                values = next(reader, None)
            except csv.Error as error:
                raise UserError(f"{path}, line {begun + 1}: not CSV ({one_line(error)}).") from error
            if values is None:
                return
            number, begun = begun + 1, reader.line_num
            if not any(value.strip() for value in values):
                continue
            if not names:
                names = values
                if twice := next((name for name in names if names.count(name) > 1), ""):
                    raise UserError(f"{path}, line {number}: two columns have the name {twice!r}.")
            elif len(values) != len(names):
                problem = Unusable(Reason.MALFORMED, f"{len(values)} values for {len(names)} columns")
                yield Row(str(path), "line", number, None, problem)
            else:
                yield Row(str(path), "line", number, dict(zip(names, values, strict=True)))


def _decoded(given: Iterator[bytes], path: Path) -> Iterator[str]:
    for number, line in enumerate(given, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: {_NO_UTF8} ({error.reason}){_SAVE_AS_UTF8}.") from error


def text_rows(path: Path) -> Iterator[Row]:
    """A prompt a line."""
    with open_bytes(path) as file:
        for number, line in enumerate(_decoded(lines(file, path), path), start=1):
            if line.strip():
                yield Row(str(path), "line", number, {"text": line.rstrip("\r\n")})
