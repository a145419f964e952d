"""result.json: one record of what a run was, what it cost and what it measured."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignbench.errors import UserError
from alignbench.records import Metric

SCHEMA_VERSION = 7
"""2: `ended` and `reused`. 3: `missing` of a metric. 4: `peak_gpu_memory_bytes` of the cost. 5: a metric's interval. 6: `code` of the
identity. 7: `unanswered`."""
DEFINITIONS_SINCE = 5
"""Before it the interval of one seed was 1.96 standard errors, whatever the number of clusters; `budget.seconds` left out the reference's pass
of some algorithms; and log-ratios were taken at temperature 1, whatever was sampled at, which is no KL."""
FEEDBACK = "feedback"
"""Before the names of a run's counts that are of the rankings, pairs and labels that it learnt from, not of its data."""
MEASURED_REWARD = "reward"
"""What stands for the algorithm in the row of a reward source that was measured by itself."""
_NO_INTERVAL = {"clusters": 0, "low": None, "high": None, "share": False}


class Status(enum.Enum):
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class Identity:
    """What was run. `config_hash` covers all that can change a number except the seed: runs that share it are seeds of
    one row. `algo_label` is how tables name the algorithm, where that is not `algo`; `code` a digest of the source of the core and of the chosen
    components, empty in records that are older than it."""

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
    code: str = ""


@dataclass(frozen=True)
class Cost:
    """Wall seconds by stage; tokens sampled or trained on per second; the highest resident memory of the process, and the most
    that its tensors took of its GPU, where it used one."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None


@dataclass(frozen=True)
class RunRecord:
    """One run, or the SFT model that it started from (`baseline`). `error`: the one line that a failed run ended with.

    `ended` is what ended training before its last update, such as a bound of the budget; `reused` are stages that were
    taken from another run (stage -> that run): their seconds are what they cost there.
    `unanswered` are metrics that were asked for and have no value because no example was answered, as by a judge that was out of reach: how
    many were asked. `schema_version` is the one that it was written in: numbers of an older one may be defined otherwise.
    `counts` are rows of data, rankings and pairs read, kept, cut and set aside; `reports` figures of stages that are not evaluation, such as a
    reward model's held-out accuracy."""

    run_id: str
    status: Status
    identity: Identity
    cost: Cost = field(default_factory=Cost)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    unanswered: Mapping[str, int] = field(default_factory=dict)
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
        if version < 3 and isinstance(raw.get("metrics"), dict):
            metrics = {n: {"missing": 0, **m} if isinstance(m, dict) else m for n, m in raw["metrics"].items()}
            raw = {**raw, "metrics": metrics}
        if version < 4 and isinstance(raw.get("cost"), dict):
            raw = {**raw, "cost": {"peak_gpu_memory_bytes": None, **raw["cost"]}}
        if version < 5 and isinstance(raw.get("metrics"), dict):
            metrics = {n: {**_NO_INTERVAL, **m} if isinstance(m, dict) else m for n, m in raw["metrics"].items()}
            raw = {**raw, "metrics": metrics}
        if version < 6 and isinstance(raw.get("identity"), dict):
            raw = {**raw, "identity": {"code": "", **raw["identity"]}}
        if version < 7:
            raw = {"unanswered": {}, **raw}
        try:
            kind: Any = cls
            record: RunRecord = _decoder(kind)(raw)
        except _MisfitError as error:
            raise UserError(f"{'.'.join(error.where) or 'the record'} {error}") from error
        if unknown := [name for name, metric in record.metrics.items() if not math.isfinite(metric.value)]:
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


class _MisfitError(Exception):
    """A value of JSON that is not what it should be, and `where`: the names are gathered on the way out."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.where: list[str] = []


@functools.cache
def _decoder(kind: Any) -> Callable[[Any], Any]:
    """Makes a value of JSON a `kind`: a dataclass of this file, a mapping, an enum, an optional or a plain type.

    One for each kind, once: reading type hints costs more than all the rest of reading a record."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (plain,) = (_decoder(a) for a in arguments if a is not types.NoneType)
        return lambda value: None if value is None else plain(value)
    if dataclasses.is_dataclass(kind):
        decoders = {name: _decoder(hint) for name, hint in typing.get_type_hints(kind).items()}
        return functools.partial(_decode_dataclass, kind, decoders)
    if origin is Mapping:
        return functools.partial(_decode_mapping, _decoder(arguments[1]))
    if isinstance(kind, enum.EnumMeta):
        members: Mapping[str, enum.Enum] = kind.__members__
        return functools.partial(_decode_member, {str(member.value): member for member in members.values()})
    return _decode_float if kind is float else functools.partial(_decode_plain, kind)


def _decode_dataclass(kind: Any, decoders: Mapping[str, Callable[[Any], Any]], value: Any) -> Any:
    if not isinstance(value, dict):
        raise _wrong("an object", value)
    if missing := sorted(decoders.keys() - value.keys()):
        raise _MisfitError(f"lacks {', '.join(missing)}")
    if unknown := sorted(value.keys() - decoders.keys()):
        raise _MisfitError(f"has unknown fields: {', '.join(unknown)}")
    return kind(**{name: _named(name, decode, value[name]) for name, decode in decoders.items()})


def _decode_mapping(decode: Callable[[Any], Any], value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong("an object", value)
    # Interned: thousands of records share a handful of names.
    return {sys.intern(name): _named(name, decode, item) for name, item in value.items()}


def _named(name: str, decode: Callable[[Any], Any], value: Any) -> Any:
    try:
        return decode(value)
    except _MisfitError as error:
        error.where.insert(0, name)
        raise


def _decode_member(members: Mapping[str, enum.Enum], value: Any) -> enum.Enum:
    if not isinstance(value, str) or value not in members:
        raise _wrong(" or ".join(members), value)
    return members[value]


def _decode_float(value: Any) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong("float", value)
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        raise _wrong("float", value) from None


def _decode_plain(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(kind.__name__, value)
    return value


def _wrong(expected: str, value: Any) -> _MisfitError:
    return _MisfitError(f"should be {expected}, not {json.dumps(value)[:60]}")
