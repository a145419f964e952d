"""Policies on transformers and peft: a small model built from scratch, or a pretrained model with LoRA adapters."""

import logging

from alignbench import Register, hookimpl
from alignbench_hf.config import GenerateConfig, LoopConfig, PretrainedConfig, ScratchConfig


@hookimpl
def register_models(register: Register) -> None:
    register("scratch", ScratchConfig, "alignbench_hf.build:build_scratch")
    register("hf", PretrainedConfig, "alignbench_hf.build:build_pretrained")


@hookimpl
def register_samplers(register: Register) -> None:
    register("loop", LoopConfig, "alignbench_hf.sampling:Loop")
    register("generate", GenerateConfig, "alignbench_hf.sampling:Generate")


# bitsandbytes warns at import of optional kernels; a user who did not ask for quantisation should not read it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
