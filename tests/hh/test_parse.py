import hashlib
import json

import pytest
from alignbench_hh.parse import Pair, Reason, parse_row
from hypothesis import given
from hypothesis import strategies as st

from alignbench import Message

HUMAN, ASSISTANT = "\n\nHuman: ", "\n\nAssistant: "


def test_a_dialogue_becomes_messages_and_two_replies() -> None:
    context = f"{HUMAN}Hi{ASSISTANT}Hello!{HUMAN}How are you?"
    pair = parse_row(f"{context}{ASSISTANT}Well. ", f"{context}{ASSISTANT}Go away\n\nnow")
    assert isinstance(pair, Pair)
    expected = Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "How are you?")
    assert pair.prompt.messages == expected
    assert (pair.chosen, pair.rejected) == ("Well.", "Go away\n\nnow")
    assert (pair.prompt_words, pair.response_words) == (5, 3)


def test_turns_of_one_speaker_are_joined() -> None:
    context = f"{HUMAN}Hi{ASSISTANT}Hello{ASSISTANT}again{HUMAN}Bye"
    pair = parse_row(f"{context}{ASSISTANT}a", f"{context}{ASSISTANT}b")
    assert isinstance(pair, Pair)
    assert [m.role for m in pair.prompt.messages] == ["user", "assistant", "user"]
    assert pair.prompt.messages[1].content == "Hello\n\nagain"


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (f"{HUMAN}Q{ASSISTANT}a", f"{HUMAN}Q{ASSISTANT}half \ud83d", Reason.NOT_TEXT),
        (f"{HUMAN}Q\udc00{ASSISTANT}a", f"{HUMAN}Q\udc00{ASSISTANT}b", Reason.NOT_TEXT),
        (f"{HUMAN}Q{ASSISTANT}a", f"{HUMAN}Q{ASSISTANT} a ", Reason.IDENTICAL),
        (f"{HUMAN}Q{ASSISTANT}a", f"{HUMAN}Q\n\nAssistant:", Reason.EMPTY_REPLY),
        (f"{HUMAN}Q{ASSISTANT}", f"{HUMAN}Q{ASSISTANT}b", Reason.EMPTY_REPLY),
        (f"{HUMAN}Q{ASSISTANT}a", f"{HUMAN}Q{ASSISTANT}a{HUMAN}R{ASSISTANT}b", Reason.DIVERGING),
        (f"{HUMAN}Q{ASSISTANT}a{HUMAN}R", f"{HUMAN}Q{ASSISTANT}b", Reason.NO_REPLY),
        (f"{HUMAN}Q{ASSISTANT}a", "no turns at all", Reason.NO_REPLY),
        ("", "", Reason.NO_REPLY),
        (f"{ASSISTANT}a", f"{ASSISTANT}b", Reason.MALFORMED_PROMPT),
        (f"{HUMAN}Q{ASSISTANT}x{ASSISTANT}a", f"{HUMAN}Q{ASSISTANT}x{ASSISTANT}b", Reason.MALFORMED_PROMPT),
        (f"lost text{ASSISTANT}a", f"lost text{ASSISTANT}b", Reason.MALFORMED_PROMPT),
        (f"lost text{HUMAN}Q{ASSISTANT}a", f"lost text{HUMAN}Q{ASSISTANT}b", Reason.MALFORMED_PROMPT),
        (f"{ASSISTANT}Hi{HUMAN}Q{ASSISTANT}a", f"{ASSISTANT}Hi{HUMAN}Q{ASSISTANT}b", Reason.MALFORMED_PROMPT),
        (f"{HUMAN} {ASSISTANT}a", f"{HUMAN} {ASSISTANT}b", Reason.MALFORMED_PROMPT),
    ],
)
def test_a_row_that_cannot_be_used_says_why(chosen: str, rejected: str, reason: Reason) -> None:
    assert parse_row(chosen, rejected) is reason


words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(st.lists(words, min_size=1, max_size=7).filter(lambda t: len(t) % 2 == 1), words, words)
def test_what_was_written_is_read_back(turns: list[str], chosen: str, rejected: str) -> None:
    text = "".join((HUMAN if i % 2 == 0 else ASSISTANT) + turn for i, turn in enumerate(turns))
    pair = parse_row(f"{text}{ASSISTANT}{chosen}", f"{text}{ASSISTANT}{rejected}")
    if chosen == rejected:
        assert pair is Reason.IDENTICAL
        return
    assert isinstance(pair, Pair)
    assert [m.content for m in pair.prompt.messages] == turns
    assert (pair.chosen, pair.rejected) == (chosen, rejected)


def test_a_prompt_has_one_id_whatever_the_replies() -> None:
    def prompt_id(question: str, reply: str) -> str:
        pair = parse_row(f"{HUMAN}{question}{ASSISTANT}{reply}", f"{HUMAN}{question}{ASSISTANT}other")
        assert isinstance(pair, Pair)
        return pair.prompt.id

    assert prompt_id("Q", "a") == prompt_id("Q", "b") != prompt_id("R", "a")
    digest = hashlib.sha256(json.dumps([["user", "Q"]]).encode()).hexdigest()
    assert prompt_id("Q", "a") == f"hh-{digest[:16]}"  # the same in every run and on every machine
