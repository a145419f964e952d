"""What the exact world must be, for the conformance kit."""

from __future__ import annotations

import itertools
import math
from typing import Any

from alignbench import DataSource, Known, Split


def exact() -> list[Known]:
    """Every response of at most `length` tokens has a normal reward of its own, of mean 0 and deviation 1, the same for every seed; the
    share `uncovered` of them is never shown; rankings are Plackett-Luce on the rewards."""

    def gives(config: Any, source: DataSource) -> str:
        letters = "abcdefghijkl"[: config.letters]
        ended = [" ".join(word) for size in range(config.length) for word in itertools.product(letters, repeat=size)]
        cut = [" ".join(word) for word in itertools.product(letters, repeat=config.length)]
        responses = {(text, True) for text in ended} | {(text, False) for text in cut}
        prompts = source.prompts(Split.EVALUATION)
        rewards = {}
        for prompt, (text, end) in itertools.product(prompts, sorted(responses)):
            verdict = source.judge(prompt, text, finished=end)
            assert verdict is not None
            rewards[prompt.text, text, end] = verdict.gold_reward
        values = list(rewards.values())
        mean, count = sum(values) / len(values), len(values)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / count)
        if abs(mean) > 5 / math.sqrt(count) or abs(deviation - 1) > 5 / math.sqrt(2 * count):
            return f"The rewards have mean {mean:.2f} and deviation {deviation:.2f}."
        if len(set(values)) < count or len(prompts) != config.contexts:
            return f"{count - len(set(values))} rewards are alike, and there are {len(prompts)} contexts."
        shown = {
            (one.prompt.text, one.response, len(one.response.split()) < config.length): one.prompt
            for one in source.demonstrations()
        }
        hidden = [(p.text, *r) for p in prompts for r in p.info["uncovered"]]
        share, error = config.uncovered, math.sqrt(max(config.uncovered, 1e-9) / count)
        if abs(len(hidden) / count - share) > 5 * error or set(hidden) & set(shown) or set(shown) - set(rewards):
            return f"{len(hidden)} of {count} responses are uncovered, and {len(set(hidden) & set(shown))} of them are shown."
        won = expected = variance = 0.0
        for ranking in source.rankings():
            ends = ranking.finished or (True,) * len(ranking.responses)
            for a, b in itertools.combinations(range(len(ranking.responses)), 2):
                keys = [(ranking.prompt.text, ranking.responses[i], ends[i]) for i in (a, b)]
                if keys[0] in hidden or keys[1] in hidden:
                    return f"A ranking shows {keys[0]}, which is uncovered."
                gap = rewards[keys[0]] - rewards[keys[1]]
                likely = 1 / (1 + math.exp(-abs(gap)))
                won += (ranking.ranks[a] < ranking.ranks[b]) == (gap > 0)
                expected, variance = expected + likely, variance + likely * (1 - likely)
        if abs(won - expected) > 9 * math.sqrt(variance):  # pairs of a ranking move together
            return f"The better of two is ranked first {won:.0f} times, where {expected:.0f} are expected."
        return ""

    return [Known({}, gives), Known({"length": 3, "letters": 3, "uncovered": 0.3}, gives)]
