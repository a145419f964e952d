"""Two responses and who won: tables of comparisons, as arenas write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignbench import Message, Ranking, unknown_name
from alignbench_data.columns import Fields, unpacked
from alignbench_data.content import conversation, is_conversation, prompt, prompt_messages, reply
from alignbench_data.formats.form import Form, Record, Settings, annotator, is_empty, number, number_of
from alignbench_data.reasons import Reason, Unusable

A, B, TIE = (0, 1), (1, 0), (0, 0)
_MEANT = {"a": A, "b": B, "tie": TIE}
_WORDS = {
    **dict.fromkeys(("a", "model_a", "response_a", "answer_a", "first", "left", "assistant_a"), A),
    **dict.fromkeys(("b", "model_b", "response_b", "answer_b", "second", "right", "assistant_b"), B),
    **dict.fromkeys(
        (
            "tie",
            "ties",
            "tie (bothbad)",
            "tie_bothbad",
            "bothbad",
            "both_bad",
            "both bad",
            "both",
            "equal",
            "draw",
            "neither",
        ),
        TIE,
    ),
}
_VERDICT = ("winner", "preference")
_ONE_HOT = {"winner_model_a": A, "winner_model_b": B, "winner_tie": TIE}


def check_values(given: dict[str, str]) -> None:
    """Raises UserError for a meaning that there is not."""
    for value, meaning in given.items():
        if meaning not in _MEANT:
            raise unknown_name("winner", meaning, _MEANT, where=f"data.winner_values.{value}")


def _parse(fields: Fields, settings: Settings) -> list[Ranking]:
    asked, first, second = _two(fields)
    if not first.strip() or not second.strip():
        raise Unusable(
            Reason.EMPTY_RESPONSE, f"{fields.name('response_b' if first.strip() else 'response_a')!r} is empty"
        )
    if first == second:
        raise Unusable(Reason.IDENTICAL, "the two responses are the same")
    of = prompt(fields, asked, keep_id=settings.keep_ids)
    if "preference" not in fields:
        return [Ranking(of, (first, second), _won(fields, settings), annotator=annotator(fields))]
    return [_signed(of, (first, second), value, who) for value, who in _verdicts(fields)]


def _signed(of: Any, responses: tuple[str, str], value: float, who: str) -> Ranking:
    """Below zero the first is better, above it the second, by as much as the number says."""
    ranks = A if value < 0 else B if value > 0 else TIE
    return Ranking(of, responses, ranks, annotator=who, scores=(max(-value, 0.0), max(value, 0.0)))


def _verdicts(fields: Fields) -> list[tuple[float, str]]:
    """One for all, or one of each annotator."""
    value, name = unpacked(fields.get("preference")), fields.name("preference")
    if is_empty(value):
        raise Unusable(Reason.NO_VERDICT, f"{name!r} is empty")
    if not isinstance(value, list):
        return [(number(value, name), annotator(fields))]
    given = [one.get("score") if isinstance(one, dict) else one for one in value]
    if not given:
        raise Unusable(Reason.NO_VERDICT, f"{name!r} is empty")
    return [(number(one, name), f"annotator {i}") for i, one in enumerate(given, start=1)]


def _two(fields: Fields) -> tuple[list[Message], str, str]:
    """The conversation and the two replies that end it."""
    values = [unpacked(fields.get(role)) for role in ("response_a", "response_b")]
    if all(is_conversation(value) for value in values):
        first, second = (
            _until(conversation(value, fields.name(role)), fields)
            for value, role in zip(values, ("response_a", "response_b"), strict=True)
        )
        if not all(turns and turns[-1].role == "assistant" for turns in (first, second)):
            raise Unusable(Reason.NO_REPLY, "both conversations must end in an assistant's turn")
        if first[0].role == "assistant" and "prompt" in fields:
            asked = prompt_messages(fields)
            first, second = [*asked, *first], [*asked, *second]
        if first[:-1] != second[:-1]:
            raise Unusable(Reason.DIVERGING, "the two conversations differ before the last reply")
        return first[:-1], first[-1].content, second[-1].content
    asked_of = unpacked(fields.get("prompt"))
    if all(_texts(value) for value in (asked_of, *values)):  # lists of turns
        if len(asked_of) != 1 or len(values[0]) != 1 or len(values[1]) != 1:
            raise Unusable(Reason.DIVERGING, "the two conversations differ before the last reply")
        return [Message("user", asked_of[0])], values[0][0], values[1][0]
    first, second = (reply(fields.get(role), fields.name(role)) for role in ("response_a", "response_b"))
    return prompt_messages(fields), first, second


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)


def _until(turns: list[Message], fields: Fields) -> list[Message]:
    """As far as the verdict goes: a judge of a first turn has not seen the second."""
    last = number_of(fields, "turn")
    ends = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    return turns[: ends[int(last) - 1] + 1] if last is not None and 1 <= last <= len(ends) else turns


def _won(fields: Fields, settings: Settings) -> tuple[int, int]:
    if "winner" not in fields:
        hot = [ranks for name, ranks in _ONE_HOT.items() if str(fields.row.get(name)).lower() in ("1", "1.0", "true")]
        if len(hot) != 1:
            raise Unusable(Reason.NO_VERDICT, "no winner is given")
        return hot[0]
    value, name = fields.get("winner"), fields.name("winner")
    if is_empty(value):
        raise Unusable(Reason.NO_VERDICT, f"{name!r} is empty")
    said = str(value).strip().removesuffix(".0")
    if said in settings.winner_values:
        return _MEANT[settings.winner_values[said]]
    if not settings.winner_values:
        if (found := _WORDS.get(said.lower()) or _by_model(fields, said)) is not None:
            return found
        if (found := _by_number(fields, said)) is not None:
            return found
    raise Unusable(
        Reason.MALFORMED,
        f"{name!r} is {said[:40]!a}, which names no winner: say what it means by data.winner_values.{said[:40]}=a (or b, tie)",
    )


def _by_model(fields: Fields, said: str) -> tuple[int, int] | None:
    models = [fields.row.get("model_a"), fields.row.get("model_b")]
    return (A, B)[models.index(said)] if said in models and models[0] != models[1] else None


def _by_number(fields: Fields, said: str) -> tuple[int, int] | None:
    """Where the columns of the responses are numbered, the winner's number."""
    ends = [fields.name(role)[-1:] for role in ("response_a", "response_b")]
    return (A, B)[ends.index(said)] if said in ends and said.isdigit() and ends[0].isdigit() else None


def _has_verdict(fields: Fields, settings: Settings) -> bool:
    return any(role in fields.columns for role in _VERDICT) or any(key in fields.row for key in _ONE_HOT)


class Comparisons(Form):
    name = "comparisons"
    needs = (("response_a",), ("response_b",))
    verdict = _VERDICT

    def parse(self, fields: Fields, settings: Settings) -> Sequence[Record]:
        return _parse(fields, settings)

    def fits(self, fields: Fields, settings: Settings) -> bool:
        return _has_verdict(fields, settings)
