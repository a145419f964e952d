"""What the sums and their demonstrator must be, for the conformance kit."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from alignbench import DataSource, Known, Split


def arithmetic() -> list[Known]:
    """A question for a sum, which is its reference and, in signs, the only right response (in words a sentence may come to it); a+b and b+a in one cluster; as many prompts of each difficulty; a
    demonstrator that errs as often as its option says."""

    def gives(config: Any, source: DataSource) -> str:
        train = source.prompts(Split.TRAIN)
        for prompt in (*train[:500], *source.prompts(Split.EVALUATION)):
            left, right = _asked(prompt.text)
            total, carries = str(left + right), left % 10 + right % 10 > 9
            kind = "one_digit" if left < 10 and right < 10 else "carry" if carries else "two_digits"
            if prompt.reference is None or prompt.reference.answer != total or prompt.subset != kind:
                return f"{prompt.text} has the reference {prompt.reference} and is called {prompt.subset}."
            if prompt.cluster != f"{min(left, right)}+{max(left, right)}":
                return f"{prompt.text} is of the cluster {prompt.cluster}."
            in_words, sentence = config.wording == "words", f"{left} plus {right} is {total}."
            for response, finished in (
                (total, True),
                (total, False),
                (f"{total}5", True),
                ("", True),
                (sentence, True),
            ):
                verdict = source.judge(prompt, response, finished=finished)
                wanted = finished and (response == total or (in_words and response == sentence))
                if verdict is None or (verdict.gold_reward, verdict.correct) != (float(wanted), wanted):
                    return f"{response!r} to {prompt.text} (finished: {finished}) gets {verdict}."
        held_out = {prompt.cluster for prompt in source.prompts(Split.EVALUATION)}
        if both := held_out & {prompt.cluster for prompt in train}:
            return f"The sum {min(both)} is held out and learnt, the other way round."
        kinds = Counter(prompt.subset for prompt in train)
        for kind, count in kinds.items():
            if abs(count / len(train) - 1 / 3) > 5 * math.sqrt(2 / 9 / len(train)):
                return f"{count} of {len(train)} training prompts are {kind}: a third is stated."
        errs = [
            re.findall(r"\d+", one.response)[-1] != one.prompt.reference.answer
            for one in source.demonstrations()
            if one.prompt.reference
        ]
        share, error = config.demonstrator_errs, math.sqrt(max(config.demonstrator_errs, 1e-3) / len(errs))
        if abs(sum(errs) / len(errs) - share) > 5 * error:
            return f"The demonstrator errs in {sum(errs) / len(errs):.3f} of its responses, where {share:g} is stated."
        return ""

    return [
        Known({}, gives),
        Known({"demonstrator_errs": 0.2, "evaluation_prompts": 60}, gives),
        Known({"wording": "words"}, gives),
    ]


def _asked(text: str) -> tuple[int, int]:
    """Of 27+38= or of What is 27 plus 38?"""
    left, right = re.findall(r"\d+", text)
    return int(left), int(right)
