"""What a running page keeps for its visitors: samples that are made once, and one world that answers questions."""

from __future__ import annotations

import difflib
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from alignbench.errors import AlignbenchError, UserError
from alignbench.page.simulator import pool, starts
from alignbench.page.simulator.starts import Start
from alignbench.page.simulator.world import World, load
from alignbench.records import Message, Prompt, Split
from alignbench.seeds import Seeds

MOST_CHARACTERS = 500
_TYPED = "typed"


class Asking:
    """Answers what a visitor types: one question at a time."""

    def __init__(self, start: Start) -> None:
        self.world: World = load(start)

    @cached_property
    def known(self) -> dict[str, Prompt]:
        """The data's own prompts by what the user says in them: what is true of them is known."""
        both = (*self.world.data.prompts(Split.EVALUATION), *self.world.data.prompts(Split.TRAIN))
        return {prompt.text: prompt for prompt in both if len(prompt.messages) == 1}

    def ask(self, text: str) -> dict[str, Any]:
        said = " ".join(text.split())
        prompt = self.known.get(said)
        if prompt is None and self.world.data.tokenizer() is not None:
            raise UserError(f"The model knows its own language alone. Ask for example: {self._nearest(said)}")
        asked = prompt or Prompt(_TYPED, (Message("user", said),))
        self.world.policy.prompt_tokens(asked)
        n = pool.OF_PRETRAINED[1] if self.world.policy.pretrained else pool.SAMPLES
        rng = Seeds(self.world.seeds.root).child("simulator").torch(said)
        found = pool.respond(self.world, asked, n, rng)
        return {"known": prompt is not None, "pool": pool.measured(self.world, [found])}

    def _nearest(self, said: str) -> str:
        words = set(said.split())
        ordered = sorted(self.known, key=lambda text: -len(words & set(text.split())))[:50]
        return (difflib.get_close_matches(said, ordered, 1, 0.0) or ordered)[0]


class Workshop:
    """Of one results folder."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._lock = threading.Lock()
        self._working = threading.Lock()
        self._preparing: dict[tuple[str, ...], str] = {}
        self._made: dict[tuple[str, ...], dict[str, Any]] = {}
        self._failed: dict[tuple[str, ...], str] = {}
        self._asking: Asking | None = None

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
                made = pool.pool(start, say)
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
        if not text.strip() or len(text) > MOST_CHARACTERS:
            raise UserError(f"Type a prompt of 1 to {MOST_CHARACTERS} characters.")
        start = starts.chosen(self._results, key)
        with self._working:
            return self._asked(start).ask(text)

    def checkpoint(self, key: str, run: str) -> dict[str, Any]:
        """What a run that has finished since said to the prompts that are shown, so that it can be drawn beside the others. Rewards have
        the names of `rewards` here, which may be others than those of the samples."""
        start = starts.chosen(self._results, key)
        finished = next((one for one in start.runs if one.path.name == run), None)
        if finished is None:
            raise UserError("That run did not start from this SFT model, or is not in the results folder (any more).")
        with self._lock:
            shown = next((made for name, made in self._made.items() if name[0] == start.key), None)
        if shown is None:
            raise UserError("The samples are not at hand: load the page again.")
        ids = [prompt["id"] for prompt in shown["prompts"]]
        with self._working:
            asking = self._asked(start)
            prompts = {prompt.id: prompt for prompt in asking.world.data.prompts(Split.EVALUATION)}
            found = pool.measured_checkpoint(asking.world, finished, [prompts[name] for name in ids if name in prompts])
        rewards = [{"name": named.name, "label": named.label} for named, _ in asking.world.rewards]
        return {"checkpoint": found, "prompts": [name for name in ids if name in prompts], "rewards": rewards}

    def _asked(self, start: Start) -> Asking:
        if self._asking is None or self._asking.world.start.key != start.key:
            self._asking = Asking(start)
        return self._asking
