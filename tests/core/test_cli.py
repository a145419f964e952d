"""The command line: its commands, its exit codes, and how soon it answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import alignbench
import alignbench.commands.plugins
from alignbench import UserError, commands, plugins
from alignbench.app import help as helps
from alignbench.app.compose import composed
from alignbench.app.options import options
from alignbench.commands import cli
from alignbench.errors import AlignbenchError
from alignbench.plugins import Function, Kind, Place, registry
from tests.core.harness import Command

HEAVY = ("torch", "transformers", "peft", "accelerate", "numpy", "polars", "scipy", "lm_eval", "datasets")


def timed(code: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A process of its own that runs some Python, and its CPU seconds."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != plugins.BLOCK_VARIABLE}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def code_of(arguments: list[str]) -> object:
    try:
        return cli.run_command(arguments)
    except SystemExit as stop:  # of argparse
        return stop.code


def fresh(*arguments: str) -> tuple[int, set[str], float]:
    """The exit code, the modules that were imported and the CPU seconds of a command in a process of its own."""
    done, seconds = timed(
        "import sys; from alignbench.commands.cli import run_command\n"
        f"try: code = run_command({list(arguments)!r})\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        "print('MODULES', *sys.modules); sys.exit(code)"
    )
    assert "MODULES" in done.stdout, done.stderr
    return done.returncode, set(done.stdout.rpartition("MODULES")[2].split()), seconds


@pytest.mark.parametrize(
    "arguments",
    [
        *(["compare", option, ""] for option in ("--results-dir", "--output", "--plots", "--comparisons")),
        ["compare", ""],
        ["compare", "a", " "],
        ["resume", ""],
        ["resume", "--results-dir", ""],
        ["evaluate", ""],
        ["evaluate-reward", "a", "--results-dir", ""],
        ["export", "--merged", ""],
        ["export", "--merged", "a", "--output", ""],
        ["page", ""],
        ["page", "--export", ""],
        ["rank", "export", "a", ""],
        ["rank", "sample", "a", "--projects", ""],
        ["tutorial", "--results", ""],
        ["cache", "prune", "--all", "--cache-dir", ""],
        ["new-plugin", "abc", "--output", ""],
    ],
    ids=str,
)
def test_an_empty_path_is_not_the_working_directory(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from a shell variable that is not set."""
    monkeypatch.chdir(tmp_path)
    code = code_of(arguments)
    assert code == 2 and list(tmp_path.iterdir()) == []
    assert re.search("a path is missing|name or path is empty", capsys.readouterr().err)


LONG = "x" * 300


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(([*command, LONG, *more], "too long for a path") for command, more in (
            (["compare"], []), (["compare", "--plots"], []), (["resume"], []), (["resume", "--results-dir"], []),
            (["evaluate"], []), (["export"], ["--merged"]), (["page"], ["--export", "page.html"]),
            (["rank", "links", "a", "Ann", "--projects"], []), (["cache", "--cache-dir"], []),
        )),
        (["compare", "--plots", "~nobody-of-that-name/x"], "no such home folder"),
        (["compare", "--comparisons", "a\0b"], "no path holds such a character"),
        (["cache", "prune", "--unused", "99999999999999999999d"], "more than a hundred years"),
        (["cache", "--unused", "999999d"], "more than a hundred years"),
        (["cache", "--cache-dir", __file__], "is a file, not a folder"),
        (["plan", "--memory", "inf"], "--memory inf must be above 0 and at most 1,000,000"),
        (["plan", "--memory", "nan"], "--memory nan must be"),
        (["page", "--host", "a..b", "--token", "0123456789abcdef"], "no name of a machine"),
        (["page", "--token", "0123456789abcdef€"], "--token"),
        (["rank", "ab", "a", "b", "c", "--prompts", "-5"], "'-5' is no whole number from 0 on"),
        (["rank", "sample", "a", "--prompts", "x"], "'x' is no whole number from 1 on"),
        (["rank", "sample", "a", "--gold", "-9"], "'-9' is no whole number from 0 on"),
        (["evaluate", "./a=b/model"], "a=b/model"),
        (["resume", "./a=b/run"], "a=b/run is no run"),
        (["page", "--host", ""], "--host is empty"),
        (["cache", "list", "--all"], "say what to delete"),
        (["cache", "--cache-dir", "absent"], "There is no folder absent"),
        (["check", "ppo", "--seed", "-1"], "--seed -1: a number of 0 or more"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_no_command_can_take_is_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = code_of(arguments)
    said = capsys.readouterr().err
    assert code == 2 and words in said and "settings" not in said, said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_that_nobody_else_may_look_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(SystemExit):
        cli.run_command(["cache", "--cache-dir", str(tmp_path / "closed" / "inside")])
    assert "Permission denied" in capsys.readouterr().err


def test_a_home_folder_is_meant_by_its_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell leaves it as it is in --plots=~/p."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cli.run_command(["compare", "--results-dir=~/runs"]) == 2
    assert f"No folder {tmp_path / 'runs'}" in capsys.readouterr().err
    assert cli.run_command(["compare", "./~old"]) == 2
    assert "No folder ~old" in capsys.readouterr().err
    (tmp_path / "~$there").mkdir()
    assert cli.run_command(["compare", "~$there"]) == 2
    assert "No runs in ~$there" in capsys.readouterr().err, "it is its name"


@pytest.mark.skipif(sys.platform == "win32", reason="measures CPU time")
@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["check"], ["algo=nope"]], ids=" ".join)
def test_questions_are_answered_at_once(arguments: list[str]) -> None:
    code, modules, seconds = fresh(*arguments)
    assert code == (2 if "nope" in arguments[0] else 0)
    assert sorted(modules & set(HEAVY)) == []
    # About a second where importing Hydra takes a tenth of one: what a person waits. Hydra's own help takes most of it.
    assert seconds < 20 * timed("import hydra.main, hydra.compose")[1]


def test_help_is_one_screen_of_what_people_need(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(["--help"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err == ""
    assert len(lines) <= 50 and max(map(len, lines)) <= 100, (len(lines), max(lines, key=len))
    for name in commands.COMMANDS:
        assert any(line.split()[:1] == [name] for line in lines), name
    assert "algo=       ppo," in said.out, "the default first"
    assert re.search(r"^  algo.kl_coef=0.1 +\w", said.out, re.MULTILINE)


def test_all_help_shows_every_choice_and_of_every_option_what_it_takes_and_is() -> None:
    out = helps.text(["--help", "all"])
    assert out == helps.text(["--help-all"])
    for kind in Kind:
        for component in registry().of(kind) if kind.is_group or kind is Kind.EVALUATION else ():
            assert re.search(rf"\b{component.name}\b", out), component
    for preset in ("tiny", "smollm2", "quick", "hh_smollm2"):
        assert re.search(rf"^[ *] {preset}\b", out, re.MULTILINE), preset
    assert "\nalgo.kl_coef=0.1   (a number, 0 to 10000)\n    Weight of the KL penalty" in out
    assert "\neval.points.samples=2   (a whole number, 1 to 10000)\n    Responses sampled per prompt" in out
    assert "\nresume=finished   (text)\n    finished: the same command again" in out


def test_every_option_of_a_run_says_what_it_is() -> None:
    cfg, _ = composed([])
    assert [
        option.key for option in options(cfg) if not option.said and not option.key.startswith("eval.options.")
    ] == []


def test_help_on_topics_and_on_what_the_command_line_chose(capsys: pytest.CaptureFixture[str]) -> None:
    of_dpo = helps.text(["algo=dpo", "algo.beta=0.3", "--help"])
    assert "* dpo" in of_dpo and "algo.beta=0.3   (" in of_dpo
    assert "algo.kl_coef" not in of_dpo and "model=<choice>" not in of_dpo
    one = helps.text(["--help", "algo.kl_coef"])
    assert one.startswith("algo.kl_coef=0.1   (a number, 0 to 10000)\n") and len(one.splitlines()) < 6
    begun = helps.text(["--help", "algo.kl"])
    assert "algo.kl_coef=" in begun and "algo.kl_target=" in begun and "algo.epochs" not in begun
    for arguments, complaint in (
        (["--help", "algo.kl_koef"], "Did you mean 'algo.kl_coef'?"),
        (["algo=dpoo", "--help"], "dpoo"),
        (["--help", "--hlp"], "--hlp"),
    ):
        assert cli.run_command(arguments) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "offered", "others"),
    [
        ("alignbench co", {"compare"}, {"check", "--format"}),
        ("alignbench ", {"compare", "new-plugin", "algo="}, set()),
        ("alignbench compare ", {"--format", "--output"}, {"compare", "algo="}),
        ("alignbench compare runs --for", {"--format", "--force"}, {"--output"}),
        ("alignbench algo=d", {"algo=dpo"}, {"data", "algo=ppo"}),
    ],
)
def test_completion_knows_commands_their_options_and_overrides(
    line: str, offered: set[str], others: set[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert cli.run_command(["-sc", "query=bash"]) == 0
    found = set(capsys.readouterr().out.split())
    assert offered <= found
    assert not others & found


def test_plugins_lists_every_component(command: Command) -> None:
    done = command("plugins")
    assert (done.code, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines()]
    for kind in Kind:
        for component in registry().of(kind):
            (row,) = (row for row in rows if row[:2] == [kind.value, component.name])
            assert row[2:4] == [component.distribution, component.version]
            assert " ".join(row[4:]).startswith(component.summary[:40])
    for place in Place:
        for function in registry().functions_of(place):
            assert [place.value, function.name, function.distribution] in [row[:3] for row in rows]


def test_a_commands_function_is_called_with_what_follows(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever registered it: here another than the core."""
    function = Function(Place.COMMAND, "sums", "Adds up.", f"{__name__}:sums", "elsewhere", "1")
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(sums=lambda arguments: sum(map(int, arguments))))
    known = replace(registry(), functions={**registry().functions, (Place.COMMAND, "sums"): function})
    monkeypatch.setattr(cli, "registry", lambda: known)
    assert command("sums", "3", "4").code == 7
    done = command("sumss")
    assert done.code == 2
    assert "Did you mean 'sums'?" in done.err
    monkeypatch.setattr("alignbench.app.help.registry", lambda: known)
    assert ["sums", "Adds", "up."] in [line.split() for line in helps.text(["--help"]).splitlines()]


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help(command: Command, capsys: pytest.CaptureFixture[str], name: str, option: str) -> None:
    with pytest.raises(SystemExit) as end:
        command(name, option)
    assert not end.value.code
    assert f"alignbench {name}" in capsys.readouterr().out


def test_every_command_has_a_file_of_its_own_and_every_file_is_a_command() -> None:
    files = {path.stem for path in Path(commands.__path__[0]).glob("*.py")}
    assert files - {"__init__", "cli", "run"} == {name.replace("-", "_") for name in commands.COMMANDS}


@pytest.mark.parametrize("option", ["-m", "--multirun"])
def test_a_sweep_of_nothing_is_refused(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert cli.run_command([option]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"alignbench: error: {option} needs lists of values, as in {option} algo=ppo,dpo seed=0,1,2.\n"


def test_compare_is_reached(command: Command, tmp_path: Path) -> None:
    done = command("compare", str(tmp_path / "nowhere"))
    assert done.code == 2
    assert "nowhere" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("wrong request"), 2, "alignbench: error: wrong request\n"),
        (AlignbenchError("failed run"), 1, "alignbench: error: failed run\n"),
        (KeyboardInterrupt(), 130, "alignbench: interrupted\n"),
    ],
)
def test_exit_codes(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(commands.plugins, "main", fail)
    done = command("plugins")
    assert (done.code, done.err, done.out) == (code, said, "")


@pytest.mark.parametrize("piped", ["plugins | head -n 1", "--help | true"])
def test_a_closed_pipe_is_no_error(piped: str) -> None:
    command = f"{sys.executable} -m alignbench {piped}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_options_may_stand_among_overrides(command: Command) -> None:
    """`alignbench seed=3 --cfg job algo.kl_coef=0.3`: argparse alone would refuse what comes after the option."""
    done = command("seed=3", "--cfg", "job", "algo.kl_coef=0.3")
    assert done.code == 0, done.err
    assert "seed: 3" in done.out
    assert "kl_coef: 0.3" in done.out


def test_it_leaves_the_process_as_it_was(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = list(sys.argv)
    for _ in range(2):
        done = command("algo=nope")
        assert (done.code, len(done.errors)) == (2, 1)
    assert sys.argv == before
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_version() -> None:
    from importlib.metadata import version

    assert alignbench.__version__ == version("alignbench")


def test_the_version_is_ours_and_not_hydras(command: Command) -> None:
    done = command("--version")
    assert (done.code, done.out) == (0, f"alignbench {alignbench.__version__}\n")


def test_what_libraries_read_when_they_start_is_set_before_them() -> None:
    """Huge pages, and cuBLAS that sums in one order; what the user has set stays."""
    code = (
        "import os, sys; from alignbench.commands import cli\n"
        "sys.argv = ['alignbench', 'plugins', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: assert 'torch' not in sys.modules\n"
        "print(os.environ['THP_MEM_ALLOC_ENABLE'], os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    )
    for own, expected in (
        ({}, "1 :4096:8"),
        ({"CUBLAS_WORKSPACE_CONFIG": ":16:8", "THP_MEM_ALLOC_ENABLE": "0"}, "0 :16:8"),
    ):
        kept = {n: v for n, v in os.environ.items() if n not in ("CUBLAS_WORKSPACE_CONFIG", "THP_MEM_ALLOC_ENABLE")}
        done = subprocess.run([sys.executable, "-c", code], env=kept | own, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == expected


def test_warnings_and_faults_of_threads_are_told_without_secrets() -> None:
    done, _ = timed(
        "import os, threading, warnings\n"
        "from alignbench.commands import cli\n"
        "def fail(): raise ValueError(os.environ['SOME_API_KEY'] + chr(27) + ' in a thread')\n"
        "def work(arguments):\n"
        "    warnings.warn(os.environ['SOME_API_KEY'] + chr(27) + ' in a warning')\n"
        "    thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "    return 0\n"
        "os.environ['SOME_API_KEY'] = 'abcdefgh' + '12345678'\n"
        "cli.run_command = work; cli.main()"
    )
    assert done.returncode == 0
    assert "***? in a warning" in done.stderr and "ValueError: ***? in a thread" in done.stderr
    assert "12345678" not in done.stderr and chr(27) not in done.stderr
