"""K responses to a prompt that were ranked or rated, in one row or in a row each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from alignbench import Ranking, functional
from alignbench_data.columns import Fields
from alignbench_data.content import prompt, prompt_messages, reply
from alignbench_data.formats.demonstrations import asked_and_reply
from alignbench_data.formats.form import RATING, Form, Rated, Record, Settings, annotator, items, number
from alignbench_data.reasons import Reason, Unusable

ASPECTS = (
    "helpfulness",
    "correctness",
    "coherence",
    "complexity",
    "verbosity",
    "honesty",
    "truthfulness",
    "instruction_following",
    "harmlessness",
    "overall_score",
    "rating",
    "score",
)
"""Columns that are known to hold a rating of the response beside them."""
_OWN = ("overall_score", "fine-grained_score", "score", "rating")
_VERDICTS = {0: (0, 0), 1: (0, 1), 2: (1, 0)}


def _ranked(fields: Fields, settings: Settings) -> list[Ranking]:
    if "prompt" in fields and "messages" in fields:
        raise Unusable(Reason.MALFORMED, "either 'prompt' or 'messages' is needed, not both")
    asked = prompt(fields, prompt_messages(fields), keep_id=settings.keep_ids)
    if "responses" not in fields:
        raise Unusable(Reason.MALFORMED, f"the key {fields.name('responses')!r} is missing")
    given = items(fields, "responses", "texts")
    if any(not isinstance(one, (str, Mapping, list)) for one in given):
        raise Unusable(Reason.MALFORMED, f"{fields.name('responses')!r} must be a list of texts")
    responses = tuple(reply(one, fields.name("responses")) for one in given)
    if len(responses) < 2:
        raise Unusable(Reason.MALFORMED, f"at least two responses are needed, not {len(responses)}")
    who = annotator(fields)
    if "pairwise" in fields:
        return _of_pairs(fields, asked, responses, who)
    finished = _finished(fields, len(responses))
    if "ranks" in fields.columns:
        ranks, scores = _ranks(fields, len(responses)), _scores(fields, given, settings) if "scores" in fields else []
        known = tuple(score for score in scores if score is not None)
        return [Ranking(asked, responses, ranks, finished, who, known if len(known) == len(responses) else ())]
    if "best" in fields:
        return [Ranking(asked, responses, _best(fields, len(responses)), finished, who)]
    places = [_rating(one.get("rank")) if isinstance(one, Mapping) else None for one in given]
    if None not in places:
        return [
            Ranking(
                asked, responses, functional.ranks_of([-place for place in places if place is not None]), finished, who
            )
        ]
    scores = _scores(fields, given, settings)
    rated = [i for i, score in enumerate(scores) if score is not None]
    if len(rated) < 2:
        raise Unusable(Reason.NOTHING_RANKED, "fewer than two of its responses have a rating")
    kept = tuple(score for score in scores if score is not None)
    return [
        Ranking(
            asked,
            tuple(responses[i] for i in rated),
            functional.ranks_of(kept),
            tuple(finished[i] for i in rated) if finished else (),
            who,
            kept,
        )
    ]


def _ranks(fields: Fields, responses: int) -> tuple[int, ...]:
    """From 0, wherever those of the row start; equal ranks are ties."""
    name = fields.name("ranks")
    ranks = items(fields, "ranks", "whole numbers")
    if not all(type(rank) is int for rank in ranks):  # to isinstance, true is a whole number
        raise Unusable(Reason.MALFORMED, f"{name!r} must be a list of whole numbers")
    if len(ranks) != responses:
        raise Unusable(Reason.MALFORMED, f"{responses} responses but {len(ranks)} {name}")
    order = sorted(set(ranks))
    return tuple(map(order.index, ranks))


def _finished(fields: Fields, responses: int) -> tuple[bool, ...]:
    if not fields.get("finished"):
        return ()
    finished = items(fields, "finished", "true or false")
    if not all(type(end) is bool for end in finished):
        raise Unusable(Reason.MALFORMED, f"{fields.name('finished')!r} must be a list of true or false")
    if len(finished) != responses:
        raise Unusable(Reason.MALFORMED, f"{responses} responses but {len(finished)} in {fields.name('finished')!r}")
    return tuple(finished)


def _best(fields: Fields, responses: int) -> tuple[int, ...]:
    """The number of the best one, from 0; nothing is said of the others."""
    best = number(fields.get("best"), fields.name("best"))
    if best not in range(responses):
        raise Unusable(Reason.MALFORMED, f"{fields.name('best')!r} is {best:g}, which is none of {responses} responses")
    return tuple(int(i != best) for i in range(responses))


def _of_pairs(fields: Fields, asked: Any, responses: Sequence[str], who: str) -> list[Ranking]:
    """A verdict on every pair, in order: 1 the first is better, 2 the second, 0 neither. They need not agree with any order of
    all, so each stays a ranking of its own."""
    verdicts = items(fields, "pairwise", "verdicts")
    pairs = list(itertools.combinations(responses, 2))
    if len(verdicts) != len(pairs):
        raise Unusable(
            Reason.MALFORMED, f"{len(pairs)} pairs of responses but {len(verdicts)} in {fields.name('pairwise')!r}"
        )
    if any(isinstance(verdict, bool) or verdict not in _VERDICTS for verdict in verdicts):
        raise Unusable(Reason.MALFORMED, f"{fields.name('pairwise')!r} must hold 0 (tie), 1 (first) or 2 (second)")
    return [Ranking(asked, pair, _VERDICTS[verdict], (), who) for pair, verdict in zip(pairs, verdicts, strict=True)]


def _scores(fields: Fields, given: Sequence[Any], settings: Settings) -> list[float | None]:
    """One for each response; None where it has no rating."""
    if "scores" in fields:
        scores = items(fields, "scores", "numbers")
        if len(scores) != len(given):
            raise Unusable(Reason.MALFORMED, f"{len(given)} responses but {len(scores)} {fields.name('scores')}")
        if all(isinstance(score, Mapping) for score in scores):
            fields.used.add(RATING)
            return [_of_ratings(score, settings) for score in scores]
        return [None if score is None else number(score, fields.name("scores")) for score in scores]
    if all(isinstance(one, Mapping) for one in given):
        fields.used.add(RATING)
        return [_of_object(one, settings) for one in given]
    raise Unusable(
        Reason.UNKNOWN_FORM,
        "the key 'ranks' is missing: the responses have neither ranks nor scores; name them by data.columns.ranks= or .scores=",
    )


def _of_object(response: Mapping[str, Any], settings: Settings) -> float | None:
    """A response with its ratings (UltraFeedback, arXiv 2310.01377): the mean of those that are named, or the chosen ones."""
    named = response.get("annotations")
    ratings = {**response, **(named if isinstance(named, Mapping) else {})}
    if settings.rating or settings.rating_weights:
        return _of_ratings(ratings, settings)
    if isinstance(named, Mapping) and named:
        values = [_rating(value) for value in named.values() if value is not None]
        return None if None in values or not values else sum(v for v in values if v is not None) / len(values)
    return next((value for key in _OWN if (value := _rating(response.get(key))) is not None), None)


def _of_ratings(ratings: Mapping[str, Any], settings: Settings) -> float | None:
    """The chosen rating, or the weighted sum; None where one of them is not given."""
    weights = {settings.rating: 1.0} if settings.rating else dict(settings.rating_weights)
    if not weights:
        weights = {name: 1.0 / len(ratings) for name in ratings}
    for name in weights:
        if name not in ratings:
            known = ", ".join(key for key, value in ratings.items() if _rating(value) is not None)
            raise Unusable(Reason.MALFORMED, f"no rating {name!r} (ratings: {known or 'none'}): choose by data.rating=")
    values = [_rating(ratings[name]) for name in weights]
    found = [weight * value for weight, value in zip(weights.values(), values, strict=True) if value is not None]
    return sum(found) if len(found) == len(weights) else None


def _rating(value: Any) -> float | None:
    """A number, perhaps in an object or as text; None for N/A and the like."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("Rating", "rating", "score") if key in value), None)
    if value is None or isinstance(value, bool):
        return None
    try:
        return number(value, "rating")
    except Unusable:
        return None


def _aspects(fields: Fields, settings: Settings) -> list[str]:
    """The columns of this row that rate its response; those that were chosen, where some were."""
    if settings.rating or settings.rating_weights:
        return [settings.rating] if settings.rating else list(settings.rating_weights)
    return [name for name in ASPECTS if _rating(fields.row.get(name)) is not None]


def _rated(fields: Fields, settings: Settings) -> list[Rated]:
    """One response and its ratings (HelpSteer, arXiv 2311.09528); others to the same prompt stand in other rows."""
    fields.used.add(RATING)
    names = _aspects(fields, settings)
    if len(names) > 1 and not (settings.rating or settings.rating_weights):
        raise Unusable(
            Reason.UNKNOWN_FORM,
            f"several ratings ({', '.join(names)}): choose one by data.rating={names[0]}, or weigh them by "
            f"data.rating_weights.{names[0]}=1",
        )
    ratings = {str(name): value for name, value in fields.row.items() if _rating(value) is not None or name in names}
    score = _of_ratings(
        ratings if settings.rating or settings.rating_weights else {names[0]: ratings[names[0]]}, settings
    )
    if score is None:
        raise Unusable(Reason.NOTHING_RANKED, f"the response has no rating in {', '.join(names)}")
    turns, response = asked_and_reply(fields)
    return [Rated(prompt(fields, turns, keep_id=settings.keep_ids), response, score)]


class RankedResponses(Form):
    name = "ranked responses"
    needs = (("responses", "ranks"),)

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _ranked(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return "responses" in fields or isinstance(fields.get("ranks"), list)


class RatedResponses(Form):
    name = "rated responses"
    needs = (("response", "messages"),)

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _rated(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return bool(_aspects(fields, settings))
