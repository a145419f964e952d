"""`alignbench new-plugin`: writes an installable plugin, from templates that copier renders."""

from alignbench.hookspecs import RegisterFunction, hookimpl


@hookimpl
def register_commands(register: RegisterFunction) -> None:
    register("new-plugin", "Writes an installable plugin to start from.", "alignbench.scaffold.command:main")
