"""What must come out of files of HH-RLHF: a few rows in its form, for the conformance kit."""

from __future__ import annotations

import json
from typing import Any

from alignbench import DataSource, Known, Split


def _row(number: int, worse: str) -> dict[str, str]:
    talk = f"\n\nHuman: Question {number}?\n\nAssistant: What of it?\n\nHuman: Go on {number}.\n\nAssistant:"
    return {"chosen": f"{talk} good {number}", "rejected": f"{talk} {worse} {number}"}


_TRAIN, _TEST = range(30), range(28, 40)


def hh() -> list[Known]:
    """The dialogue up to the last reply is the prompt, chosen is preferred to rejected, what is held out is of the test file, and its
    prompts are learnt from nowhere."""

    def gives(config: Any, source: DataSource) -> str:
        held_out = {prompt.messages[0].content: prompt for prompt in source.prompts(Split.EVALUATION)}
        if set(held_out) != {f"Question {n}?" for n in _TEST}:
            return f"{len(held_out)} prompts are held out, where the test file has {len(_TEST)}."
        train = {prompt.messages[0].content for prompt in source.prompts(Split.TRAIN)}
        if train != {f"Question {n}?" for n in _TRAIN if n not in _TEST}:
            return f"There are {len(train)} training prompts."
        for ranking in source.rankings():
            said = [(message.role, message.content) for message in ranking.prompt.messages]
            number = said[0][1].removeprefix("Question ").removesuffix("?")
            talk = [("user", f"Question {number}?"), ("assistant", "What of it?"), ("user", f"Go on {number}.")]
            best = dict(zip(ranking.ranks, ranking.responses, strict=True))
            worse = "worse" if int(number) in _TEST else "bad"
            if said != talk or best != {0: f"good {number}", 1: f"{worse} {number}"}:
                return f"A row came back as {said} with {best}."
        if {one.response for one in source.demonstrations()} != {f"good {n}" for n in _TRAIN if n not in _TEST}:
            return "The demonstrations are not the chosen replies of the training prompts."
        return ""

    files = {
        f"helpful-base/{name}.jsonl": "".join(json.dumps(_row(n, worse)) + "\n" for n in rows)
        for name, worse, rows in (("train", "bad", _TRAIN), ("test", "worse", _TEST))
    }
    return [Known({"path": "{folder}", "held_out_rows": 0}, gives, files=files)]
