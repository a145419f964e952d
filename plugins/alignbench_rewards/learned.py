"""The learned reward: step two of InstructGPT (Ouyang et al., arXiv 2203.02155)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
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
    Seeds,
    Sequences,
    UserError,
    functional,
    unknown_name,
)
from alignbench_rewards.config import LearnedConfig
from alignbench_rewards.losses import LOSSES, annotator_ceiling, index_pairs, pair_figures

_BESIDE = "normalisation.json"


class LearnedReward(FittableRewardSource):
    """A scalar role on the policy's base, started from the SFT weights. It reads the policy's own tokens."""

    known = "alignbench_rewards.known:learned"
    shares_batches = True

    def __init__(self, config: LearnedConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        if config.loss not in LOSSES:
            raise unknown_name("reward.loss", config.loss, LOSSES)
        self._config, self._policy, self._seeds = config, policy, seeds
        self._role = policy.scalar("reward")

    def score(self, samples: Samples) -> Tensor:
        with torch.no_grad():
            scores = read_last(self._role.values(samples.sequences), samples.sequences)
        return functional.require_finite("the learned reward", scores, hint="Fit it with a lower reward.learning_rate.")

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
        self._train(usable, progress, state)
        metrics = {"rankings": float(len(usable)), "rankings_without_pairs": float(len(rankings) - len(usable))}
        metrics |= self._figures(held_out, baseline, annotator)  # before: only raw margins are log-odds
        if self._config.normalise:
            self._normalise(baseline)
        return FitReport(metrics, summary(metrics))

    def _normalise(self, baseline: Samples) -> None:
        """Mean 0 and deviation 1 on the baseline, folded into the head: a value network that starts from the role reads
        values in the unit of the scores, not in that of the raw head."""
        raw = self.score(baseline)
        deviation = float(raw.std(correction=0))
        # Scores that are all equal up to rounding have no scale: dividing by it would blow up all others.
        self._role.rescale(float(raw.mean()), deviation if deviation > 1e-6 else 1.0)

    def _train(self, rankings: Sequence[Ranking], progress: Progress, state: Mapping[str, Any] | None) -> None:
        config, size = self._config, self._config.batch_size
        updates = config.updates or max(round(config.passes * len(rankings) / size), 1)
        optimizer = functional.ScheduledAdamW(config, {"reward": self._role.parameters()}, updates)
        batches = functional.shuffled_batches(len(rankings), size, self._seeds.torch("order"))
        done = self._restore(optimizer, state) if state else 0
        for update, rows in enumerate(islice(batches, done, updates), done + 1):
            batch = [rankings[i] for i in rows.tolist()]
            optimizer.next_update()
            optimizer.zero_grad()
            sums: Counter[str] = Counter()
            for chosen in functional.own_pieces(torch.arange(len(batch)), config.micro_batch_size):
                part = [batch[i] for i in chosen.tolist()]
                part_loss = LOSSES[config.loss](self._raw(part), part) / len(batch)
                functional.require_finite(
                    "the reward model's loss", part_loss.detach(), hint="Lower reward.learning_rate."
                )
                part_loss.backward()
                sums["loss"] += float(part_loss.detach())
            norms = optimizer.step()
            figures = {"loss": functional.across_processes(sums)["loss"], "gradient_norm": norms["reward"]}
            progress(update, updates, figures, partial(self._state, optimizer, update))

    def _state(self, optimizer: functional.ScheduledAdamW, update: int) -> dict[str, Any]:
        weights = [parameter.detach() for parameter in self._role.parameters()]
        return {"update": update, "weights": weights, "optimizer": optimizer.state_dict()}

    def _restore(self, optimizer: functional.ScheduledAdamW, state: Mapping[str, Any]) -> int:
        """Puts back what `_state` gave; the number of updates that were done."""
        with torch.no_grad():
            for parameter, saved in zip(self._role.parameters(), state["weights"], strict=True):
                parameter.copy_(saved)
        optimizer.load_state_dict(state["optimizer"])
        return int(state["update"])

    def _encode(self, rankings: Sequence[Ranking]) -> Samples:
        prompts = [ranking.prompt for ranking in rankings for _ in ranking.responses]
        finished = [end for r in rankings for end in (r.finished or (True,) * len(r.responses))]
        return self._policy.encode(prompts, [text for r in rankings for text in r.responses], finished=finished)

    def _raw(self, rankings: Sequence[Ranking]) -> Tensor:
        sequences = self._encode(rankings).sequences
        return read_last(self._role.values(sequences), sequences)

    def _figures(self, held_out: Sequence[Ranking], baseline: Samples, annotator: Annotator) -> dict[str, float]:
        metrics: dict[str, float] = {}
        lengths = baseline.sequences.response_mask.sum(1).double()
        scores = self.score(baseline).double()
        if lengths.std(correction=0) > 0 and scores.std(correction=0) > 0:
            metrics["length_correlation"] = float(torch.corrcoef(torch.stack([lengths, scores]))[0, 1])
        if not held_out:
            return metrics
        with torch.no_grad():
            raw = self._raw(held_out)
        figures = pair_figures(raw, held_out)
        metrics["held_out_accuracy"], metrics["held_out_accuracy_stderr"] = figures.accuracy, figures.accuracy_stderr
        metrics["held_out_prompts"] = float(figures.prompts)
        metrics["held_out_pairs"], metrics["calibration_error"] = float(figures.pairs), figures.calibration_error
        if (ceiling := annotator_ceiling(annotator, held_out)) is not None:
            metrics["annotator_ceiling"] = ceiling
        return metrics

    def save(self, path: Path) -> None:
        self._role.save(path)

    def load(self, path: Path) -> None:
        self._role.load(path)
        if (beside := path / _BESIDE).exists():  # of a run from before the head held it
            saved = json.loads(beside.read_text())
            self._role.rescale(float(saved["shift"]), float(saved["scale"]))


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
