"""Models that answer while somebody watches: an SFT model, and the policies of the runs that started from it."""

from __future__ import annotations

import asyncio
import difflib
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import cached_property
from typing import Any

import torch

from alignbench.app.target import of_run
from alignbench.errors import AlignbenchError, UserError
from alignbench.page.simulator.checkpoints import chosen_by, compared
from alignbench.page.simulator.responses import every_response, measured, respond, told
from alignbench.page.simulator.starts import Start
from alignbench.page.simulator.world import World, checkpoint, load
from alignbench.records import POLICY, REFERENCE, Message, Prompt, Samples, Sampling, Split
from alignbench.results.disk.runs import StoredRun
from alignbench.seeds import Seeds

SAID, SAID_BY_PRETRAINED = 4, 2
"""Responses at a time."""
_TYPED = "typed"
Tell = Callable[[dict[str, Any]], None]


class Speaker:
    """One world, whose policy holds one run's weights at a time."""

    def __init__(self, start: Start) -> None:
        self.world: World = load(start)
        self._holds = ""

    def lend(self) -> World:
        """Its world, to somebody who reads other weights."""
        self._holds = ""
        return self.world

    @cached_property
    def known(self) -> dict[str, Prompt]:
        """The data's own prompts by what the user says in them: what is true of them is known."""
        both = (*self.world.data.prompts(Split.EVALUATION), *self.world.data.prompts(Split.TRAIN))
        return {prompt.text: prompt for prompt in both if len(prompt.messages) == 1}

    def ask(self, text: str, n: int) -> dict[str, Any]:
        """Samples of the SFT model in answer to what somebody typed."""
        asked = self.prompt(text)
        found = respond(self.world, asked, n, self._chances(asked.text))
        return {"known": asked.id != _TYPED, "pool": measured(self.world, [found])}

    def prompt(self, text: str, name: str = "") -> Prompt:
        """The data's own of that name or text, or a new one. Raises UserError for what is not in the model's language."""
        if name:
            for prompt in self.world.data.prompts(Split.EVALUATION):
                if prompt.id == name:
                    return prompt
            raise UserError("That prompt is none of the data's own: load the page again.")
        said = " ".join(text.split())
        if said in self.known:
            return self.known[said]
        if self.world.data.tokenizer() is not None:
            raise UserError(f"The model knows its own language alone. Ask for example: {self._nearest(said)}")
        asked = Prompt(_TYPED, (Message("user", said),))
        tokens, most = self.world.policy.prompt_tokens(asked), self.world.policy.max_prompt_tokens
        if tokens > most:
            raise UserError(
                f"That prompt has {tokens} tokens, and this model was trained on at most {most}: shorten it."
            )
        return asked

    def say(self, run: StoredRun | None, prompt: Prompt, seed: int, tell: Tell) -> None:
        """Tells the texts of several answers as they grow, and at last each with all that is known of it: tokens with their
        log pi / pi_sft, where a run speaks."""
        policy, name = self.world.policy, run.path.name if run else ""
        n = SAID_BY_PRETRAINED if policy.pretrained else SAID
        rng = self._chances(f"{name}/{seed}/{prompt.text}")
        if run is None:
            samples = self._watched(prompt, n, REFERENCE, rng, tell)
            tell({"done": told(self.world, samples, None)})
            return
        if self._holds != name:
            self._holds = ""  # until it is read whole
            policy.load(checkpoint(run))
            self._holds = name
        candidates = of_run(run.path, ()).config.algo.config.candidates
        if candidates > 1:  # of so many the best is shown: the others are nobody's answers
            drawn = self._watched(prompt, n * candidates, POLICY, rng, lambda event: tell({"texts": []}))
            scores = chosen_by(self.world, run, drawn).reshape(n, candidates)
            best = scores.argmax(1) + torch.arange(n, device=scores.device) * candidates
            tell({"done": told(self.world, drawn.select(best), None)})
            return
        samples = self._watched(prompt, n, POLICY, rng, tell)
        with torch.no_grad():
            ratios = policy.logprobs(samples.sequences).logprobs
            ratios = ratios - policy.logprobs(samples.sequences, role=REFERENCE).logprobs
        tell({"done": told(self.world, samples, ratios)})

    def beside(self, run: StoredRun, prompts: Sequence[Prompt]) -> dict[str, Any] | None:
        """A run that has finished since the others were read, as it stands beside the tilt."""
        self._holds = ""  # its weights are read
        every = every_response(self.world.policy)
        asked = [respond(self.world, prompt, 0, self._chances("")) for prompt in prompts] if every else []
        return compared(self.world, run, prompts, asked)

    def _watched(self, prompt: Prompt, n: int, role: str, rng: torch.Generator, tell: Tell) -> Samples:
        policy = self.world.policy
        rollout = policy.generate_watched(
            [prompt],
            Sampling(),
            lambda rows: tell({"texts": list(policy.response_texts(rows))}),
            n=n,
            role=role,
            rng=rng,
        )
        return rollout.samples

    def _chances(self, name: str) -> torch.Generator:
        return Seeds(self.world.seeds.root).child("simulator").torch(name)

    def _nearest(self, said: str) -> str:
        words = set(said.split())
        ordered = sorted(self.known, key=lambda text: -len(words & set(text.split())))[:50]
        found = difflib.get_close_matches(said, ordered, 1, 0.0) or ordered or ["one of the prompts that are listed"]
        return found[0]


class _GoneError(Exception):
    """Nobody listens any more."""


async def overheard(work: Callable[[Tell], None]) -> AsyncGenerator[dict[str, Any]]:
    """What `work` tells, as it tells it, from a thread of its own. It ends with the listener; what goes wrong is told in words."""
    loop, found = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()
    gone = threading.Event()

    def put(event: dict[str, Any] | None) -> None:
        if gone.is_set():
            raise _GoneError
        loop.call_soon_threadsafe(found.put_nowait, event)

    def run() -> None:
        try:
            try:
                work(put)
            except AlignbenchError as error:
                put({"error": str(error)})
            except _GoneError:
                raise
            except Exception:
                logging.getLogger("uvicorn.error").exception("a model that was asked to answer failed")
                put({"error": "Something went wrong here; the server's log has more."})
            put(None)
        except _GoneError:
            return

    threading.Thread(target=run, daemon=True).start()
    try:
        while (event := await found.get()) is not None:
            yield event
    finally:
        gone.set()
