"""A weighted sum of reward sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignbench import (
    REFERENCE,
    Annotator,
    DataSource,
    FitReport,
    FittableRewardSource,
    Policy,
    Progress,
    Ranking,
    RewardParts,
    RewardSource,
    Samples,
    Sampling,
    Seeds,
    Selected,
    Split,
    UserError,
    functional,
    select,
)
from alignbench_rewards.config import MixConfig

COMPONENT = "component"


class MixReward(FittableRewardSource):
    """Sum over its parts of weight x clip((score - mean) / deviation). Mean and deviation are those of each part on one set of
    responses of the SFT model (the reference), sampled once under a seed of their own: a batch never shifts them."""

    known = "alignbench_rewards.known:mix"
    shares_batches = False

    def __init__(self, config: MixConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        self._config, self._policy, self._data, self._seeds = config, policy, data, seeds
        self._chosen = dict(chosen_parts(config))
        self._parts: dict[str, RewardSource] = {
            name: part.build(policy=policy, data=data, seeds=seeds.child(name)) for name, part in self._chosen.items()
        }
        self._standard: dict[str, tuple[float, float]] = {}

    @classmethod
    def check_data(cls, config: MixConfig, data: DataSource) -> None:
        for _, part in chosen_parts(config):
            part.load().check_data(part.config, data)

    @classmethod
    def needs_rankings(cls, config: MixConfig) -> bool:
        return any(part.load().needs_rankings(part.config) for _, part in chosen_parts(config))

    @classmethod
    def asks_anybody(cls, config: MixConfig) -> bool:
        return any(part.load().asks_anybody(part.config) for _, part in chosen_parts(config))

    def fingerprint(self) -> str:
        parts = [(name, part.fingerprint(), self._parts[name].fingerprint()) for name, part in self._chosen.items()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def report(self) -> Mapping[str, float]:
        return {f"{name}/{what}": value for name, part in self._parts.items() for what, value in part.report().items()}

    def score(self, samples: Samples) -> Tensor:
        return self.score_parts(samples).total()

    def score_parts(self, samples: Samples) -> RewardParts:
        if self._config.standardise and not self._standard:
            self._standard = self._measured()
        values = []
        for name, part in self._parts.items():
            shift, scale = self._standard.get(name, (0.0, 1.0))
            scores = (part.score(samples) - shift) / scale
            if self._config.clip:
                scores = scores.clamp(-self._config.clip, self._config.clip)
            values.append(scores.float())
        found = RewardParts(
            tuple(self._parts), tuple(self._config.parts[name] for name in self._parts), torch.stack(values, 1)
        )
        functional.require_finite("the mixed reward", found.total(), hint="Check its parts and their weights.")
        return found

    def _measured(self) -> dict[str, tuple[float, float]]:
        """Mean and deviation of each part on responses of the SFT model."""
        asked = [
            prompt
            for prompt in self._data.prompts(Split.TRAIN)
            if self._policy.prompt_tokens(prompt) <= self._policy.max_prompt_tokens
        ]
        rows = torch.randint(len(asked), (self._config.baseline,), generator=self._seeds.torch("prompts")).tolist()
        rng = self._seeds.torch("sampling")
        prompts = [asked[i] for i in rows]
        baseline = self._policy.generate(prompts, Sampling(), role=REFERENCE, rng=rng).samples
        found = {}
        for name, part in self._parts.items():
            scores = part.score(baseline).double()
            deviation = float(scores.std(correction=0))
            if deviation <= 1e-6:
                raise UserError(
                    f"reward.parts.{name} gives the SFT model's responses all the same score ({float(scores[0]):g}), which "
                    "cannot be standardised: reward.standardise=false, or leave it out."
                )
            found[name] = (float(scores.mean()), deviation)
        return found

    # Where one part is fitted, so is the mixture

    def fit(
        self,
        rankings: Sequence[Ranking],
        held_out: Sequence[Ranking],
        baseline: Samples,
        *,
        annotator: Annotator,
        progress: Progress,
        state: Mapping[str, Any] | None = None,
    ) -> FitReport:
        for name, part in self._fittable():
            report = part.fit(rankings, held_out, baseline, annotator=annotator, progress=progress, state=state)
            self._standard = {}
            return FitReport(
                {f"{name}/{what}": value for what, value in report.metrics.items()}, f"{name}: {report.summary}"
            )
        return FitReport({}, "nothing to fit")

    def save(self, path: Path) -> None:
        for name, part in self._fittable():
            (path / name).mkdir(parents=True, exist_ok=True)
            part.save(path / name)

    def load(self, path: Path) -> None:
        for name, part in self._fittable():
            part.load(path / name)
        self._standard = {}

    def _fittable(self) -> Iterator[tuple[str, FittableRewardSource]]:
        for name, part in self._parts.items():
            if isinstance(part, FittableRewardSource) and part.needs_rankings(self._chosen[name].config):
                yield name, part


def chosen_parts(config: MixConfig) -> Iterator[tuple[str, Selected]]:
    """The parts, by name. Raises UserError for none, for a mixture of mixtures and for two that are to be fitted."""
    if not config.parts:
        raise UserError("reward=mix mixes nothing: give weights, as in reward.parts={learned: 1.0, length: -0.2}.")
    fitted: list[str] = []
    for name in config.parts:
        options = dict(config.options.get(name, {}))
        part = select("reward", str(options.pop(COMPONENT, name)), options, where=f"reward.options.{name}")
        source = part.load()
        if issubclass(source, MixReward):
            raise UserError(f"reward.parts.{name} is itself a mixture: give its parts directly.")
        if source.needs_rankings(part.config):
            fitted.append(name)
        if len(fitted) > 1:
            raise UserError(
                f"reward.parts {' and '.join(fitted)} are both fitted to rankings, and a mixture can hold one such part."
            )
        yield name, part


def ready(config: MixConfig) -> None:
    """As `ready` of any component's config."""
    for _, part in chosen_parts(config):
        part.check_ready()
