"""The command line: a run or a sweep by Hydra overrides, and the commands beside it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence

from alignbench.config import RunConfig
from alignbench.errors import AlignbenchError, unknown_name


def main() -> None:
    """The entry point of `alignbench` and `python -m alignbench`."""
    # torch reads it at its first tensor: huge pages for large ones, where the kernel gives them. A training pass on a CPU
    # makes a gigabyte of new pages, which at 4 KiB each takes its time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # CUDA reads it when it starts: without it cuBLAS may sum in another order from one run to the next.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit code: 0, 1 for a run that failed, 2 for a request that cannot be met."""
    first = arguments[0] if arguments else ""
    try:
        if first in COMMANDS:
            return COMMANDS[first](arguments[1:])
        if first and "=" not in first and not first.startswith(("-", "+", "~")):
            raise unknown_name("command", first, [*COMMANDS, "--help"])
        _run(arguments)
        return 0
    except AlignbenchError as error:
        print(f"alignbench: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("alignbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader closed the pipe (head, less): there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: Sequence[str]) -> None:
    from alignbench import app

    app.main(_task, arguments)


def _task(config: RunConfig) -> None:
    from alignbench.run import run  # torch is imported here, once the configuration is known to be good

    run(config)


def _plugins(arguments: Sequence[str]) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from alignbench.plugins import Kind, registry

    if arguments:
        print("Usage: alignbench plugins\n\nLists every component: kind, name, distribution, version, summary.")
        return 0 if arguments[0] in ("-h", "--help") else 2
    table = Table("kind", "name", "distribution", "version", "what it is", box=None, pad_edge=False)
    for kind in Kind:
        for component in registry().of(kind):
            row = (kind.value, component.name, component.distribution, component.version, component.summary)
            table.add_row(*(escape(cell) for cell in row))
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(table)
    return 0


def _compare(arguments: Sequence[str]) -> int:
    from alignbench.results.compare import main as compare

    gc.disable()  # ten thousand runs are a million objects, all in use: looking through them takes a quarter of the time
    try:
        return compare(arguments)
    finally:
        gc.enable()


def _check(arguments: Sequence[str]) -> int:
    from alignbench.check import main as check

    return check(arguments)


def _resume(arguments: Sequence[str]) -> int:
    from alignbench.resume import main as resume

    return resume(arguments)


def _cache(arguments: Sequence[str]) -> int:
    from alignbench.cache import main as cache

    return cache(arguments)


def _evaluate(arguments: Sequence[str]) -> int:
    from alignbench.evaluate import main as evaluate

    return evaluate(arguments)


def _export(arguments: Sequence[str]) -> int:
    from alignbench.export import main as export

    return export(arguments)


def _plan(arguments: Sequence[str]) -> int:
    from alignbench.plan import main as plan

    return plan(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "plugins": _plugins,
    "compare": _compare,
    "evaluate": _evaluate,
    "export": _export,
    "check": _check,
    "resume": _resume,
    "cache": _cache,
    "plan": _plan,
}
