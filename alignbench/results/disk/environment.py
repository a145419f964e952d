"""What a run ran on: versions, commit, hardware, memory. Nothing here may fail a run."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path, PurePosixPath
from typing import Any

from alignbench.hookspecs import GROUP

PACKAGES = (
    "accelerate", "alignbench", "bitsandbytes", "hydra-core", "lm-eval", "numpy", "omegaconf", "peft", "pluggy",
    "nltk", "polars", "sacrebleu", "safetensors", "scipy", "tokenizers", "torch", "transformers", "vaderSentiment",
)  # fmt: skip
NOT_HASHED = ("seed", "device", "results_dir", "tracker", "cache", "cache_dir", "resume", "tune", "eval.every", "eval.points", "eval.primary")  # fmt: skip
"""Settings that do not change what a row of the table stands for."""
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux tells of control groups, and of those of this process."""


def counts(setting: str) -> bool:
    """Whether a setting, by its dotted name, says something about what a row of the table stands for."""
    return not any(setting == name or setting.startswith(f"{name}.") for name in NOT_HASHED)


def config_hash(settings: Mapping[str, Any], *, leave_out: Collection[str] = ()) -> str:
    """12 hexadecimal digits of the resolved settings, less NOT_HASHED: the same for all seeds of one row.

    `leave_out` names further top-level settings: the SFT model's row does not depend on `algo`."""
    kept = {key: _counting(key, value) for key, value in settings.items() if counts(key) and key not in leave_out}
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _counting(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: part for key, part in value.items() if counts(f"{name}.{key}")}


def package_versions() -> dict[str, str]:
    """Versions of Python, of every package that can change a number, and of every distribution that brings a plugin."""
    plugins = {point.dist.name for point in entry_points(group=GROUP) if point.dist}
    found = {"python": platform.python_version()}
    for name in sorted(plugins.union(PACKAGES)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """The commit of alignbench's own checkout when this process first asked, with "-dirty" where files were changed; None for an
    installed copy. What is committed while a process runs is not what it loaded."""
    return commit_of(Path(__file__).resolve(), _built_in())


def _built_in() -> Iterator[Path]:
    """A source file of each package of built-in plugins."""
    packages = {
        point.module.partition(".")[0]
        for point in entry_points(group=GROUP)
        if point.dist and point.dist.name == "alignbench"
    }
    for package in sorted(packages):
        if (spec := importlib.util.find_spec(package)) and spec.origin:
            yield Path(spec.origin).resolve()


def commit_of(here: Path, others: Iterable[Path] = ()) -> str | None:
    """The commit of the checkout that a source file lies in, "-dirty" where `others` are none of it: a second checkout on PYTHONPATH
    has another one's plugins. An installed copy may lie inside somebody else's repository (a .venv does): only a tracked file counts."""
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        commit = _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        mixed = not commit.endswith("-dirty") and not _tracked(here.parent, others)
        return f"{commit}-dirty" if mixed else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _tracked(folder: Path, files: Iterable[Path]) -> bool:
    """Whether the checkout around `folder` has all of them."""
    try:
        _git(folder, "ls-files", "--error-unmatch", *map(str, files))
    except subprocess.CalledProcessError:
        return False
    return True


def _git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def hardware() -> dict[str, str]:
    """CPU model, cores that this process may use, and the GPU where torch is loaded and sees one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = {"system": f"{platform.system()} {platform.machine()}", "cpu": _cpu_model(), "cores": str(cores)}
    if cuda := _cuda():
        found["gpu"] = cuda.get_device_name()
    return found


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def resident_bytes() -> int:
    """What this process holds now; 0 where the system does not say."""
    return _status("VmRSS") or 0


def memory_bytes() -> int:
    """RAM that this process may use: the machine's, or less where a container has a limit."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([size, *_of_groups()])


@dataclass(frozen=True)
class MemoryLimit:
    """The most that this process may take, by `name`, and what is left of it, in bytes."""

    name: str
    size: int
    left: int


def memory_limits() -> list[MemoryLimit]:
    """Limits of this process below the machine's memory: of its address space, and of its control group."""
    found = []
    with contextlib.suppress(ImportError):  # Windows
        import resource

        space, _ = resource.getrlimit(resource.RLIMIT_AS)
        taken = _status("VmSize")
        if space != resource.RLIM_INFINITY and taken is not None:
            found.append(MemoryLimit("the limit on its address space (ulimit -v)", space, max(space - taken, 0)))
    group = min(_of_groups(), default=None)
    if group is not None and group < os.sysconf("SC_PAGE_SIZE") * os.sysconf(
        "SC_PHYS_PAGES"
    ):  # without a limit, version 1 names a size that nobody has
        found.append(MemoryLimit("the memory limit of its container", group, max(group - resident_bytes(), 0)))
    return found


def _of_groups() -> list[int]:
    """Memory limits of the control groups that this process is in, as a container or a scheduler sets them: of versions 2 and 1, and of
    the groups around its own."""
    roots = (GROUPS, "memory.max"), (GROUPS / "memory", "memory.limit_in_bytes")
    own = {PurePosixPath("/")}
    with contextlib.suppress(OSError):
        paths = (PurePosixPath(line.split(":", 2)[-1]) for line in OWN_GROUPS.read_text().splitlines())
        own.update(group for path in paths for group in (path, *path.parents))
    found = []
    for root, name in roots:
        for group in own:
            with contextlib.suppress(OSError, ValueError):  # no limit reads "max"
                found.append(int((root / str(group).lstrip("/") / name).read_text()))
    return found


def _status(field: str) -> int | None:
    """A size of this process in bytes, where Linux tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def reset_peak_memory() -> None:
    """Starts the peaks anew, where Linux allows it: the runs of a sweep share one process, which has one peak."""
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _cuda() -> Any:
    """torch.cuda where torch is loaded and sees a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def peak_gpu_memory_bytes() -> int | None:
    """The most that this process's tensors took of its GPU since `reset_peak_memory`; None where they took nothing."""
    cuda = _cuda()
    return (cuda.max_memory_allocated() or None) if cuda else None


def peak_memory_bytes() -> int | None:
    """Highest resident memory since the start or `reset_peak_memory`. getrusage, the fallback, is never reset and on
    Linux starts with the parent's peak (it survives fork and exec)."""
    if (peak := _status("VmHWM")) is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
