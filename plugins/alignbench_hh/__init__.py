"""Anthropic's HH-RLHF human preferences as a data source."""

from alignbench import Register, hookimpl
from alignbench_hh.config import HHConfig


@hookimpl
def register_data(register: Register) -> None:
    register("hh", HHConfig, "alignbench_hh.source:HHDataSource")
