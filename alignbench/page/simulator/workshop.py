"""What a running page keeps for its visitors: samples that are made once, and one world that answers questions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

from alignbench.errors import AlignbenchError, UserError
from alignbench.page.simulator import pool, starts
from alignbench.page.simulator.speaking import Speaker, Tell, overheard
from alignbench.page.simulator.starts import Start
from alignbench.page.simulator.world import is_current
from alignbench.records import Split

MOST_CHARACTERS = 500
MOST_WAITING = 8
"""Questions that wait for their turn; each holds a thread."""
LOOK = 0.5
"""Seconds between two looks whether somebody still waits."""


class Workshop:
    """Of one results folder."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._lock = threading.Lock()
        self._working = threading.Lock()
        self._waiting = 0
        self._preparing: dict[tuple[str, ...], str] = {}
        self._made: dict[tuple[str, ...], dict[str, Any]] = {}
        self._failed: dict[tuple[str, ...], str] = {}
        self._speaker: Speaker | None = None

    def pool(self, key: str) -> dict[str, Any]:
        """The samples of an SFT model, or how far making them is: `{"preparing": words}`. A failure is told once, then tried again."""
        start = starts.chosen(self._results, key)
        name = (start.key, *(run.path.name for run in start.runs))
        with self._lock:
            if name in self._made:
                return self._made[name]
            if name in self._failed:
                raise UserError(self._failed.pop(name))
            if name not in self._preparing:
                self._preparing[name] = "reading the models"
                threading.Thread(target=self._prepare, args=(start, name), daemon=True).start()
            return {"preparing": self._preparing[name]}

    def _prepare(self, start: Start, name: tuple[str, ...]) -> None:
        def say(words: str) -> None:
            self._preparing[name] = words

        try:
            with self._working:
                made = pool.pool(start, say, lambda: self._of(start).lend())  # two worlds would be twice the memory
            with self._lock:
                self._made = {name: made}  # one is enough: others are read from the cache
        except AlignbenchError as error:
            self._failed[name] = str(error)
        except Exception:
            self._failed[name] = "Something went wrong while the samples were made; the server's log has more."
            raise
        finally:
            with self._lock:
                del self._preparing[name]

    def ask(self, key: str, text: str) -> dict[str, Any]:
        """Samples of the SFT model in answer to what somebody typed."""
        _check(text)
        start = starts.chosen(self._results, key)
        with self._turn():
            speaker = self._of(start)
            return speaker.ask(text, pool.OF_PRETRAINED[1] if speaker.world.policy.pretrained else pool.SAMPLES)

    def say(self, key: str, run: str, *, prompt: str, text: str, seed: int) -> AsyncGenerator[dict[str, Any]]:
        """What the SFT model, or a run that started from it, answers to one of the data's prompts or to what somebody typed, while
        it is sampled: see Speaker. Raises UserError at once where there is no such run."""
        if not prompt:
            _check(text)
        start = starts.chosen(self._results, key)
        found = next((own for own in start.runs if own.path.name == run), None)
        if run and found is None:
            raise UserError("That run is no longer in the results folder: load the page again.")

        def work(tell: Tell) -> None:
            with self._turn(lambda: tell({"texts": []})):  # whoever has left meanwhile is not sampled for
                speaker = self._of(start)
                speaker.say(found, speaker.prompt(text, prompt), seed, tell)

        return overheard(work)

    def checkpoint(self, key: str, run: str) -> dict[str, Any]:
        """What a run that has finished since said to the prompts that are shown, so that it can be drawn beside the others."""
        start = starts.chosen(self._results, key)
        finished = next((one for one in start.runs if one.path.name == run), None)
        if finished is None:
            raise UserError("That run did not start from this SFT model, or is not in the results folder (any more).")
        with self._lock:
            shown = next((made for name, made in self._made.items() if name[0] == start.key), None)
        if shown is None:
            raise UserError("The samples are not at hand: load the page again.")
        ids = [prompt["id"] for prompt in shown["prompts"]]
        with self._turn():
            speaker = self._of(start)
            prompts = {prompt.id: prompt for prompt in speaker.world.data.prompts(Split.EVALUATION)}
            found = speaker.beside(finished, [prompts[name] for name in ids if name in prompts])
        return {"checkpoint": found, "prompts": [name for name in ids if name in prompts]}

    @contextlib.contextmanager
    def _turn(self, still_there: Callable[[], None] = lambda: None) -> Iterator[None]:
        """One works at a time, and few wait. `still_there` is called now and then while it waits, and when the turn has come: what
        it raises ends the waiting."""
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise UserError(f"{MOST_WAITING} questions wait for an answer already: try again in a moment.")
            self._waiting += 1
        try:
            while not self._working.acquire(timeout=LOOK):
                still_there()
        finally:
            with self._lock:
                self._waiting -= 1
        try:
            still_there()
            yield
        finally:
            self._working.release()

    def _of(self, start: Start) -> Speaker:
        """The one that is at hand, unless it is of another SFT model, or a run with another reward has come since."""
        if self._speaker is None or not is_current(self._speaker.world, start):
            self._speaker = None  # two at once would be twice the memory
            self._speaker = Speaker(start)
        return self._speaker


def _check(text: str) -> None:
    if not text.strip() or len(text) > MOST_CHARACTERS:
        raise UserError(f"Type a prompt of 1 to {MOST_CHARACTERS} characters.")
