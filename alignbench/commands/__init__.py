"""One file for each `alignbench <command>`, registered through the door that is everybody's."""

from collections.abc import Mapping

from alignbench.hookspecs import RegisterFunction, hookimpl

COMMANDS: Mapping[str, str] = {
    "plugins": "Every component that is installed.",
    "data": "Looks at a data set before anything is trained.",
    "compare": "The results table, from run directories.",
    "evaluate": "The evaluation suite on a finished run, or on any model.",
    "evaluate-reward": "A reward source on preference data, and the truth under best of n.",
    "export": "A finished run's model as a folder that other programs load.",
    "check": "Holds a plugin's components to their contracts.",
    "resume": "Goes on with runs that were killed, or lists them.",
    "cache": "Lists and prunes the stages that runs share.",
    "plan": "The memory that a run would take, before a model is loaded.",
    "page": "In a browser: a simulator, ranking by people, results to look at.",
    "rank": "What people are to rank, and what they have ranked.",
    "tutorial": "RLHF on the embedded world in minutes, one section after another.",
}
"""Each is the module of that name in this folder, with `_` for `-`. Only the one that is called is imported."""


@hookimpl
def register_commands(register: RegisterFunction) -> None:
    for name, summary in COMMANDS.items():
        register(name, summary, f"alignbench.commands.{name.replace('-', '_')}:main")
