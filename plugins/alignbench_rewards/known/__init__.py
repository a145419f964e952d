"""What must come out of the reward sources: written down apart from their code, for the conformance kit."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignbench import REFERENCE, DataSource, Known, Policy, Prompt, Ranking, Samples, Sampling, Split

Rows = Sequence[tuple[str, str]]


def _tokens(samples: Samples) -> list[int]:
    return [int(row.sum()) for row in samples.sequences.response_mask]


def _gold(data: DataSource, samples: Samples) -> list[float]:
    rows = zip(samples.prompts, samples.texts, samples.finished.tolist(), strict=True)
    verdicts = [data.judge(prompt, text, finished=end) for prompt, text, end in rows]
    return [verdict.gold_reward for verdict in verdicts if verdict is not None]


def gold() -> list[Known]:
    """The gold reward of the data's verdict, with whether the response ended."""
    return [Known(gives=lambda config, policy, data, samples: _gold(data, samples))]


def length() -> list[Known]:
    """`scale` for each token, EOS included."""

    def gives(config: Any, policy: Policy, data: DataSource, samples: Samples) -> list[float]:
        return [config.scale * count for count in _tokens(samples)]

    return [Known({"scale": scale}, gives) for scale in (0.1, -2.0)]


# A function of the user's


def by_text(prompt: str, response: str) -> float:
    return len(response) - 0.5 * len(prompt)


def by_messages(prompt: Sequence[Mapping[str, str]], response: str) -> float:
    return len(response) + sum(len(message["role"]) + 0.25 * len(message["content"]) for message in prompt)


def by_record(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    return [
        by_text(prompt.text, response) + len(prompt.id) for prompt, response in zip(prompts, responses, strict=True)
    ]


def function() -> list[Known]:
    def gives(config: Any, policy: Policy, data: DataSource, samples: Samples) -> list[float]:
        rows = list(zip(samples.prompts, samples.texts, strict=True))
        if config.prompt == "text":
            return [by_text(prompt.text, text) for prompt, text in rows]
        if config.prompt == "record":
            return by_record(samples.prompts, samples.texts)
        said = [[{"role": m.role, "content": m.content} for m in prompt.messages] for prompt, _ in rows]
        return [by_messages(messages, text) for messages, (_, text) in zip(said, rows, strict=True)]

    return [
        Known({"target": f"{__name__}:by_text"}, gives),
        Known({"target": f"{__name__}:by_messages", "prompt": "messages"}, gives),
        Known({"target": f"{__name__}:by_record", "prompt": "record", "batch": True}, gives),
    ]


# Mixtures


def mix() -> list[Known]:
    """Weight times clip((score - mean) / deviation), summed; mean and deviation over the reference's responses."""
    parts = {"long": -2.0, "gold": 0.5}
    options = {"long": {"component": "length", "scale": 0.25}}

    def raw(data: DataSource, samples: Samples) -> dict[str, list[float]]:
        return {"long": [0.25 * count for count in _tokens(samples)], "gold": _gold(data, samples)}

    def gives(config: Any, policy: Policy, data: DataSource, samples: Samples) -> list[float]:
        asked = [prompt for prompt in data.prompts(Split.TRAIN) for _ in range(1500)]
        rng = torch.Generator().manual_seed(0)
        drawn = policy.generate(asked, Sampling(), role=REFERENCE, rng=rng).samples
        before, total = raw(data, drawn), [0.0] * len(samples)
        for name, scores in raw(data, samples).items():
            mean, deviation = 0.0, 1.0
            if config.standardise:
                mean = sum(before[name]) / len(before[name])
                deviation = math.sqrt(sum((x - mean) ** 2 for x in before[name]) / len(before[name]))
            limit = config.clip or math.inf
            for row, score in enumerate(scores):
                total[row] += parts[name] * min(max((score - mean) / deviation, -limit), limit)
        return total

    plain = {"parts": parts, "options": options}
    return [
        Known(plain | {"baseline": 3000}, gives, tolerance=0.08),
        Known(plain | {"baseline": 3000, "clip": 0.8}, gives, tolerance=0.08),
        Known(plain | {"standardise": False}, gives),
        Known(plain | {"standardise": False, "clip": 0.6}, gives),
        Known(
            {
                "parts": {"learned": 1.0, "gold": 0.5},
                "options": {"learned": {"updates": 6, "batch_size": 6, "learning_rate": 0.1}},
            }
        ),
    ]


# What is fitted to rankings


def _pairs(ranking: Ranking) -> list[tuple[int, int]]:
    """Better before worse; equal ranks and equal texts are no pair."""
    each = itertools.permutations(range(len(ranking.ranks)), 2)
    return [
        (a, b) for a, b in each if ranking.ranks[a] < ranking.ranks[b] and ranking.responses[a] != ranking.responses[b]
    ]


def bradley_terry(config: Any, scores: Tensor, rankings: Sequence[Ranking]) -> Tensor:
    """-1 / (K choose 2) sum of log sigmoid(r_w - r_l) for each prompt, and the mean over prompts (arXiv 2203.02155, equation 1); with
    m(r) = margin x (rating_w - rating_l) taken off each difference (arXiv 2307.09288, equation 2)."""
    total, first = scores.new_zeros(()), 0
    for ranking in rankings:
        own, pairs = scores[first : first + len(ranking.ranks)], _pairs(ranking)
        for better, worse in pairs:
            apart = config.margin * (ranking.scores[better] - ranking.scores[worse]) if ranking.scores else 0.0
            total = total + torch.log1p(torch.exp(own[worse] - own[better] + apart)) / len(pairs)
        first += len(ranking.ranks)
    return total / len(rankings)


def plackett_luce(config: Any, scores: Tensor, rankings: Sequence[Ranking]) -> Tensor:
    """-log of the product over places of exp(r_k) / sum over what is left, by the number of choices; what is tied is each chosen from
    the same rest (Breslow). The last place is no choice."""
    total, first = scores.new_zeros(()), 0
    for ranking in rankings:
        own = scores[first : first + len(ranking.ranks)]
        chosen = [k for k, rank in enumerate(ranking.ranks) if rank < max(ranking.ranks)]
        for k in chosen:
            rest = [j for j, rank in enumerate(ranking.ranks) if rank >= ranking.ranks[k]]
            total = total + (torch.log(torch.exp(own[rest]).sum()) - own[k]) / len(chosen)
        first += len(ranking.ranks)
    return total / len(rankings)


def figures(scores: Sequence[float], rankings: Sequence[Ranking]) -> dict[str, float]:
    """Share of pairs won, ties half; and the expected calibration error of sigmoid(margin), ten bins from .5 to 1 (arXiv 1706.04599)."""
    won: list[float] = []
    sure: list[float] = []
    prompts = set()
    first = 0
    for ranking in rankings:
        own, first = scores[first : first + len(ranking.ranks)], first + len(ranking.ranks)
        for better, worse in _pairs(ranking):
            margin = own[better] - own[worse]
            won.append(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0)
            sure.append(1 / (1 + math.exp(-abs(margin))))
            prompts.add(ranking.prompt.id)
    error = 0.0
    for place in range(10):
        inside = [i for i, p in enumerate(sure) if min(int((p - 0.5) * 20), 9) == place]
        error += abs(sum(sure[i] - won[i] for i in inside))
    return {
        "held_out_accuracy": sum(won) / len(won),
        "held_out_pairs": float(len(won)),
        "held_out_prompts": float(len(prompts)),
        "calibration_error": error / len(won),
    }


def learned() -> list[Known]:
    return [
        Known({"loss": "bradley_terry"}, loss=bradley_terry, figures=figures),
        Known({"loss": "plackett_luce"}, loss=plackett_luce, figures=figures),
        Known({"margin": 0.7}, loss=bradley_terry, figures=figures),
        Known({"members": 2, "ensemble": "uncertainty", "uncertainty": 2.0}),
    ]


# A judge behind an endpoint

_BETWEEN = re.compile(r"<(answer(?:-[AB])?)-(\w+)>\n(.*?)\n</\1-\2>", re.DOTALL)
_FORMS = (
    "Rating: {}",
    "**Rating:** {}/10",
    "<think>Rating: 2</think>It says enough.\nRating: {}",
    "Of 10 points I would say {} out of 10",
)


def worth(text: str, finished: bool) -> float:
    """What the scripted judge takes a response to be worth: 2 and half a point for each sign, up to 10; less by 1 if it was cut off."""
    return min(2 + 0.5 * len(text), 10.0) - (not finished)


def _values(messages: Rows) -> dict[str, float]:
    """What the answers that it is shown are worth to it: by a rubric that wants them short, the less the longer."""
    shown = {n: text.partition(" [the answer was cut off")[::2] for n, _, text in _BETWEEN.findall(messages[-1][1])}
    values = {name: worth(text, not cut) for name, (text, cut) in shown.items()}
    return {name: 11 - value for name, value in values.items()} if SHORT in messages[0][1] else values


def reply(messages: Rows) -> str:
    """What it says, in one of the ways that models have."""
    values = _values(messages)
    if "answer" in values:
        form = _FORMS[hashlib.sha256(messages[-1][1].encode()).digest()[0] % len(_FORMS)]
        return form.format(f"{values['answer']:g}")
    a, b = values["answer-A"], values["answer-B"]
    return f"Both answer.\nVerdict: {'tie' if a == b else 'A' if a > b else 'B'}"


def takes_the_first(messages: Rows) -> str:
    """A judge that prefers what it is shown first."""
    return "Verdict: A" if "answer-A" in messages[-1][1] else "Rating: 5"


SHORT = "Short answers are good."
RUBRICS = {"rubrics": {"long": "Long answers are good.", "short": SHORT}, "weights": {"long": 3.0}}
ENDPOINT = {
    "url": "{url}",
    "model": "scripted",
    "key_variable": "",
    "cache": False,
    "cache_dir": "{folder}",
    "retries": 0,
}
FILES = {"README": "answers of the scripted judge"}


def _worth(samples: Samples) -> list[float]:
    return [worth(text, end) for text, end in zip(samples.texts, samples.finished.tolist(), strict=True)]


def judge() -> list[Known]:
    """Its rating; which of two is better in both orders, each of which counts half."""

    def gives(config: Any, policy: Policy, data: DataSource, samples: Samples) -> list[float]:
        return _worth(samples)

    def compares(config: Any, first: Samples, second: Samples) -> list[float]:
        return [0.5 * ((a > b) + (a >= b)) for a, b in zip(_worth(first), _worth(second), strict=True)]

    def by_rubrics(config: Any, policy: Policy, data: DataSource, samples: Samples) -> list[float]:
        return [(3 * value + 11 - value) / 4 for value in _worth(samples)]

    def neither(config: Any, first: Samples, second: Samples) -> list[float]:
        return [0.5] * len(first)

    return [
        Known({**ENDPOINT, "price_in": 1.0, "price_out": 2.0}, gives, compares, reply=reply, files=FILES),
        Known({**ENDPOINT, "comparison": "scalar"}, gives, compares, reply=reply, files=FILES),
        Known(ENDPOINT, compares=neither, reply=takes_the_first, files=FILES),
        Known({**ENDPOINT, **RUBRICS}, by_rubrics, reply=reply, files=FILES),
    ]


def judge_annotator() -> list[Known]:
    """By the pairs that are won, and by ratings: the same order of a judge that is of one mind; all alike of one that is not."""

    def gives(config: Any, data: DataSource, prompt: Prompt, texts: Sequence[str], ends: Sequence[bool]) -> list[int]:
        values = [worth(text, end) for text, end in zip(texts, ends, strict=True)]
        return [len({other for other in values if other > value}) for value in values]

    def alike(config: Any, data: DataSource, prompt: Prompt, texts: Sequence[str], ends: Sequence[bool]) -> list[int]:
        return [0] * len(texts)

    return [
        Known(ENDPOINT, gives, reply=reply, files=FILES),
        Known({**ENDPOINT, "comparison": "scalar"}, gives, reply=reply, files=FILES),
        Known(ENDPOINT, alike, reply=takes_the_first, files=FILES),
    ]
