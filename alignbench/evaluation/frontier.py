"""The frontier of an SFT model under a reward: sampled once, shared by all runs that start there, and read by prompt."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignbench.app.config import EvalSettings
from alignbench.contracts import DataSource, Policy, RewardSource
from alignbench.evaluation import tilt
from alignbench.records import REFERENCE, ExampleScore, MetricSpec, Opinion, Prompt, Samples, Sampling
from alignbench.records import Direction as D
from alignbench.results.compared.statistics import summarise
from alignbench.results.disk.directory import finite
from alignbench.scoring import checked_scores
from alignbench.seeds import Seeds

FROM_SCRATCH = 256
"""Samples of each prompt where the settings leave it open and the model is a small one."""
POINTS = 25
"""Of the curve that is written for people."""
_AT_ONCE = 2048
_FILE = "frontier.safetensors"


@dataclass(frozen=True)
class Frontier:
    """Scores of N samples of the SFT model to each of P prompts, [P, N] float64; `gold` alike, NaN where the truth is not known.
    `agrees`: whether a response repeats its user's opinion, 0 or 1, NaN where the user states no wrong one."""

    prompts: tuple[Prompt, ...]
    scores: Tensor
    gold: Tensor
    agrees: Tensor

    def shortfall(self, proxy: Mapping[str, float], kl: Mapping[str, float]) -> Mapping[str, float]:
        """See Subject."""
        rows = [row for row, prompt in enumerate(self.prompts) if prompt.id in proxy and prompt.id in kl]
        if not rows:
            return {}
        names = [self.prompts[row].id for row in rows]
        means = (torch.tensor([of[name] for name in names], dtype=torch.double) for of in (proxy, kl))
        gaps = tilt.shortfall(self.scores[rows], *means)
        return {} if gaps is None else dict(zip(names, gaps.tolist(), strict=True))

    def curve(self) -> Iterator[dict[str, Any]]:
        """Points from the SFT model to the reach, with 95% intervals over the prompts."""
        specs = [MetricSpec(name, D.NEITHER) for name in ("proxy", "gold", "agreement")]
        for found in tilt.along(self.scores, POINTS):
            beta, kl = found.beta, float(found.kl.mean())
            # As in `tilt.shortfall`: at this KL, so that the error of the KL is in the interval of the reward.
            held = found.expected(self.scores)
            if math.isfinite(beta):
                held = held - beta * (found.kl - kl)
            gold, agreement = found.expected(self.gold), found.expected(self.agrees)
            columns = {"proxy": held, "gold": gold, "agreement": agreement}
            metrics = summarise(
                [
                    ExampleScore(name, prompt.id, value, prompt.cluster)
                    for name, column in columns.items()
                    for prompt, value in zip(self.prompts, column.tolist(), strict=True)
                ],
                specs,
            )
            shown = {n: {"value": m.value, "low": finite(m.low), "high": finite(m.high)} for n, m in metrics.items()}
            yield {"beta": finite(beta), "kl": kl, "effective_samples": tilt.effective(found), **shown}

    def __str__(self) -> str:
        """For the terminal."""
        far = float(tilt.reach(self.scores).kl.mean())
        return f"KL up to {far:.2f} from {self.scores.shape[1]} samples of {len(self.prompts)} prompts"

    def save(self, folder: Path) -> None:
        save_file({"scores": self.scores, "gold": self.gold, "agrees": self.agrees}, folder / _FILE)

    @classmethod
    def load(cls, folder: Path, prompts: Sequence[Prompt]) -> Frontier:
        found = load_file(folder / _FILE)
        return cls(tuple(prompts), found["scores"], found["gold"], found["agrees"])

    def as_json(self) -> str:
        """What is kept in a run's directory, for the plots."""
        size = {"prompts": len(self.prompts), "samples": self.scores.shape[1]}
        return json.dumps({**size, "points": list(self.curve())}, allow_nan=False)


def samples(settings: EvalSettings, policy: Policy) -> int:
    """How many responses of each prompt are sampled; 0: there is to be no frontier."""
    if settings.frontier_samples is None:
        return 0 if policy.pretrained else FROM_SCRATCH
    return settings.frontier_samples


def chosen(questions: Sequence[Prompt], settings: EvalSettings, seeds: Seeds) -> list[Prompt]:
    """Those that the frontier is estimated on, in their order."""
    wanted = min(settings.frontier_prompts, len(questions))
    return [questions[i] for i in sorted(seeds.python("frontier prompts").sample(range(len(questions)), wanted))]


def sample(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    n: int,
    temperature: float,
    data: DataSource,
    reward: RewardSource,
    seeds: Seeds,
    stream: str = "frontier",
) -> Frontier:
    """Asks the policy's reference, which is the SFT model; a response that comes twice is scored once. `stream` names the chances."""
    rng = seeds.torch(stream)
    pieces, at_once = [], max(_AT_ONCE // n, 1)
    for start in range(0, len(prompts), at_once):
        asked = prompts[start : start + at_once]
        drawn = policy.generate(asked, Sampling(temperature=temperature), n=n, role=REFERENCE, rng=rng).samples
        pieces.append(_scored(drawn, data, reward))
    columns = (torch.cat(part).double().cpu().view(len(prompts), n) for part in zip(*pieces, strict=True))
    return Frontier(tuple(prompts), *columns)


def _scored(drawn: Samples, data: DataSource, reward: RewardSource) -> tuple[Tensor, Tensor, Tensor]:
    """Score, gold reward and `agrees` of each row."""
    tokens, lengths = drawn.sequences.response_ids.tolist(), drawn.sequences.response_mask.sum(1).tolist()
    known: dict[tuple[str, tuple[int, ...]], int] = {}
    first: list[int] = []
    same: list[int] = []
    for row, (prompt, ids, length) in enumerate(zip(drawn.prompts, tokens, lengths, strict=True)):
        said = prompt.id, tuple(ids[:length])
        if said not in known:
            known[said] = len(first)
            first.append(row)
        same.append(known[said])
    different = drawn.select(torch.tensor(first))
    verdicts = [
        data.judge(prompt, text, finished=ended)
        for prompt, text, ended in zip(different.prompts, different.texts, different.finished.tolist(), strict=True)
    ]
    gold = torch.tensor([verdict.gold_reward if verdict else math.nan for verdict in verdicts], dtype=torch.double)
    agrees = torch.tensor(
        [
            float(verdict.agrees)
            if verdict and verdict.agrees is not None and prompt.opinion is Opinion.WRONG
            else math.nan
            for prompt, verdict in zip(different.prompts, verdicts, strict=True)
        ],
        dtype=torch.double,
    )
    places = torch.tensor(same)
    return checked_scores(reward, different).cpu()[places], gold[places], agrees[places]
