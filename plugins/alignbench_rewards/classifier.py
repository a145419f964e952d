"""A reward model of its own: a sequence classifier that reads texts with its own tokenizer and template."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignbench import DataSource, Policy, Prompt, RewardSource, Samples, Seeds, UserError, functional, pretrained
from alignbench_rewards.config import HFConfig

log = logging.getLogger(__name__)


class HFReward(RewardSource):
    """The output of the reward model. It tokenises prompts and responses itself: the policy's token ids mean nothing to it."""

    def __init__(self, config: HFConfig, *, policy: Policy, data: DataSource, seeds: Seeds) -> None:
        from transformers import AutoTokenizer

        self._config, self._folder, self._cut = config, resolve(config.model, config.revision), 0
        device = config.device or policy.device
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                str(self._folder), local_files_only=True, trust_remote_code=False
            )
            self._model = _loaded(config, str(self._folder)).to(device)
        except UserError:
            raise
        except Exception as error:  # an unknown architecture, a damaged file or no such device fails in many ways
            raise UserError(
                f"reward.model={config.model} cannot be loaded ({type(error).__name__}: {pretrained.one_line(error)})."
            ) from error
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
        tokenizer, limit = self._tokenizer, self._config.max_length
        if self._config.format == "pair":
            return tokenizer(prompt.text, response, truncation=True, max_length=limit, split_special_tokens=True)
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        messages.append({"role": "assistant", "content": response})
        try:
            # A response that writes control tokens is read as text, and cannot begin a turn of its own.
            row = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, sanitize_control_tokens=True)
        except Exception as error:  # templates raise errors of their own, as for a system message
            raise UserError(
                f"The chat template of the reward model {self._config.model} cannot write prompt {prompt.id!r} "
                f"({pretrained.one_line(error)}): give another with reward.template=."
            ) from error
        if len(row["input_ids"]) > limit and not self._cut:
            self._cut += 1
            log.warning("The reward model %s reads the last %d tokens of longer texts.", self._config.model, limit)
        return {name: ids[-limit:] for name, ids in row.items()}


def _loaded(config: HFConfig, folder: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=config.dtype if config.dtype == "auto" else getattr(torch, config.dtype),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):  # transformers would fill them with random numbers
        raise UserError(
            f"reward.model={config.model} is no reward model: its files hold no {missing[0]} "
            f"({len(missing)} weights are missing)."
        )
    return model.eval().requires_grad_(False)


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
    local = Path(model).expanduser()
    folder = local if local.is_dir() else _from_hub(model, revision)
    if not (folder / "config.json").is_file():
        raise UserError(f"reward.model={model}: {folder} has no config.json, so it is no checkpoint of transformers.")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"reward.model={model}: {folder} has no *.safetensors, and weights are read from those alone.")
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
