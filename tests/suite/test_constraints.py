"""Constraints that IFEval lacks: each with responses that follow it and that do not, by what its sentence says."""

from __future__ import annotations

from collections import defaultdict

import pytest
from alignbench_suite.config import HelpfulnessConfig
from alignbench_suite.helpfulness.evaluation import Helpfulness
from alignbench_suite.lm_eval_runner import CONSTRAINTS_SPECS, run_tasks
from alignbench_suite.tasks.files import own
from alignbench_suite.tasks.helpfulness.constraints import CHECKS, follows, process_results, readings

from alignbench import UserError
from tests.suite import ordinary

KEYWORDS = {f"keyword{i}": word for i, word in enumerate(("gate", "rose", "bee", "pond", "hay"), 1)}
NESTED = "I (and [you {or (she [he])}]) went."
CASES = [
    ("count:word_count_range", {"min_words": 2, "max_words": 3}, ["one two", "one, two - three."], ["one", "a b c d"]),
    ("count:unique_word_count", {"N": 3}, ["a b c", "A, b! c a"], ["a b A"]),
    ("count:conjunctions", {"small_n": 3}, ["Yes, and so, but no.", "For me or you, yet..."], ["and and but", "android"]),
    ("count:numbers", {"N": 2}, ["From 1,200 to 3.5", "1 and 2"], ["three", "1 2 3", "12"]),
    ("count:punctuation", {}, ["A: b; c, d. E! F? G?!", "What!? A: b; c, d. E! F?"], ["A: b; c, d. E! F?", "a?!"]),
    ("count:keywords_multiple", KEYWORDS, [" ".join(w for w, n in zip(KEYWORDS.values(), (1, 2, 3, 5, 7), strict=True) for _ in range(n))], ["gate rose bee", "gates"]),
    ("ratio:sentence_type", {}, ["I go. Do you? He stays.", 'Dr. Wu came. "Why?" She left.'], ["I go. I stay.", "I go. Do you?"]),
    ("ratio:sentence_balance", {}, ["One. Two? Three!"], ["One. Two?", "One two three"]),
    ("words:alphabet", {}, ["Ants bring crumbs.", "Yes, zebras always"], ["Ants crawl", "1 apple"]),
    ("words:vowel", {}, ["the eel eeked out"], ["alpha igloo under", "a\nb"]),
    ("words:consonants", {}, ["Strong crypts."], ["alone", "strong oak"]),
    ("words:palindrome", {}, ["level " * 10, "civic, radar, level, rotor, kayak, madam, refer, solos, stats, tenet"], ["level " * 9, "noon " * 10]),
    ("words:prime_lengths", {}, ["It was an oddly"], ["a cat", "The bird"]),
    ("words:repeats", {"small_n": 2}, ["a b a b"], ["The cat, the dog, the hen"]),
    ("words:last_first", {}, ["I saw a dog. Dog days came."], ["I saw a dog. Cats came.", "One sentence alone."]),
    ("words:paragraph_last_first", {}, ["Home is where I call home.\n\nStay here, please stay!"], ["Home it is.", "Home"]),
    ("words:no_consecutive", {}, ["The cat sat down"], ["The tall man", "So, she"]),
    ("words:words_position", {"keyword": "water"}, ["The water was cold water indeed."], ["Water is water", "The river ran.", "The water ran over stones."]),
    ("sentence:keyword", {"word": "lantern", "N": 2}, ["Hello. A lantern shone."], ["A lantern. Hello.", "Lanterns."]),
    ("sentence:increment", {"small_n": 2}, ["It flew. It flew up high. It flew up high and back."], ["It flew. It flew up.", "It flew."]),
    ("format:parentheses", {}, [NESTED], [NESTED.replace("])}", ")]}"), "((((a))))", "(((((", "no"]),
    ("format:newline", {}, ["red\n\nand\nblue."], ["red and\nblue"]),
    ("format:line_indent", {}, ["one\n two\n   three"], ["one\ntwo", " one\n two", "one"]),
    ("format:options", {"options": "yes/no/maybe"}, ["Yes.", "no", "**Maybe**"], ["yes, it is", "yes/no"]),
    ("format:list", {"sep": "!?!?"}, ["!?!? fig\n!?!? pear"], ["!?!? fig", "- fig\n- pear", "Here:\n!?!? fig\n!?!? pear"]),
    ("format:sub-bullets", {}, ["* a\n  - b\n* c\n  - d\n  - e"], ["* a\n* b\n - c", "- b", "* a\n- b\n* c"]),
    ("format:no_bullets_bullets", {}, ["One is. Two is.\n* a\n* b"], ["One is.\n* a\n* b", "* a\n* b\nOne. Two.", "One. Two.\n* a"]),
    ("format:output_template", {}, ["My Answer: yes My Conclusion: so Future Outlook: bright"], ["My Answer: yes", "My Conclusion: a My Answer: b Future Outlook: c"]),
    ("format:no_whitespace", {}, ["BlueBoat"], ["Blue Boat", "Blue\nBoat"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES, ids=[case[0] for case in CASES])
def test_what_follows_a_constraint_and_what_does_not(
    name: str, arguments: dict[str, object], good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert follows(text, name, {**arguments, "unused": None}), text
        assert follows(f"\n{text}\n", name, arguments), "a newline at an end is no part of it"
    for text in [*bad, "", " \n", "...", "-"]:
        assert not follows(text, name, arguments), text


def test_every_constraint_has_its_cases_and_every_prompt_its_checker() -> None:
    assert {case[0] for case in CASES} == set(CHECKS)
    rows = own("constraints")
    assert len({row["id"] for row in rows}) == len(rows) == 32
    for row in rows:
        for name, arguments in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            assert follows("word", name, arguments) in (True, False)
    assert {name for row in rows for name in row["instruction_id_list"]} == set(CHECKS)


def test_loose_is_any_of_eight_readings_and_strict_the_text_itself() -> None:
    assert len(list(readings("a\nb\nc"))) == 8
    asked = {"instruction_id_list": ["format:options"], "kwargs": [{"options": "yes/no"}]}
    wrapped = "Here is my answer:\n*yes*\nI hope that this helps."
    assert process_results(asked, [wrapped]) == {"ifbench_style_strict": 0.0, "ifbench_style_loose": 1.0}
    assert process_results(asked, ["No"]) == {"ifbench_style_strict": 1.0, "ifbench_style_loose": 1.0}
    both = {"instruction_id_list": ["format:options"] * 2, "kwargs": [{"options": "yes"}, {"options": "no"}]}
    assert process_results(both, ["yes"])["ifbench_style_loose"] == 0.0, "all of them"


def test_a_model_that_answers_and_one_that_is_silent() -> None:
    def means(say) -> dict[str, float]:  # type: ignore[no-untyped-def]
        found = defaultdict(list)
        for score in run_tasks(ordinary.planted(say=say), ["alignbench_constraints"]):
            found[score.metric].append(score.value)
        return {metric: sum(values) / len(values) for metric, values in found.items()}

    names = [spec.name for spec in CONSTRAINTS_SPECS]
    assert means(lambda question: "") == dict.fromkeys(names, 0.0)
    once = means(lambda question: "No" if question.startswith("Is the earth older") else "")
    assert once == dict.fromkeys(names, 1 / 32)


def test_they_are_asked_where_they_are_asked_for() -> None:
    made = Helpfulness(HelpfulnessConfig(path="", limit=2, further=["all"]))
    found = {score.metric for score in made.evaluate(ordinary.planted())}
    assert {spec.name for spec in CONSTRAINTS_SPECS} <= found <= {spec.name for spec in made.specs()}
    usual = {score.metric for score in Helpfulness(HelpfulnessConfig(path="", limit=2)).evaluate(ordinary.planted())}
    assert found - usual == {spec.name for spec in CONSTRAINTS_SPECS}
    with pytest.raises(UserError, match="constraints"):
        Helpfulness(HelpfulnessConfig(further=["constraint"]))
