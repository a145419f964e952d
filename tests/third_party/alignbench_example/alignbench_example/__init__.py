"""An alignbench plugin of a third party: what it registers, and nothing else. Imports nothing heavy."""

from collections.abc import Callable

from alignbench import Register, RegisterFunction, hookimpl
from alignbench_example.config import (
    DPOPConfig,
    KeywordConfig,
    LionConfig,
    ReinforceConfig,
    RereadConfig,
    SayConfig,
    StaircaseConfig,
    StarsConfig,
)


@hookimpl
def register_algorithms(register: Register) -> None:
    register("reinforce", ReinforceConfig, "alignbench_example.reinforce:Reinforce")
    register("dpop", DPOPConfig, "alignbench_example.dpop:DPOP")


@hookimpl
def register_rewards(register: Register) -> None:
    register("keyword", KeywordConfig, "alignbench_example.keyword:KeywordReward")


@hookimpl
def register_presets(register: Callable[[str], None]) -> None:
    register("alignbench_example")


@hookimpl
def register_optimizers(register: Register) -> None:
    register("lion", LionConfig, "alignbench_example.lion:Lion")


@hookimpl
def register_schedules(register: Register) -> None:
    register("staircase", StaircaseConfig, "alignbench_example.staircase:staircase")


@hookimpl
def register_samplers(register: Register) -> None:
    register("reread", RereadConfig, "alignbench_example.reread:Reread")


@hookimpl
def register_stages(register: Register) -> None:
    register("say", SayConfig, "alignbench_example.say:Say")


@hookimpl
def register_formats(register: Register) -> None:
    register("stars", StarsConfig, "alignbench_example.stars:Stars")


@hookimpl
def register_commands(register: RegisterFunction) -> None:
    register("word-share", "How often the responses of finished runs say a word.", "alignbench_example.words:main")


@hookimpl
def register_sections(register: RegisterFunction) -> None:
    register("word-share", "How often each row says yes.", "alignbench_example.words:section")
