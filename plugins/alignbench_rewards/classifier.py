"""A reward model of its own: a sequence classifier that reads texts with its own tokenizer and template."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignbench import (
    DataSource,
    Policy,
    Prompt,
    RewardSource,
    Samples,
    Seeds,
    UserError,
    functional,
    pretrained,
    user_path,
)
from alignbench_rewards.config import HFConfig

log = logging.getLogger(__name__)


class HFReward(RewardSource):
    """The output of the reward model. It tokenises prompts and responses itself: the policy's token ids mean nothing to it."""

    known = "alignbench_rewards.known.model:hf"

    def __init__(self, config: HFConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        from transformers import AutoModelForSequenceClassification

        self._config, self._folder = config, resolve(config.model, config.revision)
        self._texts, self._cut = 0, 0
        checkpoint = pretrained.Checkpoint(self._folder, "reward.model")
        with checkpoint.reading():
            device = torch.device(config.device or policy.device)
        self._tokenizer = checkpoint.tokenizer()
        self._model = checkpoint.model(
            AutoModelForSequenceClassification,
            tokenizer=self._tokenizer,
            dtype=config.dtype if config.dtype == "auto" else getattr(torch, config.dtype),
            device=device,
            less=("reward.dtype=bfloat16", "reward.device=cpu"),
        ).requires_grad_(False)
        self._limit = min(config.max_length, positions(self._model, self._tokenizer))
        self._tokenizer.truncation_side, self._tokenizer.padding_side = "left", "right"
        self._label = _label(config, self._model.config.num_labels)
        if config.template:
            self._tokenizer.chat_template = config.template
        if config.format == "chat" and not self._tokenizer.chat_template:
            raise UserError(
                f"The reward model {config.model} has no chat template: give the one it was trained with "
                "(reward.template=), or reward.format=pair if it was trained on pairs of texts."
            )
        self._pad()

    def _pad(self) -> None:
        """transformers reads a row at its last token that is not padding. With EOS as padding, as chat models have it, that is
        the token before the EOS, which the model was not trained to be read at; so padding must be another token."""
        tokenizer = self._tokenizer
        token = pretrained.padding_token(tokenizer)
        if token is None:
            raise UserError(
                f"The tokenizer of the reward model {self._config.model} has no token to pad with apart from EOS "
                f"({tokenizer.eos_token!r}): set pad_token in its tokenizer_config.json to another special token."
            )
        tokenizer.pad_token = token
        self._model.config.get_text_config().pad_token_id = tokenizer.pad_token_id

    @classmethod
    def check_data(cls, config: HFConfig, data: DataSource) -> None:
        resolve(config.model, config.revision)

    def fingerprint(self) -> str:
        return pretrained.fingerprint(self._folder)

    def report(self) -> Mapping[str, float]:
        return {"texts": float(self._texts), "texts_cut": float(self._cut)}

    def score(self, samples: Samples) -> Tensor:
        rows = [self._encoded(*row) for row in zip(samples.prompts, samples.texts, strict=True)]
        scores = torch.empty(len(rows), dtype=torch.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))  # neighbours alike: little padding
        for start in range(0, len(order), self._config.batch_size):
            chosen = order[start : start + self._config.batch_size]
            scores[chosen] = self._forward([rows[i] for i in chosen])
        scores = scores.to(samples.finished.device)
        return functional.require_finite(
            f"the reward model {self._config.model}", scores, hint="Try reward.dtype=float32."
        )

    def _forward(self, rows: Sequence[Any]) -> Tensor:
        batch = self._tokenizer.pad(list(rows), return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            logits = self._model(**batch).logits
        return logits[:, self._label].float().cpu()

    def _encoded(self, prompt: Prompt, response: str) -> Any:
        row = self._whole(prompt, response)
        self._texts += 1
        if len(row["input_ids"]) <= self._limit:
            return row
        self._cut += 1
        if self._cut == 1:
            log.warning(
                "The reward model %s reads no more than %d tokens (the lower of reward.max_length and its positions): longer "
                "texts lose their beginning. The record counts them.",
                self._config.model,
                self._limit,
            )
        if self._config.format == "pair":
            return self._tokenizer(
                prompt.text, response, truncation=True, max_length=self._limit, split_special_tokens=True
            )
        first = row["input_ids"][0]  # [CLS], where a model is read at it, must stay
        kept = int(first == self._tokenizer.cls_token_id and self._limit > 1)
        return {name: [*ids[:kept], *ids[kept - self._limit :]] for name, ids in row.items()}

    def _whole(self, prompt: Prompt, response: str) -> Any:
        """Control tokens in somebody's text are read as text: a response cannot begin a turn of its own."""
        if self._config.format == "pair":
            return self._tokenizer(prompt.text, response, verbose=False, split_special_tokens=True)
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        messages.append({"role": "assistant", "content": response})
        try:
            return self._tokenizer.apply_chat_template(
                messages,
                tokenize=True,
                return_dict=True,
                sanitize_control_tokens=True,
                tokenizer_kwargs={"verbose": False},
            )
        except Exception as error:  # templates raise errors of their own, as for a system message
            raise UserError(
                f"The chat template of the reward model {self._config.model} cannot write prompt {prompt.id!r} "
                f"({pretrained.one_line(error)}): give another with reward.template=."
            ) from error


def positions(model: Any, tokenizer: Any) -> int:
    """Most tokens that a model can tell apart by their place. RoBERTa's kind counts places from behind its padding token's."""
    known = [tokenizer.model_max_length]  # absurdly large where nobody set it
    if window := getattr(model.config.get_text_config(), "max_position_embeddings", None):
        known.append(window)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            known.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return min(known)


def _label(config: HFConfig, labels: int) -> int:
    if config.label is None and labels > 1:
        raise UserError(
            f"The reward model {config.model} has {labels} outputs: say which is the reward, reward.label=0 to {labels - 1}."
        )
    if (label := config.label or 0) >= labels:
        raise UserError(f"reward.label={label}: the reward model {config.model} has {labels} outputs, from 0.")
    return label


def resolve(model: str, revision: str = "") -> Path:
    """The folder of a model with safetensors weights: a local one, or the hub's snapshot, from its cache where the hub is out
    of reach."""
    if not model:
        raise UserError("reward=hf needs reward.model=<a folder or a hub id (owner/name)> of a reward model.")
    local = user_path(model, "reward.model")
    folder = local if local.is_dir() else _from_hub(model, revision)
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise UserError(f"reward.model={model}: {folder} has no config.json, so it is no checkpoint of transformers.")
    pretrained.Checkpoint(folder, "reward.model").check()
    return folder


def _from_hub(name: str, revision: str) -> Path:
    if not pretrained.is_hub_id(name):
        raise UserError(f"reward.model={name!r}: no such folder, and it is no hub id (owner/name).")
    try:
        return pretrained.snapshot(name, revision=revision)
    except pretrained.NotOnHubError as error:
        raise UserError(
            f"The hub has no reward model {name!r} at revision {revision or 'main'!r} that may be read ({error}). "
            "Check reward.model and reward.revision, or give a local folder."
        ) from error
    except pretrained.OutOfReachError as error:
        raise UserError(
            f"The reward model {name!r} cannot be found (no such local folder; the hub and its cache: {error}). "
            "Use reward.model=<a local folder>."
        ) from error
