"""The embedded world: a tiny language whose truth is known, and three simulated annotators of it."""

from __future__ import annotations

from alignbench import Register, hookimpl
from alignbench_world.config import HonestConfig, MildConfig, SycophanticConfig, WorldConfig


@hookimpl
def register_data(register: Register) -> None:
    register("world", WorldConfig, "alignbench_world.source:WorldData")


@hookimpl
def register_annotators(register: Register) -> None:
    register("honest", HonestConfig, "alignbench_world.annotator:WorldAnnotator")
    register("mild", MildConfig, "alignbench_world.annotator:WorldAnnotator")
    register("sycophantic", SycophanticConfig, "alignbench_world.annotator:WorldAnnotator")
