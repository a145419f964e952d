"""Preferences, demonstrations and prompts from any file or hub id, and rankings that people have already given."""

from alignbench import Register, hookimpl
from alignbench_data.config import PreferencesConfig, RecordedConfig


@hookimpl
def register_data(register: Register) -> None:
    register("preferences", PreferencesConfig, "alignbench_data.source:PreferencesData")


@hookimpl
def register_annotators(register: Register) -> None:
    register("recorded", RecordedConfig, "alignbench_data.recorded:RecordedAnnotator")
