"""result.json: one record of what a run was, what it cost and what it measured."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alignbench.errors import UserError
from alignbench.records import Metric

SCHEMA_VERSION = 2
"""2: `ended` and `reused`."""


class Status(enum.Enum):
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class Identity:
    """What was run. `config_hash` covers all that can change a number except the seed: runs that share it are seeds of
    one row. `algo_label` is how tables name the algorithm, where that is not `algo`."""

    algo: str
    plugin: str
    plugin_version: str
    model: str
    data: str
    annotator: str | None
    reward: str | None
    seed: int
    config_hash: str
    git_commit: str | None
    packages: Mapping[str, str]
    hardware: Mapping[str, str]
    algo_label: str = ""


@dataclass(frozen=True)
class Cost:
    """Wall seconds by stage; tokens sampled or trained on per second; the highest resident memory of the process."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class RunRecord:
    """One run, or the SFT model that it started from (`baseline`). `error`: the one line that a failed run ended with.

    `ended` is what ended training before its last update, such as a bound of the budget; `reused` are stages that were
    taken from another run (stage -> that run): their seconds are what they cost there.
    `counts` are rows of data read, kept and set aside; `reports` figures of stages that are not evaluation, such as a
    reward model's held-out accuracy."""

    run_id: str
    status: Status
    identity: Identity
    cost: Cost = field(default_factory=Cost)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    reports: Mapping[str, float] = field(default_factory=dict)
    baseline: bool = False
    ended: str | None = None
    reused: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Strict JSON: a number that is NaN or infinite is written as null and read back as NaN."""
        return json.dumps(_encode(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """Raises UserError for anything but a whole record of a schema that this version knows."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON, perhaps cut off ({str(error).splitlines()[0]})") from error
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise UserError("not a record of a run: it has no schema_version")
        if version > SCHEMA_VERSION:
            raise UserError(
                f"schema version {version} is newer than this alignbench reads ({SCHEMA_VERSION}): update alignbench"
            )
        if version < 2:
            raw = {"ended": None, "reused": {}, **raw}
        record: RunRecord = _decode(cls, raw, "")
        record = dataclasses.replace(record, schema_version=SCHEMA_VERSION)
        if unknown := [name for name, metric in record.metrics.items() if math.isnan(metric.value)]:
            raise UserError(f"no value for {', '.join(unknown)}")
        return record


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _decode(kind: Any, value: Any, where: str) -> Any:
    """`value` of JSON as a `kind`: a dataclass of this file, a mapping, an enum, an optional or a plain type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (plain,) = (a for a in arguments if a is not types.NoneType)
        return None if value is None else _decode(plain, value, where)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(kind, enum.EnumMeta):
        members: Mapping[str, enum.Enum] = kind.__members__
        choices = [str(member.value) for member in members.values()]
        if value not in choices:
            raise _wrong(where, " or ".join(choices), value)
        return kind(value)
    if kind is float:
        if value is None:
            return math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _wrong(where, kind.__name__, value)


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    hints = typing.get_type_hints(kind)
    if missing := sorted(hints.keys() - value.keys()):
        raise UserError(f"{where.lstrip('.') or 'the record'} lacks {', '.join(missing)}")
    if unknown := sorted(value.keys() - hints.keys()):
        raise UserError(f"{where.lstrip('.') or 'the record'} has unknown fields: {', '.join(unknown)}")
    return kind(**{name: _decode(hint, value[name], f"{where}.{name}") for name, hint in hints.items()})


def _wrong(where: str, expected: str, value: Any) -> UserError:
    return UserError(f"{where.lstrip('.')} should be {expected}, not {json.dumps(value)[:60]}")
