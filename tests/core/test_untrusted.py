"""What comes from elsewhere is printed and stored without secrets, and without anything that acts on a terminal."""

from __future__ import annotations

import base64
import html
import json
import tracemalloc
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.results.shown.export import formula_free
from alignbench.results.shown.grid import markdown_text
from alignbench.untrusted import redacted, told

KEY = "sk-a/B+9c<d'E&f0123456789="
FORMS = {
    "as it is": KEY,
    "URL": urllib.parse.quote(KEY, safe=""),
    "URL, every byte": "".join(f"%{byte:02x}" for byte in KEY.encode()),
    "JSON, every letter": "".join(f"\\u00{byte:02x}" for byte in KEY.encode()),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 behind a name": base64.b64encode(f"user:{KEY}".encode()).decode(),
    "hexadecimal": KEY.encode().hex(),
    "JSON": json.dumps(KEY),
    "HTML": html.escape(KEY),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(before=st.text(max_size=20), after=st.text(max_size=20), cut=st.integers(8, 60))
def test_a_secret_is_hidden_however_it_is_written_or_cut(form: str, before: str, after: str, cut: int) -> None:
    hidden = redacted(before + form[:cut] + after, KEY)
    size = 8 * max(round(len(form) / len(KEY)), 1)  # of eight letters
    core = form[8:-4]  # the first and last letters of base64 belong to its neighbours too
    assert not [core[i : i + size] for i in range(len(core) - size + 1) if core[i : i + size] in hidden], hidden


@given(
    st.lists(st.integers(1, 25), max_size=4),
    st.sampled_from(["\n", "\r\n", " ", "\\n", "\\\\n", "\\\\\\\\r", "\u200b", "\x00"]),
)
def test_a_secret_that_is_broken_into_lines_is_hidden(places: list[int], gap: str) -> None:
    broken = "".join(gap * (i in places) + c for i, c in enumerate(KEY))
    assert redacted(f"key {broken}.", KEY) == "key ***."


@pytest.mark.parametrize("form", ["JSON", "JSON, every letter"])
def test_json_within_json_hides_none(form: str) -> None:
    assert redacted(f"said {json.dumps(json.dumps(FORMS[form]))}.", KEY).count("***") == 1
    assert "0123" not in redacted(json.dumps(json.dumps(FORMS[form])), KEY)


@pytest.mark.parametrize("text", ["no rating " * 2**15, "x" * 2**18, "\\nx" * 2**17, "%41" * 2**16])
def test_a_large_text_takes_few_times_its_own_memory(text: str) -> None:
    redacted("warm", KEY)
    tracemalloc.start()
    found = redacted(f"{text}{KEY}{text}{KEY}", KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == f"{text}***{text}***"
    assert peak < 2**23 + 16 * len(text)


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "My_Password", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "OPENAIKEY"]
)
def test_secrets_are_those_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, KEY)
    assert redacted(f"refused: {KEY}") == "refused: ***"


def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    monkeypatch.setenv("SSH_AGENT", "a-long-value-of-something-else")
    monkeypatch.setenv("A_KEY", "short")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    text = f"{tmp_path} a-long-value-of-something-else, short safe.directory"
    assert redacted(text) == text


@pytest.mark.parametrize("key", ["x", "0", "EMPTY"])
def test_what_a_local_server_takes_for_a_key_is_no_secret(key: str) -> None:
    """Else every x of an answer would go, and "Rating: 10" would be "Rating: 1***"."""
    assert redacted("Rating: 10, EMPTY of vexation", key) == "Rating: 10, EMPTY of vexation"


def test_nothing_acts_on_a_terminal() -> None:
    assert told("a\x1b[31mred\x07\nb\tc\u202e") == "a?[31mred?\nb    c?"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("_i_ a_b __b__", r"\_i\_ a_b \_\_b\_\_"),
        ("~s~ ~~s~~", r"\~s\~ \~\~s\~\~"),
        ("https://x.org www.x.org ftp://x", r"https\://x.org www\.x.org ftp\://x"),
        ("a@b.org", "a<!-- -->@b.org"),
        ("algo: ppo 1.5 ±.2", "algo: ppo 1.5 ±.2"),
    ],
)
def test_markdown_is_text(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


@pytest.mark.parametrize("text", ["=1", " =1", "\t=1", "\u3000=1", "＝1", " ＋1", "@x", "-1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert formula_free(text).startswith("'")
