"""A process that checks one response after another, and is started anew after one that took too much."""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignbench import UserError
from alignbench_verify.bounded import process

LOADING_SECONDS = 300.0
"""Libraries are slow to import on a busy machine."""

_CHILD = "import sys; from alignbench_verify.bounded.child import main; main(sys.argv[1:])"


class Worker:
    """Runs `module:function(**request)` in a child. Used by one thread at a time."""

    def __init__(self, modules: Sequence[str], *, cpu_seconds: float, memory: int) -> None:
        self._modules, self._cpu, self._memory = tuple(modules), cpu_seconds, memory
        self._child: Any = None
        self._end: Callable[[], object] = lambda: None

    def ask(self, function: str, request: Mapping[str, Any]) -> Any:
        """What the function gives. None where the child took too much and was ended. Raises UserError where it gives a fault."""
        child = self._child = self._child or self._started()
        line = json.dumps({"function": function, "request": dict(request)}).encode("ascii") + b"\n"
        seconds = process.SLACK * self._cpu + 1
        answer = process.receive(child, seconds=seconds) if process.send(child, line, seconds=seconds) else None
        if answer is None:
            self.close()
            return None
        found = json.loads(answer)
        if "fault" in found:
            raise UserError(found["fault"])
        return found["answer"]

    def close(self) -> None:
        self._end()
        self._child = None

    def _started(self) -> Any:
        # -P: the folder that a command runs in holds no modules of ours. What this process can import, the child can.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
        limits = [str(self._cpu), str(self._memory)]
        child = process.start(["-P", "-c", _CHILD, *limits, *self._modules], env=env)
        if process.receive(child, seconds=LOADING_SECONDS) is None:
            process.end(child)
            raise UserError(
                f"A process that checks responses could not be started (with {', '.join(self._modules)}): see that Python can "
                "import them, and that memory is left."
            )
        # Also where this object lives until the interpreter ends, when modules are no longer whole.
        self._end = weakref.finalize(self, process.end, child)
        return child


Ask = Callable[[str, Mapping[str, Any]], Any]
