"""Numbers on their way to a browser: a few bytes each, as base64. What a gauge shows has three digits; only what is no estimate
travels whole."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Sequence
from typing import Any

_STEPS = 65534
_UNKNOWN = 65535
"""Stands for NaN."""


def counts(values: Sequence[int]) -> dict[str, Any]:
    """Whole numbers from 0 to 65535, exactly."""
    return {"low": 0, "step": 1, "data": _bytes(values)}


def numbers(values: Sequence[float]) -> dict[str, Any]:
    """Of 65,535 even steps between the least and the largest; NaN stays NaN."""
    known = [value for value in values if not math.isnan(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    step = (high - low) / _STEPS or 1.0
    places = [_UNKNOWN if math.isnan(value) else round((value - low) / step) for value in values]
    return {"low": low, "step": step, "data": _bytes(places)}


def exact(values: Sequence[float]) -> dict[str, Any]:
    """As they are, to the last bit; NaN as null."""
    return {"values": [None if math.isnan(value) else value for value in values]}


def read(column: dict[str, Any]) -> list[float]:
    """As the browser reads them."""
    if "values" in column:
        return [math.nan if value is None else value for value in column["values"]]
    found = array("H", base64.b64decode(column["data"]))
    return [math.nan if place == _UNKNOWN else column["low"] + column["step"] * place for place in found]


def _bytes(values: Sequence[int]) -> str:
    """Two bytes each, the lower one first."""
    return base64.b64encode(b"".join(int(value).to_bytes(2, "little") for value in values)).decode()
