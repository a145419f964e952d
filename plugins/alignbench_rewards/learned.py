"""The learned reward: step two of InstructGPT (Ouyang et al., arXiv 2203.02155)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from alignbench import (
    Annotator,
    DataSource,
    FitReport,
    FittableRewardSource,
    Policy,
    Progress,
    Ranking,
    Samples,
    ScalarRole,
    Seeds,
    Sequences,
    UserError,
    functional,
    pretrained,
)
from alignbench_rewards.config import LearnedConfig
from alignbench_rewards.ensemble import averaged, put, standardise, together, weights_of
from alignbench_rewards.losses import annotator_ceiling, index_pairs, loss_of, pair_figures

_BESIDE, _UNIT = "normalisation.json", "ensemble.json"


class LearnedReward(FittableRewardSource):
    """A scalar role on the policy's base, started from the SFT weights, or several of them. It reads the policy's own tokens."""

    known = "alignbench_rewards.known:learned"
    shares_batches = True

    def __init__(self, config: LearnedConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        self._config, self._policy, self._seeds = config, policy, seeds
        self._roles = [policy.scalar(name) for name in config.scalar_roles]
        self._unit = 1.0

    def score(self, samples: Samples) -> Tensor:
        return self._together(self._members(samples.sequences))

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
        usable, held_out = with_pairs(rankings), with_pairs(held_out)
        if not usable:
            raise UserError("No ranking has two different responses of different rank: there is nothing to learn from.")
        metrics = {"rankings": float(len(usable)), "rankings_without_pairs": float(len(rankings) - len(usable))}
        if self._config.margin:
            metrics["rankings_without_ratings"] = float(sum(not ranking.scores for ranking in usable))
            if metrics["rankings_without_ratings"] == len(usable):
                raise UserError(
                    f"reward.margin={self._config.margin:g} asks for a difference of ratings, and none of these rankings brings "
                    "ratings: take data that has them (docs/data.md, `scores`), or reward.margin=0."
                )
        self._train(usable, progress, state)
        raw = self._members(baseline.sequences)
        metrics |= self._figures(held_out, baseline, raw, annotator)  # before: only raw margins are log-odds
        if self._config.normalise:
            self._normalise(baseline, raw)
        return FitReport(metrics, summary(metrics))

    def _normalise(self, baseline: Samples, raw: Tensor) -> None:
        """Mean 0 and deviation 1 on the baseline: of each member, since their raw heads have scales of their own, and then of what they
        say together. `raw`: what each says of the baseline, [B, M]."""
        for role, member in zip(self._roles, raw.unbind(1), strict=True):
            standardise([role], member)
        if len(self._roles) > 1:
            self._unit = standardise(self._roles, self.score(baseline))

    def _train(self, rankings: Sequence[Ranking], progress: Progress, state: Mapping[str, Any] | None) -> None:
        """The members in turn, each from the SFT weights."""
        config = self._config
        start = weights_of(self._roles[0]) if config.averages_weights else []
        updates = config.updates or max(round(config.passes * len(rankings) / config.batch_size), 1)
        first, mean = (int(state["member"]), list(state["mean"])) if state else (0, [])
        for role, weights in zip(self._roles, state["finished"] if state else (), strict=False):
            put(role, weights)
        for member in range(first, config.members):
            role = self._roles[0 if config.averages_weights else member]
            if config.averages_weights:
                put(role, start)
            keep = partial(self._state, member, mean)
            self._train_member(member, rankings, updates, progress, keep, state if member == first else None)
            if config.averages_weights:
                mean = averaged(mean, weights_of(role), 1 / config.members)
        if config.averages_weights:
            put(self._roles[0], mean)

    def _train_member(
        self,
        member: int,
        rankings: Sequence[Ranking],
        updates: int,
        progress: Progress,
        keep: Callable[[functional.ScheduledAdamW, int], dict[str, Any]],
        state: Mapping[str, Any] | None,
    ) -> None:
        config, role = self._config, self._roles[0 if self._config.averages_weights else member]
        seeds = self._seeds.child(f"member {member}") if member else self._seeds
        optimizer = functional.ScheduledAdamW(config, {"reward": role.parameters()}, updates)
        batches = functional.shuffled_batches(len(rankings), config.batch_size, seeds.torch("order"))
        done, before, total = 0, member * updates, config.members * updates
        if state:
            done = int(state["update"])
            put(role, state["weights"])
            optimizer.load_state_dict(state["optimizer"])
        for update, rows in enumerate(islice(batches, done, updates), done + 1):
            batch = [rankings[i] for i in rows.tolist()]
            optimizer.next_update()
            optimizer.zero_grad()
            sums: Counter[str] = Counter()
            for chosen in functional.own_pieces(torch.arange(len(batch)), config.micro_batch_size):
                part = [batch[i] for i in chosen.tolist()]
                sequences = self._encode(part).sequences
                raw = read_last(role.values(sequences), sequences)
                part_loss = loss_of(config, raw, part) / len(batch)
                functional.require_finite(
                    "the reward model's loss", part_loss.detach(), hint="Lower reward.learning_rate."
                )
                part_loss.backward()
                sums["loss"] += float(part_loss.detach())
            norms = optimizer.step()
            figures = {"loss": functional.across_processes(sums)["loss"], "gradient_norm": norms["reward"]}
            progress(before + update, total, figures, partial(keep, optimizer, update))

    def _state(
        self, member: int, mean: Sequence[Tensor], optimizer: functional.ScheduledAdamW, update: int
    ) -> dict[str, Any]:
        """What a member was when its `update` was done, and what those before it left: their roles, or the mean of their weights."""
        role, finished = (
            (self._roles[0], ()) if self._config.averages_weights else (self._roles[member], self._roles[:member])
        )
        return {
            "member": member,
            "update": update,
            "weights": weights_of(role),
            "optimizer": optimizer.state_dict(),
            "finished": [weights_of(other) for other in finished],
            "mean": list(mean),
        }

    def _encode(self, rankings: Sequence[Ranking]) -> Samples:
        prompts = [ranking.prompt for ranking in rankings for _ in ranking.responses]
        finished = [end for r in rankings for end in (r.finished or (True,) * len(r.responses))]
        return self._policy.encode(prompts, [text for r in rankings for text in r.responses], finished=finished)

    @torch.no_grad()
    def _members(self, sequences: Sequences) -> Tensor:
        """[B, M]: what each member says."""
        return torch.stack([read_last(role.values(sequences), sequences) for role in self._roles], 1)

    def _together(self, members: Tensor) -> Tensor:
        scores = together(members, self._config, self._unit)
        return functional.require_finite("the learned reward", scores, hint="Fit it with a lower reward.learning_rate.")

    def _figures(
        self, held_out: Sequence[Ranking], baseline: Samples, raw: Tensor, annotator: Annotator
    ) -> dict[str, float]:
        """`raw`: see `_normalise`."""
        metrics: dict[str, float] = {}
        lengths = baseline.sequences.response_mask.sum(1).double()
        scores = self._together(raw).double()
        if len(self._roles) > 1:
            metrics["disagreement"] = float(raw.std(1, correction=0).mean())
        if lengths.std(correction=0) > 0 and scores.std(correction=0) > 0:
            metrics["length_correlation"] = float(torch.corrcoef(torch.stack([lengths, scores]))[0, 1])
        if not held_out:
            return metrics
        margins = self._together(self._members(self._encode(held_out).sequences))
        figures = pair_figures(margins, held_out)
        metrics["held_out_accuracy"], metrics["held_out_accuracy_stderr"] = figures.accuracy, figures.accuracy_stderr
        metrics["held_out_prompts"] = float(figures.prompts)
        metrics["held_out_pairs"], metrics["calibration_error"] = float(figures.pairs), figures.calibration_error
        if (ceiling := annotator_ceiling(annotator, held_out)) is not None:
            metrics["annotator_ceiling"] = ceiling
        return metrics

    def save(self, path: Path) -> None:
        for role, folder in self._folders(path):
            folder.mkdir(parents=True, exist_ok=True)
            role.save(folder)
        if len(self._roles) > 1:
            (path / _UNIT).write_text(json.dumps({"unit": self._unit}))

    def load(self, path: Path) -> None:
        for role, folder in self._folders(path):
            role.load(folder)
        if len(self._roles) > 1:
            pretrained.require_file(path / _UNIT)
            self._unit = float(json.loads((path / _UNIT).read_text())["unit"])
        if (beside := path / _BESIDE).exists():  # of a run from before the head held it
            saved = json.loads(beside.read_text())
            self._roles[0].rescale(float(saved["shift"]), float(saved["scale"]))

    def _folders(self, path: Path) -> Iterator[tuple[ScalarRole, Path]]:
        """The first member lies where a single one does, the others in folders beside it."""
        for name, role in zip(self._config.scalar_roles, self._roles, strict=True):
            yield role, path if role is self._roles[0] else path / name


def with_pairs(rankings: Sequence[Ranking]) -> list[Ranking]:
    """The rankings that say something: two different responses of different rank."""
    return [ranking for ranking in rankings if len(index_pairs([ranking]).better)]


def read_last(values: Tensor, sequences: Sequences) -> Tensor:
    """The value after each row's last response token, [B]."""
    return values.gather(1, sequences.response_mask.sum(1, keepdim=True).long()).squeeze(1)


def summary(metrics: Mapping[str, float]) -> str:
    """One line for the terminal."""
    if "held_out_accuracy" not in metrics:
        return "no held-out rankings"
    text = f"held-out accuracy {metrics['held_out_accuracy']:.3f}"
    if metrics["held_out_prompts"] > 1:
        half = float(stdtrit(metrics["held_out_prompts"] - 1, 0.975)) * metrics["held_out_accuracy_stderr"]
        text += f" ± {half:.3f}"
    if "annotator_ceiling" in metrics:
        ceiling = metrics["annotator_ceiling"]
        text += f" ({metrics['held_out_accuracy'] / ceiling:.2f} of the annotator's {ceiling:.3f})"
    text += f", calibration error {metrics['calibration_error']:.3f}"
    if "length_correlation" in metrics:
        text += f", correlation with length {metrics['length_correlation']:+.2f}"
    return text
