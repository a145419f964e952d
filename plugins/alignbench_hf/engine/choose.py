"""Which engine a model's settings ask for."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from alignbench_hf.config import ENGINE, PretrainedConfig
from alignbench_hf.engine.contract import Engine
from alignbench_hf.engine.process import InProcess
from alignbench_hf.engine.server import Server


def chosen(config: PretrainedConfig, folder: Path, dtype: str) -> Engine | None:
    """None where this package's own loops sample. `folder`: of the base's files."""
    if config.sampler != ENGINE:
        return None
    if config.sampler_url:
        return Server(config.sampler_url, patience=config.sampler_patience, at_once=config.generation_batch_size)
    window = config.max_prompt_tokens + config.max_response_tokens
    return _in_process(folder, dtype, config.lora_rank, window, json.dumps(config.sampler_options))


@functools.lru_cache(maxsize=1)
def _in_process(folder: Path, dtype: str, rank: int, window: int, options: str) -> Engine:
    """One for all policies of a process: the base is held once."""
    return InProcess(folder, dtype=dtype, rank=rank, window=window, options=json.loads(options))
