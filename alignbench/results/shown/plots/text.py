"""Untrusted text and metric names, as a reader may see them. Imports nothing: the page uses it as well as the plots."""

from __future__ import annotations

import unicodedata

NAMES = {
    "kl": "KL",
    "kl_bound": "KL bound",
    "kl_coef": "KL coefficient",
    "approx_kl": "approximate KL of a step",
    "proxy_gold_gap": "proxy less gold",
    "distinct_2": "distinct-2",
    "ead": "EAD",
    "self_bleu": "self-BLEU",
    "eos_rate": "ended by themselves",
    "finished": "ended by themselves",
    "accuracy_wrong": "accuracy, wrong opinion",
    "accuracy_drop": "accuracy drop",
}
UNITS = {
    "kl": "nats per response",
    "kl_bound": "nats per response, an upper bound",
    "entropy": "nats per token",
    "length": "tokens per response",
    "finished": "share of responses",
    "clip_fraction": "share of tokens",
    "eos_rate": "share of responses",
    "reward": "per response",
    "proxy_reward": "per response",
    "gold_reward": "per response",
    "objective": "reward less KL penalty",
    "accuracy": "share",
    "accuracy_wrong": "share of responses",
    "accuracy_drop": "no opinion less wrong opinion",
    "ead": "expectation-adjusted distinct n-grams",
    "self_bleu": "BLEU against the prompt's other responses",
    "agreement": "share of wrong opinions repeated",
    "win_rate": "against the SFT model",
    "distinct_2": "share of bigrams",
    "unique": "share of a prompt's responses",
}
"""By the last part of a metric's name, as NAMES: an evaluation's `MetricSpec.unit` is not stored with a run."""


def shown(text: str, *, keep: str = "", limit: int = 0) -> str:
    """Text with whatever acts instead of being seen (control characters, lone surrogates, bidirectional overrides) in
    plain view: U+202E becomes ‹U+202E›. Joiners stay: scripts and emoji need them. `limit` cuts long text."""
    if limit and len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(c if c.isprintable() or c in keep or _harmless(c) else f"‹U+{ord(c):04X}›" for c in text)


def _harmless(character: str) -> bool:
    return character in "\u200c\u200d" or unicodedata.category(character) == "Zs"


def metric_name(metric: str) -> str:
    """`optimization/gold_reward` -> `gold reward`."""
    name = metric.rpartition("/")[2]
    return NAMES.get(name, shown(name.replace("_", " "), limit=40))


def axis_label(metric: str) -> str:
    """The same with its unit, where that is known."""
    unit = UNITS.get(metric.rpartition("/")[2])
    return f"{metric_name(metric)} ({unit})" if unit else metric_name(metric)
