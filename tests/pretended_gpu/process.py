"""Starts a Python process that has been told of a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def library(folder: Path) -> Path:
    """That of device.cpp, compiled into `folder`. Skips the test where that cannot be."""
    compiler = shutil.which("g++")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("the pretended GPU needs Linux and g++")
    if torch.version.cuda is not None:
        pytest.skip("the pretended GPU needs a build of torch without CUDA")
    own = Path(torch.__file__).parent
    built = folder / "pretended_gpu.so"
    command = [
        compiler, "-shared", "-fPIC", "-std=c++20", "-w", str(HERE / "device.cpp"), "-o", str(built),
        f"-I{own / 'include'}", f"-L{own / 'lib'}", f"-Wl,-rpath,{own / 'lib'}", "-lc10", "-ltorch_cpu",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return built


def start(device: Path, *arguments: str, timeout: float = 600) -> None:
    """`python arguments` with the device; what it prints is shown where it fails."""
    environment = {**os.environ, "LD_PRELOAD": str(device), "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
