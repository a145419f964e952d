"""What is set aside or cut of rankings and pairs before anything learns from them: counted, for the record, and said."""

from __future__ import annotations

from collections.abc import Mapping

from alignbench import functional
from alignbench.contracts import Policy
from alignbench.pipeline.stages import Rankings
from alignbench.results.disk.record import FEEDBACK

LOST = {
    "rankings_over_window": "rankings set aside, their prompt over {prompt} tokens",
    "rankings_without_pairs": "rankings say nothing: all ties, or responses that are the same",
    "responses_truncated": "ranked responses cut at {response} tokens",
    "pairs_dropped": "pairs dropped, alike once cut at {response} tokens",
    "pairs_truncated": "pairs have a response that is cut at {response} tokens",
    "labelled_over_window": "labelled responses set aside, their prompt over {prompt} tokens",
    "labelled_truncated": "labelled responses cut at {response} tokens",
}
"""What a count is of, in the words of the terminal."""
WHOLE = {
    "rankings_over_window": "rankings",
    "rankings_without_pairs": "rankings",
    "responses_truncated": "responses",
    "labelled_over_window": "labelled",
    "labelled_truncated": "labelled",
}


def of_rankings(policy: Policy, rankings: Rankings | None) -> dict[str, int]:
    """The same for a reward source and for an algorithm that learns from pairs: both read these rankings."""
    if rankings is None:
        return {}
    used = [*rankings.train, *rankings.held_out]
    finished = [end for r in used for end in (r.finished or (True,) * len(r.responses))]
    rows = policy.response_tokens([text for r in used for text in r.responses], finished)
    return {
        "rankings": len(used) + rankings.over_window,
        "rankings_over_window": rankings.over_window,
        "rankings_without_pairs": sum(not functional.ranking_to_pairs(ranking) for ranking in used),
        "responses": len(rows),
        "responses_truncated": sum(
            end and len(row) > policy.max_response_tokens for end, row in zip(finished, rows, strict=True)
        ),
    }


def for_record(counts: Mapping[str, int]) -> dict[str, int]:
    """Under names that no data source's own counts have."""
    return {f"{FEEDBACK}/{name}": count for name, count in counts.items()}


def lines(counts: Mapping[str, int], policy: Policy) -> list[str]:
    """One for each loss, none where nothing is lost; and how the labels lie, where there are any."""
    pairs = counts.get("pairs", 0) + counts.get("pairs_dropped", 0)
    limits = {"prompt": policy.max_prompt_tokens, "response": policy.max_response_tokens}
    lost = [
        f"  {counts[name]} of {counts[WHOLE[name]] if name in WHOLE else pairs} {text.format(**limits)}"
        for name, text in LOST.items()
        if counts.get(name)
    ]
    if counts.get("labelled"):
        lost.append(f"  {counts['labelled_good']} responses are called good and {counts['labelled_bad']} bad")
    return lost
