"""What a response states as its answer: known ones, told by hand."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from alignbench_verify.checks.answers import choice, exact, number, read_number, stated
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("I think. #### 42", "42"),
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"first \boxed{1}, no: \boxed{2}", "2"),
        ("The answer is: Paris.", "Paris."),
        ("Final answer: 7", "7"),
        ("ANSWER: 7", "7"),
        (r"\boxed{never closed", "never closed"),
        ("no statement", None),
    ],
)
def test_what_is_stated(response: str, said: str | None) -> None:
    assert stated(response) == said


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        ("Paris", "paris", True),
        ("  PARIS.\n", "Paris", True),
        ("The answer is Paris.", "Paris", True),
        ("It is Paris", "Paris", False),
        ("“ﬁne”", "fine", True),  # one sign for f and i
        ("two  words", "two words", True),
        ("", "", False),
        ("", "Paris", False),
    ],
)
def test_exact(response: str, answer: str, right: bool) -> None:
    assert exact(response, answer) is right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-3.50", Fraction(-7, 2)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("$12", 12),
        ("1/4", Fraction(1, 4)),
        ("1 / 4", Fraction(1, 4)),
        ("2e-3", Fraction(1, 500)),
        (".5", Fraction(1, 2)),
        ("−7", -7),  # a minus sign, not a hyphen
        ("1,23", None),
        ("1/0", None),
        ("9" * 401, None),
        ("", None),
    ],
)
def test_values_of_numbers(text: str, value: Fraction | int | None) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        ("85", "85", True),
        ("27+58=85", "85", True),
        ("First 3, then 4, so 12.", "12", True),
        ("12 apples, of which 3 are red", "12", False),  # the last number counts
        ("The answer is 12, not 13", "12", True),  # what is stated counts
        ("#### 1,000", "1000", True),
        (r"\boxed{0.50}", "1/2", True),
        ("it costs $18.00 in all", "18", True),
        ("50%", "50", True),
        ("-5", "5", False),
        ("3-5", "5", True),  # a difference is no negative number
        ("none", "5", False),
        ("", "5", False),
        ("The answer is nothing, 5", "6", False),
        ("72", "Natalia sold 48 and 24.\n#### 72", True),  # as GSM8K writes them
        ("85", "no number", False),
        ("1e999999", "1", False),
    ],
)
def test_number(response: str, answer: str, right: bool) -> None:
    assert number(response, answer) is right


COLOURS = ("red", "blue", "dark blue", "none of these")


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("B", True),
        ("b", True),
        ("(B)", True),
        ("B) blue", True),
        ("B. blue", True),
        ("blue", True),
        ("It must be blue, I think", True),
        ("The answer is B", True),
        ("The answer is (B).", True),
        ("Answer: blue", True),
        (r"\boxed{B}", True),
        ("dark blue", False),  # holds the right one, and is another
        ("red or blue", False),
        ("A) or B)", False),
        ("A", False),
        ("E", False),
        ("", False),
        ("The answer is A, not B", False),
    ],
)
@pytest.mark.parametrize("answer", ["B", "blue"])
def test_choice(response: str, right: bool, answer: str) -> None:
    assert choice(response, answer, COLOURS) is right


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The answer is: A dog, as it barks", "B"),
        ("The answer is a dog", "B"),
        ("Answer: A cat", "A"),
        ("The answer is: A bird", None),
        ("The answer is A-dog", "B"),
        ("The answer is: I think a dog", "B"),
        ("The answer is A", "A"),
        ("The answer is (A).", "A"),
        ("The answer is A, not B", "A"),
        ("The answer is A: a cat", "A"),
        ("The answer is **A** for sure", "A"),
        ("The answer is A\nA dog would bark.", "A"),
        ("The answer is A because a dog would bark", "A"),
        ("The answer is B as a cat would not bark", "B"),
        ("The answer is B", "B"),
    ],
)
def test_an_article_is_no_letter_of_a_choice(response: str, letter: str | None) -> None:
    said = [name for name in "AB" if choice(response, name, ("A cat", "A dog"))]
    assert said == ([letter] if letter else [])


@pytest.mark.parametrize("answer", ["F", "violet", "", "BB", "4"])
def test_a_reference_that_is_none_of_the_choices_is_never_right(answer: str) -> None:
    assert not any(choice(response, answer, COLOURS) for response in ("A", "B", "F", "violet", "", "blue"))


HOSTILE = {
    "a million digits": "9" * 10**6,
    "a million groups": "1," * 10**6,
    "a million brackets": "\\boxed{" * 10**5 + "{" * 10**6,
    "slashes": "1/" * 10**6,
    "signs": "+-" * 10**6,
    "markers": "answer is " * 10**5,
    "letters": "A) " * 10**5,
    "white space": " " * 10**6,
    "dots": "1." * 10**6,
    "quotes": "'\"" * 10**6,
    "combining marks": "e" + "\u0301" * 10**5,
    "lone surrogates": "\ud800" * 1000 + "\x00",
}


@pytest.mark.parametrize("response", HOSTILE.values(), ids=HOSTILE)
def test_hostile_responses_are_wrong_and_soon_so(response: str) -> None:
    began = time.process_time()
    assert not exact(response, "85")
    assert not number(response, "85")
    assert not choice(response, "B", COLOURS)
    assert time.process_time() - began < 10, "linear in its length: a square would take hours"


@given(st.text())
def test_any_text_is_read(response: str) -> None:
    exact(response, response)
    number(response, "1")
    choice(response, "B", COLOURS)


@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=1000))
def test_a_number_is_itself(value: Fraction) -> None:
    assert number(f"so it is {value}", str(value))
    assert not number(f"so it is {value + 1}", str(value))
