"""What a base is before it is built."""

from __future__ import annotations

import pytest
import torch
from alignbench_hf.base import base_dtype


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_where_the_gpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype
) -> None:
    """torch counts GPUs that only emulate it, unless it is asked."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert base_dtype("auto", torch.device("cuda")) is dtype
