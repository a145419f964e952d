"""Tables, plots and reports for people."""

from alignbench.hookspecs import RegisterFunction, hookimpl


@hookimpl
def register_sections(register: RegisterFunction) -> None:
    register("time", "Wall time by stage, for each row.", "alignbench.results.shown.time_by_stage:section")
