"""What a table says, in sentences: of each two rows, which primary metrics differ and which can't be told apart.

No sentence says more than its test. Where the rows are few, each two of them are compared, and all of these tests are corrected for one
another; else each row is compared with its baseline, as in the table of differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

from alignbench.results.compared.examples import Examples
from alignbench.results.compared.paired import MOST_SEEDS, Difference, between
from alignbench.results.compared.table import Row, Table

MOST_ROWS = 4
"""Of which each two are compared: six pairs."""
MOST_LINES = 12


def tests(
    table: Table, differences: Sequence[Difference], examples: Examples, primary: Sequence[str], baseline: str = ""
) -> tuple[Difference, ...]:
    """What a verdict rests on. `differences` are those of the table, from the row labelled `baseline` where that is given."""
    trained = [row for row in table.rows if not row.baseline]
    if not baseline and 1 < len(trained) <= MOST_ROWS:
        return between(_pairs(trained, primary), table, examples, primary, primary)
    labels = {row.label for row in trained}
    return tuple(d for d in differences if d.primary and d.row in labels)


def verdict(compared: Sequence[Difference]) -> tuple[str, ...]:
    """A sentence for each two rows of `tests`, and one of the correction, which is not the table's where each two are compared."""
    by_pair: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Difference]] = {}
    for difference in compared:
        by_pair.setdefault((difference.row, difference.baseline), []).append(difference)
    lines = [_sentence(found) for found in by_pair.values()]
    more = [f"And {len(lines) - MOST_LINES} more rows: see the differences."] if len(lines) > MOST_LINES else []
    return (*lines[:MOST_LINES], *_correction(compared), *more)


def _correction(compared: Sequence[Difference]) -> Iterable[str]:
    corrected = max((d.tests for d in compared), default=0)
    if corrected > 1:
        yield f"Told apart means p < 5% after Holm's correction for {corrected} differences."


def _pairs(rows: Sequence[Row], primary: Sequence[str]) -> list[tuple[Row, Row]]:
    """Each two, the one with more of the first primary metric first."""

    def value(row: Row) -> float:
        return next((row.cells[name].value for name in primary if name in row.cells), -math.inf)

    return list(combinations(sorted(rows, key=value, reverse=True), 2))


def _sentence(found: Sequence[Difference]) -> str:
    row, other = (" ".join(label) for label in (found[0].row, found[0].baseline))
    told = [_told(d) for d in found if d.significant]
    open_ = [_open(d) for d in found if not d.significant]
    parts = [f"{', '.join(told)}"] if told else []
    parts += [f"can't be told apart in {', '.join(open_)}"] if open_ else []
    return f"{row} against {other} ({_over(found)}): {'; '.join(parts)}."


def _over(found: Iterable[Difference]) -> str:
    seeds = sorted({d.seeds for d in found})
    if seeds == [1]:
        return "one seed: training noise is left out"
    if len(seeds) == 1:
        return f"{seeds[0]} seeds"
    return f"{seeds[0]} to {seeds[-1]} seeds" + (": of one, training noise is left out" if seeds[0] == 1 else "")


def _told(d: Difference) -> str:
    low, high = sorted((abs(d.low), abs(d.high)))
    value, low_told, high_told = _figures((abs(d.value), low, high), nearest=low)
    return f"{'higher' if d.value > 0 else 'lower'} {words(d.metric)} by {value} ({low_told} to {high_told})"


def _open(d: Difference) -> str:
    """With what it would take to tell a difference like the one that was seen."""
    if d.value == 0:
        return f"{words(d.metric)} (equal)"
    if math.isnan(d.low):
        return f"{words(d.metric)} ({d.value:+.2f}: no score varies, so that nothing says how sure that is)"
    value, low, high = _figures((d.value, d.low, d.high), "+")
    seen = f"{value}, {low} to {high}"
    seen += "" if d.low <= 0 <= d.high else " before correction"
    if math.isnan(d.seeds_needed):
        return f"{words(d.metric)} ({seen})"
    if math.isinf(d.seeds_needed):
        return f"{words(d.metric)} ({seen}: not by {MOST_SEEDS} seeds on these prompts)"
    return f"{words(d.metric)} ({seen}: takes about {max(d.seeds_needed, d.seeds + 1):.0f} seeds)"


def words(metric: str) -> str:
    """A metric's name in a sentence: `helpfulness/gold_reward` is gold reward, `sycophancy/agreement` sycophancy agreement."""
    family, _, name = metric.partition("/")
    if name.lower() == "kl":
        return "KL"
    return (name if "_" in name else f"{family} {name}").replace("_", " ").strip()


def _figures(figures: tuple[float, float, float], sign: str = "", *, nearest: float = math.inf) -> Iterable[str]:
    """A difference and the ends of its interval, all to as many decimals: two, and more where half the interval, or the end that is
    `nearest` to no difference at all, would have no digit left."""
    _, low, high = figures
    finest = min((x for x in ((high - low) / 2, nearest) if x > 0), default=1.0)  # NaN is not
    decimals = max(2, min(6, math.ceil(-math.log10(finest))))
    texts = (f"{figure:{sign}.{decimals}f}" for figure in figures)
    return (text if float(text) else text.lstrip("+-") for text in texts)  # 0.00 has no sign
