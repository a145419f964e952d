"""The forms that are known, the surest first: a row is read by the first that recognises it."""

from __future__ import annotations

import difflib

from alignbench_data.columns import Fields
from alignbench_data.formats.benchmarks import LabelledPairs, RewardBench2, RMBench
from alignbench_data.formats.comparisons import Comparisons
from alignbench_data.formats.demonstrations import Conversations, Demonstrations, DialogueTexts, Lines, Prompts
from alignbench_data.formats.form import Form, Settings, is_empty
from alignbench_data.formats.labels import Labels
from alignbench_data.formats.pairs import Dialogues, Pairs
from alignbench_data.formats.ratings import RankedResponses, RatedResponses
from alignbench_data.formats.trees import Trees
from alignbench_data.reasons import Reason, Unusable

_SUREST_FIRST: tuple[type[Form], ...] = (
    Trees,
    RewardBench2,
    RMBench,
    Dialogues,
    Pairs,
    LabelledPairs,
    Comparisons,
    RankedResponses,
    Labels,
    RatedResponses,
    Demonstrations,
    Conversations,
    DialogueTexts,
    Prompts,
    Lines,
)
FORMS: tuple[Form, ...] = tuple(form(None) for form in _SUREST_FIRST)

_BY_CONTENT = (Trees, RewardBench2, RMBench, Dialogues)
"""Known by what their columns hold, not by which there are: none of them is what a lost column would make."""


_TWO = (("chosen", "rejected"), ("response_a", "response_b"))
_WITHOUT = {
    **dict.fromkeys(("prompt", "input", "messages", "text"), Reason.NO_PROMPT),
    **dict.fromkeys(("chosen", "rejected", "response", "responses", "response_a", "response_b"), Reason.EMPTY_RESPONSE),
}
"""What a row is without where the column of a role is empty; without any other it has no verdict."""


def form_of(fields: Fields, settings: Settings) -> Form | None:
    """The form of a row. Raises Unusable where a column is empty that it would be known by: without it, it is no other form."""
    for couple in _TWO:
        empty = [role for role in couple if role not in fields]
        if len(empty) == 1 and fields.there(empty[0]):
            raise _empty(fields, empty[0])
    found = next((form for form in FORMS if form.recognises(fields, settings)), None)
    if found is None and (role := _emptied(fields)):
        raise _empty(fields, role)
    return found


def _emptied(fields: Fields) -> str:
    """The role whose column is empty, where all that a form is known by is there."""
    for form in FORMS:
        if not isinstance(form, _BY_CONTENT) and all(any(map(fields.there, roles)) for roles in form.needs):
            for roles in form.needs:
                if all(is_empty(fields.values.get(role)) for role in roles):
                    return next(filter(fields.there, roles))
    return ""


def _empty(fields: Fields, role: str) -> Unusable:
    return Unusable(_WITHOUT.get(role, Reason.NO_VERDICT), f"{fields.name(role)!r} is empty")


def nearest(fields: Fields) -> str:
    """Which form a row is closest to and what it lacks for that, as a sentence; empty where it is close to none.

    No form recognised the row: one whose columns are all there lacks the verdict that it asks for."""
    verdict_of = {form.name: [" or ".join(form.verdict)] for form in FORMS if form.verdict and not form.lacks(fields)}
    lacking_of = [
        (form, verdict_of.get(form.name) or form.lacks(fields)) for form in FORMS if not isinstance(form, _BY_CONTENT)
    ]
    partly = [(len(lacking), form, lacking) for form, lacking in lacking_of if 0 < len(lacking) < len(form.needs)]
    if not partly:
        return ""
    _, form, lacking = min(partly, key=lambda found: (found[1].name not in verdict_of, found[0]))
    free = [str(name) for name in fields.row if name not in fields.columns.values()]
    roles = lacking[0].split(" or ")
    near = [name for role in roles for name in difflib.get_close_matches(role, free, n=1)]
    column, role = next(iter(near), "<column>"), roles[0]
    return f"closest is {form.name}, which lacks {' and '.join(lacking)}: name it by data.columns.{role}={column}"
