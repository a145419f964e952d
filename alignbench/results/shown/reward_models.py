"""Draws what was measured of a reward source: by subset, its biases, and what best-of-n makes of the truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignbench.functional import best_of_n_kl_bound
from alignbench.records import Metric
from alignbench.untrusted import plain

BY_SUBSET = {"accuracy": "accuracy", "best_of_k": "best of K", "easy": "easy", "normal": "normal", "hard": "hard"}
SINGLE = {
    "mean_of_subsets": "mean of subsets",
    "ties": "ties (RewardBench 2)",
    "compared_accuracy": "accuracy of comparisons",
    "orders_agree": "both orders agree",
    "length_correlation": "rank correlation with length",
    "length_correlation_of_data": "  that of the data's own ranks",
    "accuracy_chosen_longer": "accuracy, the better is longer",
    "accuracy_chosen_shorter": "accuracy, the better is shorter",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "brier_scaled": "Brier score, scaled",
    "calibration_error_scaled": "calibration error, scaled",
    "gold_correlation": "rank correlation with gold",
    "gold_gain": "gold gained by the best of n",
}
CURVE = "gold_at_"


def print_measures(title: str, metrics: Mapping[str, Metric], subsets: Mapping[str, str], console: Console) -> None:
    """`metrics` are named `reward/...`; `subsets`: each as the data names it, and as metrics do."""
    known = {name.removeprefix("reward/"): metric for name, metric in metrics.items()}
    console.print(Text(plain(title), style="bold"))
    columns = {name: label for name, label in BY_SUBSET.items() if name in known}
    rows = [("all", ""), *((subset or "(none)", f"_{slug}") for subset, slug in subsets.items())]
    pairs = [
        [_count(known.get(f"accuracy{end}")), *(_text(known.get(f"{c}{end}")) for c in columns)] for _, end in rows
    ]
    console.print(
        _table(["", "pairs", *columns.values()], [[name, *cells] for (name, _), cells in zip(rows, pairs, strict=True)])
    )
    console.print(_table(["", ""], [[label, _text(known[name])] for name, label in SINGLE.items() if name in known]))
    if sizes := sorted(int(name.removeprefix(CURVE)) for name in known if name.startswith(CURVE)):
        curve = [
            [str(n), f"{best_of_n_kl_bound(n):.2f}", _text(known[f"proxy_at_{n}"]), _text(known[f"{CURVE}{n}"])]
            for n in sizes
        ]
        console.print(_table(["best of", "KL at most", "score", "gold"], curve))
    console.print(
        Text("± half a 95% interval, clustered by prompt; − and + its ends where they are not equally far.", "dim")
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    drawn = Table(
        box=box.SIMPLE_HEAD if any(header) else None, show_header=any(header), show_edge=False, pad_edge=False
    )
    for i, label in enumerate(header):
        drawn.add_column(label, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(plain(cell)) for cell in row))
    return drawn


def _count(metric: Metric | None) -> str:
    return str(metric.n) if metric else "–"


def _text(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    if math.isnan(metric.low):
        return f"{metric.value:.3f}"
    below, above = (f"{end:.3f}" for end in (metric.value - metric.low, metric.high - metric.value))
    return f"{metric.value:.3f} " + (f"±{above}" if below == above else f"−{below} +{above}")
