"""The command line: a run or a sweep by Hydra overrides, and the commands beside it."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
import select
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

from alignbench import __version__
from alignbench.errors import AlignbenchError, UserError, unknown_name
from alignbench.plugins import Place, registry
from alignbench.untrusted import Formatter, told

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
RUN = "alignbench.commands.run"  # what is called without a command's name


def main() -> None:
    """The entry point of `alignbench` and `python -m alignbench`."""
    # torch reads it at its first tensor: huge pages for large ones, where the kernel gives them. A training pass on a CPU
    # makes a gigabyte of new pages, which at 4 KiB each takes its time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # CUDA reads it when it starts: without it cuBLAS may sum in another order from one run to the next.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Errors and warnings repeat what servers, files and models say.
    if logging.lastResort:
        logging.lastResort.setFormatter(Formatter())
    logging.captureWarnings(True)
    shown = logging.StreamHandler()
    shown.setFormatter(Formatter())
    logging.getLogger("py.warnings").addHandler(shown)  # of its own: it never reaches lastResort
    logging.getLogger("py.warnings").propagate = False
    threading.excepthook = lambda raised: sys.excepthook(
        raised.exc_type, raised.exc_value or raised.exc_type(), raised.exc_traceback
    )
    sys.excepthook = lambda *error: print(told("".join(traceback.format_exception(*error))), end="", file=sys.stderr)
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit code: 0, 1 for a run that failed, 2 for a request that cannot be met."""
    first = arguments[0] if arguments else ""
    try:
        if first and "=" not in first and not first.startswith(("-", "+", "~")):
            return _flushed(_command(first)(arguments[1:]))
        if "--version" in arguments:
            print(f"alignbench {__version__}")
            return 0
        if arguments and arguments[-1].startswith("query=") and _completed(os.environ.get("COMP_LINE", "")):
            return _flushed(0)
        if asks_for_help(arguments):
            from alignbench.app import help

            print(help.text(arguments))
            return _flushed(0)
        if list(arguments) in (["-m"], ["--multirun"]):
            raise UserError(f"{first} needs lists of values, as in {first} algo=ppo,dpo seed=0,1,2.")
        return _flushed(importlib.import_module(RUN).main(arguments))
    except AlignbenchError as error:
        print(f"alignbench: error: {told(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("alignbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_is_gone():
            raise  # another pipe: of a plugin, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # head, less: there is nobody left to tell
        return 0


def _completed(line: str) -> bool:
    """Prints what may stand at the end of a command line whose first word is, or may become, a command's name; Hydra's completion knows
    the overrides alone. Returns whether that is all."""
    words = line.split()[1:] + [""] * line.endswith(" ")
    known = {function.name: function for function in registry().functions_of(Place.COMMAND)}
    if len(words) < 2:
        print(*(name for name in known if name.startswith("".join(words))), sep="\n")
        return False
    if words[0] not in known:
        return False
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        known[words[0]].load()(["--help"])
    print(*(name for name in dict.fromkeys(_OPTION.findall(said.getvalue())) if name.startswith(words[-1])), sep="\n")
    return True


def asks_for_help(arguments: Sequence[str]) -> bool:
    return any(argument in ("-h", "--help", "--help-all") for argument in arguments)


def _flushed(code: int) -> int:
    """Here a reader who has gone is dealt with; at the interpreter's exit he is not."""
    sys.stdout.flush()
    return code


def _reader_is_gone() -> bool:
    """Whether nobody reads the pipe that stdout is. To write would not tell: what failed is no longer in the buffer."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _command(name: str) -> Callable[[Sequence[str]], int]:
    """The function behind a command's name, whoever registered it."""
    known = {function.name: function for function in registry().functions_of(Place.COMMAND)}
    if name not in known:
        raise unknown_name("command", name, [*known, "--help"])
    found: Callable[[Sequence[str]], int] = known[name].load()
    return found
