import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench import Direction, Metric, UserError
from alignbench.results.disk.record import SCHEMA_VERSION, Cost, Identity, RunRecord, Status

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)


def mappings(values):
    return st.dictionaries(TEXT, values, max_size=3)


IDENTITIES = st.builds(
    Identity,
    algo=TEXT,
    plugin=TEXT,
    plugin_version=TEXT,
    model=TEXT,
    data=TEXT,
    annotator=st.none() | TEXT,
    reward=st.none() | TEXT,
    seed=st.integers(),
    config_hash=TEXT,
    git_commit=st.none() | TEXT,
    packages=mappings(TEXT),
    hardware=mappings(TEXT),
    algo_label=TEXT,
)
RECORDS = st.builds(
    RunRecord,
    run_id=TEXT,
    status=st.sampled_from(Status),
    identity=IDENTITIES,
    cost=st.builds(
        Cost,
        seconds=mappings(FLOAT),
        tokens_per_second=st.none() | FLOAT,
        peak_memory_bytes=st.none() | st.integers(0),
        peak_gpu_memory_bytes=st.none() | st.integers(0),
    ),
    metrics=mappings(st.builds(Metric, FLOAT, FLOAT, st.integers(0), st.sampled_from(Direction), st.integers(0))),
    unanswered=mappings(st.integers(1)),
    counts=mappings(st.integers()),
    reports=mappings(FLOAT),
    baseline=st.booleans(),
    error=st.none() | TEXT,
    schema_version=st.just(SCHEMA_VERSION),
)
RECORD = RunRecord(
    "run",
    Status.FINISHED,
    Identity("ppo", "alignbench", "0.1.0", "tiny", "world", "mild", None, 0, "abc", None, {}, {}),
    metrics={"a/b": Metric(1.0, 0.5, 3, Direction.HIGHER)},
)


@given(RECORDS)
def test_round_trip(record):
    assert RunRecord.from_json(record.to_json()) == record


def test_an_unknown_standard_error_is_null_and_comes_back():
    text = dataclasses.replace(RECORD, metrics={"a/b": Metric(1.0, math.nan, 1, Direction.HIGHER)}).to_json()
    written = {"value": 1.0, "stderr": None, "n": 1, "direction": "higher", "missing": 0} | {
        "clusters": 0,
        "low": None,
        "high": None,
        "share": False,
    }
    assert json.loads(text)["metrics"]["a/b"] == written
    assert math.isnan(RunRecord.from_json(text).metrics["a/b"].stderr)


def test_a_record_of_an_older_version_is_read():
    old = json.loads(RECORD.to_json())
    del old["unanswered"]
    for name in ("clusters", "low", "high", "share"):
        del old["metrics"]["a/b"][name]

    def read(version: int) -> RunRecord:
        found = RunRecord.from_json(json.dumps(old | {"schema_version": version}))
        assert found.schema_version == version
        return dataclasses.replace(found, schema_version=SCHEMA_VERSION)

    assert read(4) == RECORD
    del old["cost"]["peak_gpu_memory_bytes"]
    assert read(3) == RECORD
    with pytest.raises(UserError, match="cost"):
        RunRecord.from_json(json.dumps(old | {"schema_version": 3, "cost": 1}))
    del old["metrics"]["a/b"]["missing"]
    assert read(2) == RECORD
    del old["ended"], old["reused"]
    assert read(1) == RECORD
    with pytest.raises(UserError, match="metrics"):
        RunRecord.from_json(json.dumps(old | {"schema_version": 1, "metrics": {"a/b": 1}}))


def changed(*path: str, value: object = None, drop: bool = False) -> str:
    raw = inner = json.loads(RECORD.to_json())
    for name in path[:-1]:
        inner = inner[name]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("schema_version", value=SCHEMA_VERSION + 1), f"version {SCHEMA_VERSION + 1} is newer.*update"),
        (changed("schema_version", drop=True), "no schema_version"),
        (changed("schema_version", value=True), "no schema_version"),
        ("[]", "no schema_version"),
        (RECORD.to_json()[:80], "cut off"),
        ("", "cut off"),
        ("[" * 100_000, "cut off"),
        (changed("identity", "algo", drop=True), "^identity lacks algo$"),
        (changed("metrics", "a/b", "n", drop=True), "metrics.a/b lacks n"),
        (changed("metrics", "a/b", "direction", value="up"), "metrics.a/b.direction should be higher or lower"),
        (changed("metrics", "a/b", "value", value=None), "no value for a/b"),
        (changed("status", value=[]), "status should be"),
        (changed("identity", "seed", value="0"), 'identity.seed should be int, not "0"'),
        (changed("identity", "seed", value=True), "identity.seed should be int"),
        (changed("identity", "packages", value=[]), "identity.packages should be an object"),
        (changed("identity", "mood", value=1), "identity has unknown fields: mood"),
        (changed("baseline", value=1), "baseline should be bool"),
        (changed("baseline", drop=True), "^the record lacks baseline$"),
        (changed("metrics", "a/b", "value", value=10**400), "metrics.a/b.value should be float, not 1000"),
        (changed("metrics", "a/b", value=[]), "^metrics.a/b should be an object"),
    ],
)
def test_anything_else_is_refused_and_named(text, message):
    with pytest.raises(UserError, match=message) as caught:
        RunRecord.from_json(text)
    assert "\n" not in str(caught.value)
