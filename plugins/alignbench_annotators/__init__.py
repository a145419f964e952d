"""Annotators that need no simulation: rankings that people have already given."""

from alignbench import Register, hookimpl
from alignbench_annotators.config import RecordedConfig


@hookimpl
def register_annotators(register: Register) -> None:
    register("recorded", RecordedConfig, "alignbench_annotators.recorded:RecordedAnnotator")
