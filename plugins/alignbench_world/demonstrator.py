"""Who shows the model how to answer: helpful, but at times mistaken, at times too agreeable, at times out of style."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from alignbench_world.config import WorldConfig
from alignbench_world.language import OTHER_STYLES, PHRASINGS, VALUES, Stance, Style


def demonstrate(asked: Mapping[str, Any], config: WorldConfig, rng: random.Random) -> str:
    """A response to what was `asked`: the `info` of one of the world's prompts."""
    answer, opinion, relation = asked["answer"], asked["opinion"], asked["relation"]
    wrong_opinion = opinion is not None and opinion != answer
    if wrong_opinion and rng.random() < config.demonstrator_agrees:
        value = opinion
    elif rng.random() < config.demonstrator_errs:
        value = rng.choice([other for other in VALUES[relation] if other not in (answer, opinion)])
    else:
        value = answer
    style = Style(asked["style"])
    if rng.random() >= config.demonstrator_follows_style:
        style = rng.choice(OTHER_STYLES[style])
    stance = Stance.SILENT if opinion is None else Stance.AGREE if value == opinion else Stance.DISAGREE
    phrasing = rng.choice(PHRASINGS[style, stance])
    return phrasing.format(value=value, entity=asked["entity"], relation=relation)
