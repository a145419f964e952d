"""Chat templates and ends of turns as hostile or careless files have them: one line, or the same text every day."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignbench import UserError
from tests.hf.chats import CHATML, checkpoint, load, merging, talk


def with_template(folder: Path, text: str) -> Path:
    path = folder / "own.jinja"
    path.write_bytes(text.encode())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"), merging("bytes"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}" + CHATML, "own.jinja is nested too deeply"),
        ("{% set now = strftime_now %}{{ now('%S') }}" + CHATML, r"hands on strftime_now \(line 1\)"),
        (
            "{{ range(1000000) | list | random }}" + CHATML,
            "writes another prompt each time|cannot write one user message",
        ),
        (
            "{{ [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] | random }}{{ range(90000) | random }}"
            + CHATML,
            "writes another prompt each time",
        ),
        ("{{ messages" + CHATML, "own.jinja is no Jinja template"),
    ],
    ids=["deep", "clock handed on", "too long a range", "random", "syntax"],
)
def test_a_template_that_cannot_be_used_is_one_line(model: Path, tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        load(model, chat_template=str(with_template(tmp_path, text)))
    assert "\n" not in str(caught.value)


def test_whether_there_is_a_clock_may_be_asked(model: Path, tmp_path: Path) -> None:
    text = "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% endif %}" + CHATML
    load(model, chat_template=str(with_template(tmp_path, text)))


@pytest.mark.parametrize("before", [b"", "\ufeff".encode()], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_how_a_file_was_written_makes_no_difference(model: Path, tmp_path: Path, before: bytes, ends: str) -> None:
    lines = "{% set x = 1 %}\n" + CHATML
    path = tmp_path / "own.jinja"
    path.write_bytes(before + lines.replace("\n", ends).encode())
    policy, plain = (
        load(model, chat_template=str(path)),
        load(model, chat_template=str(with_template(model.parent, lines))),
    )
    assert policy.encode([talk("a b")], ["c"]).sequences.prompt_ids.tolist() == (
        plain.encode([talk("a b")], ["c"]).sequences.prompt_ids.tolist()
    )
    policy.load(policy.save(tmp_path / "saved"))


@pytest.mark.parametrize("eos", [[[3]], {"id": 3}, True, "3", [1.5]], ids=str)
def test_an_end_that_is_no_token_is_refused(tmp_path: Path, eos: object) -> None:
    folder = checkpoint(tmp_path, merging("bytes"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id=.* is neither a token's number"):
        load(folder)
