"""Overrides that Hydra's grammar does not take: the error shows what it takes, and that is what was meant."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from alignbench import UserError
from alignbench.app.compose import composed
from alignbench.app.overrides import expanded, of_jobs, quoted
from tests.core.harness import Command


@pytest.mark.parametrize("written", ["[~/a,~/b]", "choice(~/a, ~/b)", "~/a,~/b", "[x,[~/a],~/b]"])
def test_a_home_folder_is_found_wherever_a_value_begins(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded([f"key={written}"]) == [f"key={written.replace('~', '/home/me')}"]
    quoted = [f"key=['{written}']", "key=x~y", "key={a: 1}", "~key"]
    assert expanded(quoted) == quoted


ODD = [
    "a=b.jsonl",
    "x(1).jsonl",
    'a\'b "c".jsonl',
    "é~#.jsonl",
    "a,b.jsonl",
    "~nouser/x",
    "$x`y!(.jsonl",
    "a\\b(c, d={}\\",
]


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        composed(overrides)
    said = str(refused.value)
    assert len(said.splitlines()) == 1 and "Lexer" not in said and "hydra.cc" not in said
    return said


@pytest.mark.parametrize("value", ODD)
def test_the_quotes_that_the_error_shows_are_those_that_work(value: str) -> None:
    key = "annotator.path" if "(" in value else "data.test_path"
    chosen = ["data=preferences", "annotator=recorded"]
    said = refusal(*chosen, f"{key}={value}")
    assert said.startswith(f"{key}={value} ")
    (typed,) = shlex.split(said.partition("quotes of the shell: ")[2])
    config, _ = composed([*chosen, typed])
    slot, name = key.split(".")
    assert config[slot][name] == value


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ("0.5", "choice(0.5)"),
        ("null", "null"),  # of which Hydra makes no choice
        ("[1,2]", "choice([1,2])"),
        ("{a: 1}", "choice({a: 1})"),
        ("plain words", "choice(plain words)"),
        ("'null'", "'null'"),  # Hydra would take the quotes off, and a text become nothing
        ("'1e3'", "'1e3'"),
        ("'a;b'", "'a;b'"),
        ("'is it clear? be fair; say why.'", "'is it clear? be fair; say why.'"),
        ("${seed}", "choice(${seed})"),
    ],
)
def test_an_option_of_one_value_stays_what_it_is(value: str, given: str) -> None:
    swept = ["algo=ppo,dpo", f"algo.x={value}", f"reward.y={value}"]
    assert of_jobs(swept) == ["algo=ppo,dpo", f"algo.x={given}", f"reward.y={value}"]


def test_any_command_and_any_setting(command: Command) -> None:
    for arguments in (
        ["data.rating=a(b"],
        ["-m", "results_dir=a(b"],
        ["plan", "algo.kl_coef=a(b"],
        ["data", "x", "data.system=a(b"],
    ):
        done = command(*arguments)
        assert done.code == 2 and len(done.errors) == 1
        key = arguments[-1].partition("=")[0]
        assert f"\"{key}='a(b'\"" in done.errors[0]


def test_the_home_folder_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config, _ = composed(["data=preferences", "data.path=~/x.jsonl", "data.test_path=~", "data.rating='~/x'"])
    assert (config.data.path, config.data.test_path, config.data.rating) == (
        f"{tmp_path}/x.jsonl",
        str(tmp_path),
        "~/x",
    )
    assert f"\"data.path='{tmp_path}/my (1).jsonl'\"" in refusal("data=preferences", "data.path=~/my (1).jsonl")


@pytest.mark.parametrize("text", ["a\\b", "a\\", "\\'", "it's", "a\\\\'b", ""])
def test_quoted_is_read_as_it_was(text: str) -> None:
    assert composed(["data=preferences", f"data.path={quoted(text)}"])[0].data.path == text


@pytest.mark.parametrize("value", ["nonsense", "[a,b]", "3"])
def test_a_table_of_settings_is_filled_by_name(value: str) -> None:
    said = refusal("data=preferences", f"data.columns={value}")
    assert re.fullmatch(
        rf"data\.columns={re.escape(value)}: it takes .*, each as data\.columns\.<name>=<value>\.", said
    )
