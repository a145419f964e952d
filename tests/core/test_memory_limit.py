"""A limit on this process's memory is read before a model is loaded: what is over it ends in a line, not in a crash."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from alignbench import UserError
from alignbench.app.compose import load_config
from alignbench.pipeline import memory
from alignbench.results.disk import environment
from alignbench.results.disk.environment import MemoryLimit
from tests.core.harness import SMALL

LARGE = ("model=tiny", "model.hidden_size=16384", "model.intermediate_size=65536", "device=cpu", "cache=false")


def test_a_run_over_the_limit_of_its_address_space_is_one_line(tmp_path: Path) -> None:
    limit = 12 * 2**30  # enough for the libraries
    done = subprocess.run(
        [sys.executable, "-m", "alignbench", "algo=ppo", *SMALL, *LARGE, f"results_dir={tmp_path}"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("alignbench: error:"))
    assert said == done.stderr.splitlines()[-1]
    assert "ulimit -v" in said and "alignbench plan" in said


def test_the_limit_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(["algo=ppo", *LARGE])
    tokenizer = memory.tokenizer_of(config)
    stages = memory.estimate(config, memory.Machine("cpu", 0, 0), tokenizer)
    peak = max(sum(part.size for part in stage.parts if part.certain) for stage in stages)
    assert peak < max(stage.total for stage in stages), "what may be less is not held against the limit"
    for spare, refused in ((-1, True), (0, False)):
        limit = MemoryLimit("a limit", 2 * peak, peak + spare)
        monkeypatch.setattr(environment, "memory_limits", lambda limit=limit: [limit])
        try:
            memory.refuse_over_limit(config, tokenizer)
        except UserError as error:
            assert refused and "a limit leaves" in str(error)
        else:
            assert not refused


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_control_groups_of_both_versions_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's own group has no limit, that around it has one."""
    monkeypatch.setattr(environment, "GROUPS", tmp_path)
    monkeypatch.setattr(environment, "OWN_GROUPS", tmp_path / "own")
    assert environment.memory_limits() == []
    (tmp_path / "own").write_text("4:memory:/jobs/7\n0::/jobs/7\n")
    folder, file = (tmp_path / name).parent, Path(name).name
    for group, limit in (("jobs/7", "max" if file == "memory.max" else str(2**63 - 4096)), ("jobs", str(2**29))):
        (folder / group).mkdir(parents=True, exist_ok=True)
        (folder / group / file).write_text(f"{limit}\n")
    (limit,) = environment.memory_limits()
    assert limit.size == 2**29 == environment.memory_bytes()
    assert 0 <= limit.left < 2**29
