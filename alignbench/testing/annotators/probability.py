"""Checks of the probability that an annotator states: against how often it prefers so, and against the utility that it names."""

from __future__ import annotations

import math

from alignbench.plugins import Component
from alignbench.testing.annotators.base import RESPONSES, asking, stated_pairs
from alignbench.testing.checks import CheckList, NotApplicable, PropertyBroken

SEEDS, FEW_SEEDS = 600, 60
"""Annotators that are asked; few where each pair is certain or a toss-up."""
CHANCE = 1 / 300_000
"""Of either tail of a binomial: a frequency that is less likely under the stated probability is no chance."""
FAR = 4.5
"""Standard errors of a mean over pairs: chance alone goes so far once in 150,000 times."""

check = CheckList()


@check(
    causes="the two responses or their `finished` exchanged, a logit in place of a probability, or a `knows_probabilities` that is not so."
)
def preference_is_a_probability(component: Component, seed: int) -> None:
    """`preference` is 0 to 1, the other way round the rest of 1, and .5 of a response and itself; None for all pairs or for none,
    as `knows_probabilities` says."""
    stated = False
    for bench in asking(component, seed):
        annotator = bench.build(seed)
        pairs = list(stated_pairs(annotator, bench.questions))
        if annotator.knows_probabilities != bool(pairs):
            raise PropertyBroken(
                f"`knows_probabilities` is {annotator.knows_probabilities}, and {len(pairs)} pairs have a probability."
            )
        if not pairs:
            continue
        stated = True
        for (prompt, texts, ends), a, b, p in pairs:
            back = annotator.preference(prompt, texts[b], texts[a], finished=(ends[b], ends[a]))
            if not 0 <= p <= 1 or back is None or not abs(p + back - 1) <= 1e-9:
                raise PropertyBroken(f"{texts[a]!r} over {texts[b]!r} has {p:g}, and the other way round {back}.")
            same = annotator.preference(prompt, texts[a], texts[a], finished=(ends[a], ends[a]))
            if same is None or not abs(same - 0.5) <= 1e-9:
                raise PropertyBroken(f"{texts[a]!r} is preferred to itself with {same}.")
        if len(pairs) != len(bench.questions) * math.comb(RESPONSES, 2):
            raise PropertyBroken("It states a probability of some pairs and None of others.")
    if not stated:
        raise NotApplicable("it states no probability")


@check(
    causes="noise of another scale or distribution than the probability is computed with, or a term that only one of them has."
)
def probability_agrees_with_frequency(component: Component, seed: int) -> None:
    """How often a response is ranked before another, over many seeds and among several, agrees with `preference`."""
    stated = False
    for bench in asking(component, seed):
        annotator = bench.build(seed)
        pairs = [row for row in stated_pairs(annotator, bench.questions) if row[0][1][row[1]] != row[0][1][row[2]]]
        if not pairs:
            continue
        stated = True
        kinds = {p for *_, p in pairs}
        trials = 1 if kinds <= {0.0, 1.0} else FEW_SEEDS if kinds <= {0.0, 0.5, 1.0} else SEEDS
        wins = [0.0] * len(pairs)
        for trial in range(trials):
            one = bench.build(1000 * seed + trial)
            ranks = {
                id(question): one.rank(question[0], question[1], finished=question[2]) for question in bench.questions
            }
            for i, (question, a, b, _) in enumerate(pairs):
                mine, theirs = ranks[id(question)][a], ranks[id(question)][b]
                wins[i] += 0.5 * ((mine < theirs) + (mine <= theirs))
        total = squares = 0.0
        for (question, a, b, p), won in zip(pairs, wins, strict=True):
            if not plausible(won, trials, p):
                raise PropertyBroken(
                    f"{question[1][a]!r} is preferred to {question[1][b]!r} with {p:.3g} as stated, and in {won / trials:.3g} of "
                    f"{trials} rankings."
                )
            if p not in (0.0, 0.5, 1.0):
                total += (won / trials - p) * (1 if p > 0.5 else -1)
                squares += max(p * (1 - p), 1 / trials / 4) / trials
        # Pairs of one question are not independent: four of six at most move together.
        if not abs(total) <= FAR * 2 * math.sqrt(squares):
            raise PropertyBroken(
                f"The preferred response is ranked first {total / len(pairs):+.4f} more often than stated, on average over "
                f"{len(pairs)} pairs and {trials} seeds."
            )
    if not stated:
        raise NotApplicable("it states no probability")


def plausible(won: float, trials: int, p: float) -> bool:
    """Whether chance alone wins so often, a tie counted as half: by the binomial's own tails, since its normal approximation is far
    too narrow for what is rare. What is certain has no chance."""
    from scipy.stats import binom  # slow to import

    if p in (0.0, 1.0):
        return won == p * trials
    above, below = binom.sf(math.floor(won) - 1, trials, p), binom.cdf(math.ceil(won), trials, p)
    return bool(min(above, below) >= CHANCE)


@check(
    causes="a term of the utility that `features` or `utility_terms` leaves out, or a weight that is not its option's."
)
def terms_make_the_utility(component: Component, seed: int) -> None:
    """Where it names its terms, the logit of `preference` is the difference of weights times features, up to one scale, and what is
    certain is of higher utility; each weight is the option that the term names, and its `low` is below its `high`."""
    named = False
    for bench in asking(component, seed):
        annotator, config = bench.build(seed), bench.component.config()
        if not (terms := annotator.utility_terms()):
            continue
        named = True
        for term in terms:
            if getattr(config, term.setting, None) != term.weight or not term.low < term.high:
                raise PropertyBroken(
                    f"The term {term.label!r} has the weight {term.weight}, {term.low} to {term.high}."
                )
        for prompt, texts, ends in bench.questions:
            for text, end in zip(texts, ends, strict=True):
                if len(found := annotator.features(prompt, text, finished=end)) != len(terms):
                    raise PropertyBroken(f"It gave {len(found)} features for {len(terms)} terms.")
        rows = []
        for (prompt, texts, ends), a, b, p in stated_pairs(annotator, bench.questions):
            one, other = (annotator.features(prompt, texts[i], finished=ends[i]) for i in (a, b))
            gap = sum(term.weight * (x - y) for term, x, y in zip(terms, one, other, strict=True))
            if 1e-6 < p < 1 - 1e-6:
                rows.append((gap, math.log(p / (1 - p))))
            elif not (p - 0.5) * gap >= -1e-9:
                raise PropertyBroken(
                    f"{texts[a]!r} is preferred to {texts[b]!r} with {p:g}, and its utility is {gap:g} higher."
                )
        scale = sum(x * y for x, y in rows) / max(sum(x * x for x, _ in rows), 1e-12)
        # Where all that is unsure is a tie, there is no scale to be seen.
        tied = all(abs(x) <= 1e-9 and abs(y) <= 1e-9 for x, y in rows)
        if not tied and (not scale > 0 or not all(abs(scale * x - y) <= 1e-6 * max(abs(y), 1) for x, y in rows)):
            raise PropertyBroken("The logit of `preference` is no multiple of the difference in utility.")
    if not named:
        raise NotApplicable("it names no terms")
