"""Demonstrations that are worth imitating: what says the same again, or is of no use, is left out before SFT."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from alignbench import Demonstration, Message, Seeds, Stage, StageResult, StageView
from alignbench_data.config import FilterConfig
from alignbench_data.content import same_words

LEFT_OUT = "left_out.jsonl"
REASONS = ("duplicates", "too_short", "too_long", "with_words", "over_per_prompt")


class Filter(Stage):
    """Keeps the order. What is left out is written down, each with the reason, as left_out.jsonl."""

    def __init__(self, config: FilterConfig, *, seeds: Seeds) -> None:
        self._config = config
        self._unwanted = [text.casefold() for text in config.without]

    def run(self, view: StageView) -> StageResult:
        counts, kept = Counter[str](), list[Demonstration]()
        with (view.folder / LEFT_OUT).open("w", encoding="utf-8") as file:
            for one, reason in self._judged(view.demonstrations):
                if not reason:
                    kept.append(one)
                    continue
                counts[reason] += 1
                line = {"reason": reason, "prompt": one.prompt.text, "response": one.response}
                file.write(json.dumps(line) + "\n")
        figures = {"given": len(view.demonstrations), "kept": len(kept), **{name: counts[name] for name in REASONS}}
        told = ", ".join(f"{counts[name]} {name}" for name in REASONS if counts[name])
        summary = f"{len(kept)} of {len(view.demonstrations)} demonstrations kept" + (f": {told}" if told else "")
        return StageResult(figures, summary, tuple(kept))

    def _judged(self, demonstrations: Sequence[Demonstration]) -> Iterator[tuple[Demonstration, str]]:
        """Each with why it is left out; empty where it is kept."""
        seen: set[str] = set()
        of_prompt: Counter[str] = Counter()
        for one in demonstrations:
            asked, said = (same_words(turns) for turns in (one.prompt.messages, [Message("assistant", one.response)]))
            reason = self._reason(one.response, again=asked + said in seen, before=of_prompt[asked])
            seen.add(asked + said)
            of_prompt[asked] += not reason
            yield one, reason

    def _reason(self, response: str, *, again: bool, before: int) -> str:
        """Why it is left out; `again`: it was there before; `before`: of its prompt so many are kept."""
        config, words, folded = self._config, len(response.split()), response.casefold()
        if again and config.duplicates:
            return "duplicates"
        if words < config.min_words:
            return "too_short"
        if 0 < config.max_words < words:
            return "too_long"
        if any(text in folded for text in self._unwanted):
            return "with_words"
        return "over_per_prompt" if 0 < config.per_prompt <= before else ""
