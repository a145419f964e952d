"""Another library's training loop, run a turn at a time: it asks for what it trains on where it wants it, and its caller has it when it
asks again."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

Given = TypeVar("Given")
Take = Callable[[], Given]


class Lockstep(Generic[Given]):
    """`loop(take)` in a thread of its own. Of it and its caller one alone runs at any time, so that nothing depends on the clock: `turn` hands
    over what the loop's `take` returns, and comes back when the loop asks for more, has ended or has raised."""

    def __init__(self, loop: Callable[[Take[Given]], None]) -> None:
        self._given: queue.SimpleQueue[Given | _Closed] = queue.SimpleQueue()
        self._back: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_run, args=(loop, self._given, self._back), daemon=True)
        weakref.finalize(self, self._given.put, _Closed())  # a loop that nobody feeds any more ends

    def turn(self, given: Given) -> None:
        """Raises what the loop raised."""
        if not self._thread.ident:
            self._thread.start()
        self._given.put(given)
        if error := self._back.get():
            raise error


class _Closed(BaseException):
    """Nothing more will be given. Not an Exception, which the loop might take for a fault of a batch."""


def _run(
    loop: Callable[[Take[Given]], None],
    given: queue.SimpleQueue[Given | _Closed],
    back: queue.SimpleQueue[BaseException | None],
) -> None:
    asked = False

    def take() -> Given:
        nonlocal asked
        if asked:
            back.put(None)
        asked = True
        found = given.get()
        if isinstance(found, _Closed):
            raise found
        return found

    try:
        loop(take)
    except _Closed:
        return
    except BaseException as error:
        back.put(error)
    else:
        back.put(None)
