"""Runs are the same with an index and without one, whatever happens to the folder or to the index."""

import dataclasses
import errno
import hashlib
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from alignbench import Direction, Metric, UserError
from alignbench.results.compared.table import build_table
from alignbench.results.disk import index, runs
from alignbench.results.disk.index import INDEX, VERSION
from alignbench.results.disk.record import Cost, Identity, RunRecord, Status
from alignbench.results.disk.runs import StoredRun, find_runs, read_config

IDENTITY = Identity("ppo", "alignbench", "0.1.0", "tiny", "world", "mild", None, 0, "abc", None, {"torch": "2.13"}, {})
METRICS = {
    "a/b": Metric(0.1, 0.05, 100, Direction.HIGHER, clusters=100, low=0.0, high=0.2),
    "a/c": Metric(1.0, math.nan, 1, Direction.NEITHER),
}
CONFIG = "seed: 0\nalgo: {kl_coef: 0.1, betas: [0.9, 0.999]}\n"


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """The files of these tests are younger than what an index takes for settled."""
    monkeypatch.setattr(index, "SETTLED_NS", 0)


@pytest.fixture
def read(monkeypatch):
    """The directories that are read, by name within the folder."""
    names = []
    original = runs._read

    def spy(path, *rest):
        names.append(path.parent.name + "/sft" if path.name == "sft" else path.name)
        return original(path, *rest)

    monkeypatch.setattr(runs, "_read", spy)
    return names


def record(seed: int = 0, **changes) -> RunRecord:
    made = RunRecord("run", Status.FINISHED, dataclasses.replace(IDENTITY, seed=seed), Cost({"sft": 1.5}), METRICS)
    return dataclasses.replace(made, **changes)


def write(path: Path, made: RunRecord | None = None, config: str | None = CONFIG) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text((made or record()).to_json())
    if config is not None:
        (path / "config.yaml").write_text(config)
    return path


@pytest.fixture
def zoo(tmp_path):
    """A folder with whatever a results folder may hold."""
    folder = tmp_path / "runs"
    write(folder / "good")
    write(folder / "nested")
    write(folder / "nested" / "sft", record(baseline=True))
    write(folder / "bare", config=None)
    odd = "date: 2026-02-28\n1: {x: .inf}\nn: .nan\nnothing: ~\nlist: [1, {a: 2026-01-01}]\nbytes: !!binary aGk=\n"
    write(folder / "odd", config=odd)
    for status in (Status.RUNNING, Status.FAILED, Status.INTERRUPTED):
        write(folder / status.value, record(status=status, metrics={}, error="out of luck"))
    write(folder / "broken-sft")
    for name in ("broken-sft/sft", "truncated"):
        text = (write(folder / name) / "result.json").read_text()
        (folder / name / "result.json").write_text(text[:200])
    newer = (write(folder / "newer") / "result.json").read_text().replace("schema_version", "schema_version_")
    (folder / "newer" / "result.json").write_text(newer[:-3] + ', "schema_version": 99}')
    (write(folder / "binary") / "result.json").write_bytes(b"\xff\xfe")
    for number, config in enumerate(("a: [", "date: 2026-02-31", "a: !!bool maybe", "&a [*a]: 1", "a: &a [*a]")):
        write(folder / f"config-{number}", config=config)
    (write(folder / "only-config") / "result.json").unlink()
    (folder / "only-training").mkdir()
    (folder / "only-training" / "train.jsonl").touch()
    (write(folder / "directory") / "result.json").unlink()
    (folder / "directory" / "result.json").mkdir()
    (folder / "unrelated" / "sft").mkdir(parents=True)
    (folder / "file").touch()
    (folder / "link").symlink_to("good")
    (folder / "loop").symlink_to("loop")
    return folder


def text_of(folder: Path) -> str:
    """As text: NaN is not equal to itself."""
    return repr(find_runs([folder]))


def afresh(folder: Path) -> str:
    (folder / INDEX).unlink(missing_ok=True)
    return text_of(folder)


def test_the_zoo(zoo, read):
    found, broken = find_runs([zoo])
    assert [str(run.path.relative_to(zoo)) for run in found] == [
        "bare", "broken-sft", "failed", "good", "interrupted", "link", "nested", "nested/sft", "odd", "running",
    ]  # fmt: skip
    statuses = {run.path.name: run.record.status.value for run in found}
    assert all(statuses[name] == name for name in ("running", "failed", "interrupted"))
    assert {str(run.path.relative_to(zoo)): run.reason.partition(":")[0] for run in broken} == {
        **dict.fromkeys(["broken-sft/sft", "newer", "truncated"], "result.json"),
        "binary": "'utf-8' codec can't decode byte 0xff in position 0",
        "directory": f"[Errno {errno.EISDIR}] Is a directory",
        **{f"config-{i}": "config.yaml is not YAML" for i in range(5)},
        **dict.fromkeys(["only-config", "only-training"], "no result.json"),
    }
    by_name = {run.path.name: run for run in found}
    assert by_name["bare"].settings == {}
    assert by_name["good"].settings == {"seed": 0, "algo.kl_coef": 0.1, "algo.betas": [0.9, 0.999]}
    assert by_name["odd"].settings["date"] == "2026-02-28" and by_name["odd"].settings["1.x"] == math.inf
    read.clear()
    assert text_of(zoo) == repr((found, broken))
    assert sorted(set(read)) == sorted({"broken-sft/sft" if "/sft" in str(b.path) else b.path.name for b in broken})


def same_size_same_time(path: Path) -> None:
    """The hardest edit to see: in place, as long as before, the date set back."""
    before, text = path.stat(), path.read_text()
    time.sleep(0.02)  # more than a tick of the file system's clock
    with path.open("r+") as file:
        file.write(text.replace("0.1", "0.2"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def replace(path: Path, made: RunRecord) -> None:
    (path / "new").write_text(made.to_json())
    (path / "new").replace(path / "result.json")


CHANGES = {
    "nothing": (lambda f: None, []),
    "added": (lambda f: write(f / "new"), ["new"]),
    "copied in": (lambda f: shutil.copytree(f / "nested", f / "copy"), ["copy", "copy/sft"]),
    "removed": (lambda f: [shutil.rmtree(f / name) for name in ("nested", "odd")], []),
    "renamed": (lambda f: (f / "good").rename(f / "better"), ["better"]),
    "finished": (lambda f: replace(f / "running", record()), ["running"]),
    "edited": (lambda f: same_size_same_time(f / "good" / "result.json"), ["good", "link"]),
    "configured": (lambda f: same_size_same_time(f / "good" / "config.yaml"), ["good", "link"]),
    "touched": (lambda f: (f / "nested" / "config.yaml").touch(), ["nested"]),
    "broken": (lambda f: (f / "nested" / "sft" / "result.json").write_text("{"), []),
    "config gone": (lambda f: (f / "good" / "config.yaml").unlink(), ["good", "link"]),
    "result gone": (lambda f: (f / "nested" / "result.json").unlink(), []),
    "mended": (lambda f: write(f / "truncated"), ["truncated"]),
    "with SFT row": (lambda f: write(f / "good" / "sft"), ["good/sft", "link/sft"]),
    "swapped": (lambda f: [(f / a).rename(f / b) for a, b in (("good", "x"), ("bare", "good"), ("x", "bare"))],
                ["bare", "good", "link"]),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_changed_is_read_again_and_the_answer_is_that_of_the_directories(zoo, read, change):
    make, expected = CHANGES[change]
    before = text_of(zoo)
    time.sleep(0.02)
    make(zoo)
    read.clear()
    after = text_of(zoo)
    again, always = sorted(read), {str(run.path.relative_to(zoo)) for run in find_runs([zoo])[1]}
    assert [name for name in again if name not in always] == expected
    read.clear()
    kept = index.load(zoo)
    assert text_of(zoo) == after and set(read) <= always, "what was read is remembered"
    assert after == afresh(zoo)
    new = index.load(zoo)
    assert repr(kept.entries) == repr(new.entries) and kept.settings.keys() == new.settings.keys(), (
        "what is gone is not"
    )
    assert (after == before) == (change in ("nothing", "touched"))


def test_a_file_of_this_moment_is_not_trusted_yet(tmp_path, read, monkeypatch):
    monkeypatch.setattr(index, "SETTLED_NS", 10**12)
    write(tmp_path / "run")
    assert text_of(tmp_path) == text_of(tmp_path)
    assert read == ["run", "run"]


def signed(body: bytes) -> bytes:
    return VERSION + hashlib.sha256(body).digest() + body


def without_settings(content: bytes) -> bytes:
    raw = msgspec.msgpack.decode(content[len(VERSION) + 32 :])
    return signed(msgspec.msgpack.encode({**raw, "settings": {}}))


DAMAGES = {
    "empty": lambda content: b"",
    "header only": lambda content: VERSION,
    "cut": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "one bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "zeros": lambda content: bytes(len(content)),
    "another version": lambda content: content.replace(b"index 1", b"index 0", 1),
    "another schema": lambda content: content.replace(b"schema ", b"schema 9", 1),
    "another shape": lambda content: signed(msgspec.msgpack.encode({"entries": {"good": [1, 2]}})),
    "not msgpack": lambda content: signed(b"\xc1"),
    "settings missing": without_settings,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_no_index_and_is_made_again(zoo, damage):
    expected = text_of(zoo)
    whole = (zoo / INDEX).read_bytes()
    damaged = DAMAGES[damage](whole)
    assert damaged != whole
    (zoo / INDEX).write_bytes(damaged)
    assert text_of(zoo) == expected
    assert (zoo / INDEX).read_bytes() == whole


@pytest.mark.parametrize("fault", ["read-only", "full disk", "folder in its place", "number too large", "surrogate"])
def test_where_no_index_can_be_written_nothing_is_missing(zoo, monkeypatch, fault):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def read_only(self, mode="r", *rest, **more):
        if "w" in mode and INDEX in self.name:
            raise PermissionError(errno.EROFS, "Read-only file system")
        return original(self, mode, *rest, **more)

    original = Path.open
    if fault == "number too large":
        write(zoo / "huge", record(seed=2**70))
    elif fault == "surrogate":
        text = record().to_json().replace('"error": null', '"error": "\\ud800"')
        (write(zoo / "odd") / "result.json").write_text(text)
    expected = afresh(zoo)
    (zoo / INDEX).unlink(missing_ok=True)
    if fault == "read-only":
        monkeypatch.setattr(Path, "open", read_only)
    elif fault == "full disk":
        monkeypatch.setattr(os, "fsync", refuse)
    elif fault == "folder in its place":
        (zoo / INDEX).mkdir()
    assert text_of(zoo) == text_of(zoo) == expected
    assert not (zoo / INDEX).is_file() and not list(zoo.glob("*.tmp"))


def test_one_configuration_is_parsed_once_and_shared(zoo, monkeypatch):
    parsed = []
    original = runs.flat_settings
    monkeypatch.setattr(runs, "flat_settings", lambda text: parsed.append(text) or original(text))
    for _ in range(2):
        found = {run.path.name: run for run in find_runs([zoo])[0]}
        assert found["good"].settings is found["sft"].settings is found["running"].settings
    assert parsed.count(CONFIG) == 1


def test_a_run_alone_needs_no_index_and_leaves_none(tmp_path):
    write(tmp_path / "run" / "sft")
    found, _ = find_runs([write(tmp_path / "run"), tmp_path / "run"])
    assert [run.path for run in found] == [tmp_path / "run", tmp_path / "run" / "sft"]
    assert not list(tmp_path.rglob(f"{INDEX}*"))


def test_folders_of_several_machines_are_merged_by_copying(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for seed in range(4):
        write(write(here if seed < 2 else there) / f"run-{seed}", record(seed))
    for folder in (here, there):
        (folder / "result.json").unlink()
        (folder / "config.yaml").unlink()
        find_runs([folder])
    apart = {run.record.identity.seed: run.record for run in find_runs([here, there])[0]}
    shutil.copytree(there, here, dirs_exist_ok=True)  # their index with them, in the place of ours
    found, broken = find_runs([here])
    assert not broken and {run.record.identity.seed: run.record for run in found}.keys() == apart.keys()
    assert repr([run.record for run in found]) == repr([apart[seed] for seed in range(4)])
    assert text_of(here) == afresh(here)
    (row,) = build_table(found).rows
    assert row.seeds == (0, 1, 2, 3)


def test_two_processes_at_once(zoo):
    code = (
        "import sys; from pathlib import Path; from alignbench.results.disk.runs import find_runs;"
        "print([find_runs([Path(sys.argv[1])]) for _ in range(20) if not Path(sys.argv[1], sys.argv[2]).unlink(True)][-1]);"
        "sys.exit(','.join({'torch', 'polars', 'scipy'} & sys.modules.keys()) or 0)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(zoo), INDEX], stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    expected = afresh(zoo)
    for process in both:
        assert process.communicate()[0].strip() == expected
        assert process.returncode == 0
    assert text_of(zoo) == expected and not list(zoo.glob("*.tmp"))


def test_what_comes_from_an_index_is_a_run_like_any_other(tmp_path):
    write(tmp_path / "run")
    find_runs([tmp_path])
    ((run,), _) = find_runs([tmp_path])
    assert isinstance(run, StoredRun) and isinstance(run.record, RunRecord)
    assert run.record.status is Status.FINISHED and run.record.metrics["a/b"] == METRICS["a/b"]


@pytest.mark.parametrize("inside", ["  " + "-" * 300, "  " + " " * 300 + "x", "  " + ":" * 300])
def test_a_text_is_no_nesting(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"template: |\n  a\n{inside}\n")
    assert inside in read_config(path)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{' ' * i}a:\n" for i in range(120)),
        "- " * 120 + "a",
        "-\t" * 120 + "a",
        "\n".join(" " * (100 * i) + "- " * 50 for i in range(3)),
        "[" * 120 + "]" * 120,
    ],
)
def test_what_is_nested_too_deep_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="nested more than 100 levels"):
        read_config(tmp_path / "config.yaml")
