"""Supervised fine-tuning: step one of InstructGPT (Ouyang et al., arXiv 2203.02155)."""

from alignbench import Register, hookimpl
from alignbench_sft.config import SFTConfig


@hookimpl
def register_algorithms(register: Register) -> None:
    register("sft", SFTConfig, "alignbench_sft.sft:SFT")
