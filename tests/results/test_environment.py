import os
import shutil
import subprocess
import sys

import pytest
import torch

from alignbench.results.disk import environment
from alignbench.results.disk.environment import (
    commit_of,
    config_hash,
    git_commit,
    hardware,
    package_versions,
    peak_memory_bytes,
    reset_peak_memory,
)


def test_the_hash_ignores_the_seed_and_the_order_of_keys_and_nothing_else():
    settings = {"algo": {"kl_coef": 0.1, "lr": 1e-3}, "seed": 0, "results_dir": "here"}
    assert config_hash(settings) == config_hash(
        {"results_dir": "there", "seed": 1, "algo": {"lr": 1e-3, "kl_coef": 0.1}}
    )
    assert config_hash(settings) != config_hash({**settings, "algo": {"kl_coef": 0.2, "lr": 1e-3}})
    assert config_hash(settings, leave_out=("algo",)) == config_hash({})


def test_versions_name_python_alignbench_and_what_computes():
    assert {"python", "alignbench", "torch", "transformers", "peft"} <= package_versions().keys()


def test_hardware_is_text_and_imports_no_torch():
    assert all(isinstance(v, str) and v for v in hardware().values())
    code = "import sys; from alignbench.results.disk.environment import hardware; hardware(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_peak_memory_counts_what_was_held():
    reset_peak_memory()  # other tests of this process may have held more
    before = peak_memory_bytes()
    block = bytearray(os.urandom(1024)) * (200 * 1024)
    assert peak_memory_bytes() > max(before, len(block))


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_commit_is_that_of_a_tracked_file_only(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    copy = tmp_path / "environment.py"
    copy.write_text("one")
    assert commit_of(copy) is None  # no repository
    git("init")
    (tmp_path / "other").write_text("x")
    git("add", "other")
    git("commit", "-m", "other")
    assert commit_of(copy) is None  # somebody else's repository, as around a .venv
    git("add", ".")
    git("commit", "-m", "ours")
    assert commit_of(copy) == git("rev-parse", "HEAD")
    assert commit_of(copy, [tmp_path / "other"]) == git("rev-parse", "HEAD")
    (tmp_path / ".git" / "info" / "exclude").write_text(".venv\n")
    (tmp_path / ".venv").mkdir()
    installed, elsewhere = tmp_path / ".venv" / "x.py", tmp_path.parent / "other_checkout.py"
    for foreign in (installed, elsewhere):
        foreign.write_text("x")
        assert commit_of(copy, [tmp_path / "other", foreign]) == git("rev-parse", "HEAD") + "-dirty"
    copy.write_text("two")
    assert commit_of(copy) == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit_of(copy) is None  # no git


def test_the_built_in_plugins_are_looked_at():
    names = {path.parent.name for path in environment._built_in()}
    assert {"alignbench_ppo", "alignbench_suite"} <= names and all(name.startswith("alignbench_") for name in names)


def test_a_commit_that_is_made_while_a_process_runs_is_not_what_it_runs(monkeypatch):
    git_commit.cache_clear()
    commits = iter(["first", "second"])
    monkeypatch.setattr(environment, "commit_of", lambda path, others: next(commits))
    assert [git_commit(), git_commit()] == ["first", "first"]
    git_commit.cache_clear()


def test_the_peak_of_the_gpu_is_told_apart_from_the_hosts(monkeypatch):
    assert environment.peak_gpu_memory_bytes() is None, "there is none"
    reset = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: reset.append(True))
    reset_peak_memory()
    assert reset, "the runs of a sweep share one process"
    assert environment.peak_gpu_memory_bytes() == 3 * 2**30
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    assert environment.peak_gpu_memory_bytes() is None, "a run on the CPU of a machine with a GPU"
