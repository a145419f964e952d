"""On a GPU, the work that the pretended one is given. Its kernels sum in other orders: figures agree less closely there."""

from __future__ import annotations

import pytest
import torch

from tests.pretended_gpu.work import every_work


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", every_work())
def test_work_on_a_gpu_is_that_on_the_cpu(name: str) -> None:
    work = every_work()[name]
    cpu, gpu = ({k: v for k, v in work(torch.device(d)).items() if "accuracy" not in k} for d in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, rel=2e-2, abs=1e-3, nan_ok=True)
