"""A judge of the user's as one who answers yes or no.

A judge says which of two responses answers a prompt better, and nothing else (`alignbench.Judge`). So it is asked the question, and
which is the better answer to it, "Yes." or "No."."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alignbench import Generation, Judge, Message, Prompt


def affirmed(judge: Judge, name: str, questions: Sequence[str]) -> tuple[float, ...]:
    """1 where it says yes, 0 where it says no, .5 where it cannot tell, NaN where it did not answer."""
    prompts = [Prompt(f"judge/{name}", (Message("user", f"{text}\n\nAnswer Yes or No."),)) for text in questions]
    yes, no = ([text_only(prompt, word) for prompt in prompts] for word in ("Yes.", "No."))
    return judge.compare(yes, no)


def text_only(prompt: Prompt, response: str, *, finished: bool = True) -> Generation:
    """A response for a judge to read."""
    return Generation(prompt, 0, response, 0, finished, math.nan, math.nan, math.nan)
