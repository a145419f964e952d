"""Checks in processes of their own: known values, and responses that would take the machine down."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from alignbench_verify.bounded import process, program
from alignbench_verify.bounded.worker import Worker
from alignbench_verify.checks.programs import source
from alignbench_verify.verifier import Verifier

from alignbench import Constraint, UserError
from tests.verify.rows import passes, row, verifier

QUICK = {"cpu_seconds": 0.5, "memory": 256, "workers": 1}


@pytest.fixture(scope="module")
def shared() -> Iterator[dict[str, Verifier]]:
    """One verifier a check: their libraries take seconds to import."""
    names = ("math", "regex", "json_schema", "constraints", "python")
    yield {name: verifier(name, **QUICK) for name in names}


@pytest.mark.parametrize(
    ("answer", "response", "right"),
    [
        (r"\frac{1}{2}", "The answer is 0.5", True),
        (r"\frac{1}{2}", r"\boxed{\frac{2}{4}}", True),
        ("x^2+2x+1", "$(x+1)^2$", True),
        ("x^2+2x+1", "$(x+1)^3$", False),
        (r"\{1,2\}", r"\boxed{\{2,1\}}", True),
        ("(1,2)", r"\boxed{(2,1)}", False),
        (r"\sqrt{8}", r"$2\sqrt{2}$", True),
        ("3", "not 3 but $\\boxed{4}$", False),
        ("3", "", False),
    ],
)
def test_math(shared: dict[str, Verifier], answer: str, response: str, right: bool) -> None:
    assert passes(shared["math"], row(answer=answer), response) == [right]


def test_math_works_off_the_main_thread(shared: dict[str, Verifier]) -> None:
    found: list[list[bool]] = []
    asked = threading.Thread(target=lambda: found.append(passes(shared["math"], row(answer="1/2"), "0.5", "0.6")))
    asked.start()
    asked.join()
    assert found == [[True, False]]


@pytest.mark.parametrize(
    ("pattern", "response", "right"),
    [
        (r"^\d+$", "42", True),
        (r"^\d+$", "42 apples", False),
        (r"apple", "an apple a day", True),
        (r"(?s)<think>.*</think>.+", "<think>well\n</think>yes", True),
        (r"(?s)<think>.*</think>.+", "yes", False),
    ],
)
def test_regex(shared: dict[str, Verifier], pattern: str, response: str, right: bool) -> None:
    assert passes(shared["regex"], row(answer=pattern), response) == [right]


SCHEMA = json.dumps({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 0}}})


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ('{"a": 1}', True),
        ('```json\n{"a": 1}\n```', True),
        ('{"a": -1}', False),
        ('{"b": 1}', False),
        ('{"a": 1', False),
        ('Here it is: {"a": 1}', False),
        ("[]", False),
        ("NaN", False),
        ("", False),
        ("[" * 100_000, False),
        ('{"a": ' + "9" * 100_000 + "}", False),
    ],
)
def test_json_schema(shared: dict[str, Verifier], response: str, right: bool) -> None:
    assert passes(shared["json_schema"], row(answer=SCHEMA), response) == [right]


def test_a_schema_fetches_nothing(shared: dict[str, Verifier]) -> None:
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = json.dumps({"$ref": f"http://127.0.0.1:{server.server_port}/schema.json"})
        assert passes(shared["json_schema"], row(answer=remote), "1") == [False]
        server.shutdown()
    assert asked == []


@pytest.mark.parametrize(
    ("constraint", "response", "right"),
    [
        (Constraint("punctuation:no_comma"), "no commas here", True),
        (Constraint("punctuation:no_comma"), "one, here", False),
        (
            Constraint("length_constraints:number_words", {"relation": "at least", "num_words": 3}),
            "one two three",
            True,
        ),
        (Constraint("length_constraints:number_words", {"relation": "at least", "num_words": 3}), "one two", False),
        (
            Constraint("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}),
            "Dr. Who came. He saw.",
            True,
        ),
        (
            Constraint("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}),
            "Dr. Who came.",
            False,
        ),
        (Constraint("keywords:existence", {"keywords": ["sun"], "num_words": None}), "the sun", True),
        (Constraint("change_case:english_lowercase"), "all of this is in lower case", True),
        (
            Constraint("language:response_language", {"language": "de"}),
            "Das ist ein ganz normaler deutscher Satz.",
            True,
        ),
        (Constraint("combination:repeat_prompt", {"prompt_to_repeat": "say it"}), "say it again", True),
    ],
)
def test_constraints(shared: dict[str, Verifier], constraint: Constraint, response: str, right: bool) -> None:
    assert passes(shared["constraints"], row(constraints=(constraint,)), response) == [right]


def test_all_constraints_must_hold(shared: dict[str, Verifier]) -> None:
    both = (Constraint("punctuation:no_comma"), Constraint("change_case:english_lowercase"))
    asked = row(constraints=both)
    assert passes(shared["constraints"], asked, "it is a fine day", "It is a fine day") == [True, False]


@pytest.mark.parametrize(
    ("name", "reference", "told"),
    [
        ("regex", {"answer": "("}, r"'\(' is no regular expression"),
        ("json_schema", {"answer": '{"type": "colour"}'}, "is no JSON schema"),
        ("json_schema", {"answer": "{"}, "is no JSON schema"),
        ("constraints", {"constraints": (Constraint("punctuation:no_coma"),)}, "no_comma"),
        ("constraints", {"constraints": (Constraint("keywords:existence", {"word": "x"}),)}, "does not take"),
        ("python", {"tests": "assert ("}, "are no Python"),
    ],
)
def test_a_reference_that_cannot_be_read_is_refused_in_one_line(
    shared: dict[str, Verifier], name: str, reference: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=told) as refused:
        shared[name].inspect([row("row 7", **reference)])
    assert "'row 7'" in str(refused.value) and "\n" not in str(refused.value)


HUNGRY = {
    "a pattern that backtracks without end": ("regex", {"answer": r"^(a+)+$"}, "a" * 50 + "!"),
    "powers of powers": ("math", {"answer": "1"}, r"\boxed{9^{9^{9^{9^{9}}}}}"),
    "nested brackets": ("math", {"answer": "1"}, "$" + "(" * 5000 + ")" * 5000 + "$"),
    "a million digits": ("math", {"answer": "1"}, "9" * 10**6),
    "a schema's pattern": ("json_schema", {"answer": '{"pattern": "^(a+)+$"}'}, '"' + "a" * 50 + '!"'),
}


@pytest.mark.parametrize(("name", "reference", "response"), HUNGRY.values(), ids=HUNGRY)
def test_what_takes_too_much_is_wrong_and_the_next_response_is_read(
    shared: dict[str, Verifier], name: str, reference: dict[str, object], response: str
) -> None:
    before = shared[name].report()["ended"]
    assert passes(shared[name], row(**reference), response) == [False]
    if name != "math":  # how far sympy goes with such a thing is its own affair
        assert shared[name].report()["ended"] == before + 1
    known = {"regex": ("a", "a"), "math": ("1", "1"), "json_schema": ("{}", "1")}[name]
    assert passes(shared[name], row(answer=known[0]), known[1]) == [True]


def test_it_is_cpu_time_that_ends_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SLACK", 400)  # the clock alone would end it after two minutes
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert passes(
        verifier("regex", cpu_seconds=0.3, memory=256, workers=1), row(answer=r"^(a+)+$"), "a" * 50 + "!"
    ) == [False]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 6


def test_a_worker_has_as_much_memory_as_it_is_given() -> None:
    worker = Worker(["tests.verify.rows"], cpu_seconds=5, memory=64)
    try:
        asked = [worker.ask("tests.verify.rows:fill", {"mib": mib}) for mib in (16, 256, 16)]
    finally:
        worker.close()
    assert asked == [True, None, True]


# Programs

TESTS = "assert double(2) == 4\nassert double(-1) == -2"


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("def double(x):\n    return 2 * x", True),
        ("Here:\n```python\ndef double(x):\n    return x + x\n```\nIt adds.", True),
        ("```\ndef double(x): return 0\n```\nBetter:\n```py\ndef double(x): return 2 * x\n```", True),
        ("def double(x):\n    return x ** 2", False),
        ("def double(x)\n    return x", False),
        ("import math, collections, itertools, re\ndef double(x): return math.prod([2, x])", True),
        (
            "import threading\nt = threading.Thread(target=print)\nt.start(); t.join()\ndef double(x): return 2 * x",
            True,
        ),
        ("", False),
    ],
)
def test_python(shared: dict[str, Verifier], response: str, right: bool) -> None:
    assert passes(shared["python"], row(tests=TESTS), response) == [right]


def test_the_source_of_a_response() -> None:
    assert source("plain") == "plain"
    assert source("a\n```python\nb\n```\nc") == "b\n"
    assert source("```\na\n```\n```\nb\n```\n```\nunfinished") == "b\n"
    assert source("```python\nunfinished") == "```python\nunfinished"


ENDED = {
    "a loop": "while True: pass",
    "a memory hog": "x = []\nwhile True: x.append('a' * 10**7)",
    "one large string": "x = 'a' * 10**10",
    "a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "threads without end": "import threading\nwhile True:\n    try: threading.Thread(target=lambda: [0] * 10**6).start()\n    except RuntimeError: pass",
    "a fault of memory": "import ctypes; ctypes.string_at(0)",
    "leaving at once": "import os; os._exit(0)",
}


@pytest.mark.parametrize("response", ENDED.values(), ids=ENDED)
def test_what_runs_wild_is_ended_and_counted(response: str) -> None:
    check = verifier("python", **QUICK)
    assert passes(check, row(tests="pass"), response) == [False]
    assert check.report() == {"checked": 1.0, "unfinished": 0.0, "ended": 1.0}


REFUSED = {
    "leaving before the tests": "import sys; sys.exit(0)",
    "a process": "import os\nos.fork()",
    "a command": "import subprocess\nsubprocess.run(['true'])",
    "the network": "import socket\nsocket.socket()",
    "a pair of sockets": "import socket\nsocket.socketpair()",
    "a file in its folder": "open('found', 'w')",
    "a temporary file": "import tempfile\ntempfile.TemporaryFile()",
    "a file that is there": "open({file!r}, 'r+')",
    "a file that is there, to add to": "open({file!r}, 'a')",
    "deleting": "import os\nos.remove({file!r})",
    "renaming": "import os\nos.rename({file!r}, {file!r} + '2')",
    "rights": "import os\nos.chmod({file!r}, 0)",
    "a folder": "import os\nos.mkdir({file!r} + '3')",
    "signals to others": "import os\nos.kill(os.getppid(), 0)",
    "signals to a group": "import os\nos.killpg(0, 0)",
    "a signal to another, by the owner of a pipe": """import fcntl, os
r, w = os.pipe()
fcntl.fcntl(r, fcntl.F_SETOWN, {victim})
fcntl.fcntl(r, fcntl.F_SETSIG, 9)
fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
os.write(w, b'x')""",
    "a signal to another, by the owner's kind": """import fcntl, os, struct
r, w = os.pipe()
fcntl.fcntl(r, 15, struct.pack('ii', 1, {victim}))
fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
os.write(w, b'x')""",
    "a signal of its choice": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETSIG, 9)",
    "more time": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (9, 9))",
    "system calls by number": "import ctypes, os\nl = ctypes.CDLL(None, use_errno=True)\nassert l.socket(2, 1, 0) >= 0",
    "recursion": "def f(n): return f(n)\nf(1)",
}


@pytest.mark.parametrize("response", REFUSED.values(), ids=REFUSED)
def test_what_a_program_may_not_do(response: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("as it was")
    with subprocess.Popen(["sleep", "60"]) as victim:
        program_ = response.replace("{file!r}", repr(str(there))).replace("{victim}", str(victim.pid))
        try:
            passed = program.passes(program_, "pass", cpu_seconds=0.5, memory=256)
        finally:
            victim.terminate()  # comes second where the program has sent a signal
    assert not passed
    assert victim.returncode == -signal.SIGTERM
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"there": "as it was"}
    assert there.stat().st_mode & 0o400


CALLS = {
    "sched_setattr": "l.syscall({'x86_64': 314, 'aarch64': 274}[os.uname().machine], -1, None, 0)",
    "lremovexattr": "l.lremovexattr(None, None)",
    "fremovexattr": "l.fremovexattr(-1, None)",
    "shmat": "l.shmat(-1, None, 0)",
    "shmctl": "l.shmctl(-1, 0, None)",
    "semctl": "l.semctl(-1, 0, 0)",
    "msgctl": "l.msgctl(-1, 0, None)",
    "mq_unlink": "l.syscall({'x86_64': 241, 'aarch64': 181}[os.uname().machine], None)",
    "migrate_pages": "l.syscall({'x86_64': 256, 'aarch64': 238}[os.uname().machine], -1, 0, None, None)",
    "move_pages": "l.syscall({'x86_64': 279, 'aarch64': 239}[os.uname().machine], -1, 0, None, None, None, 0)",
    "setxattrat": "l.syscall(463, -1, None, 0, None, None, 0)",
    "removexattrat": "l.syscall(466, -1, None, 0, None)",
    "open_tree_attr": "l.syscall(467, -1, None, 0, None, 0)",
    "file_setattr": "l.syscall(469, -1, None, None, 0, 0)",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_system_call_that_reaches_beyond_the_process_is_refused(call: str) -> None:
    """By its name in libc where it passes the error on. Without the filter each fails in another way: its arguments are wrong."""
    lines = f"import ctypes, os\nl = ctypes.CDLL(None, use_errno=True)\nassert {call} == -1\nerror = ctypes.get_errno()"
    assert program.passes(lines, "assert error == 1", cpu_seconds=2, memory=256)


def test_a_program_has_as_much_memory_as_it_is_given() -> None:
    lines = "try:\n    bytearray({mib} << 20)\n    held = True\nexcept MemoryError:\n    held = False"
    for mib, held in ((16, True), (512, False)):
        assert program.passes(lines.format(mib=mib), f"assert held is {held}", cpu_seconds=2, memory=256)


def test_what_a_program_may_do(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("as it was")
    lines = f"assert open({str(there)!r}).read() == 'as it was'\nprint('x' * 10**6)"
    assert program.passes(lines, "pass", cpu_seconds=2, memory=256)


def test_a_program_that_waits_is_ended_by_the_clock() -> None:
    assert program.passes("import time\ntime.sleep(1000)", "pass", cpu_seconds=0.1, memory=256) is None


TO_ANSWERS = """import os, sys
frame, told = sys._getframe(), {told}
while frame and "asked" not in frame.f_locals:
    frame = frame.f_back
token = frame.f_locals["asked"]["token"]
for pipe in range(3, 9):
    try: os.write(pipe, told.format(token).encode())
    except OSError: pass
os._exit(0)"""


@pytest.mark.parametrize("told", ["unsafe x\n", "unsafe {} x\n", "\nunsafe x\n", "too much\n"])
def test_a_program_cannot_speak_for_the_sandbox(told: str) -> None:
    """A machine without a sandbox stops a run: no response may."""
    assert not program.passes(TO_ANSWERS.replace("{told}", repr(told)), "pass", cpu_seconds=2, memory=256)


def test_a_machine_without_a_sandbox_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "sandbox.py"
    script.write_text(Path(program._SCRIPT).read_text().replace('sys.platform != "linux"', "True"))
    monkeypatch.setattr(program, "_SCRIPT", script)
    with pytest.raises(UserError, match=r"cannot be shut in on this machine \(no filter for linux on \w+\)"):
        program.check_available()


@pytest.mark.parametrize("name", ["exec", "compile"])
def test_what_runs_the_tests_is_not_the_programs_to_replace(name: str) -> None:
    lines = f"import builtins\nbuiltins.{name} = lambda *a: 'pass'"
    assert program.passes(lines, "assert False", cpu_seconds=2, memory=256) is False
    assert program.passes(lines, "assert True", cpu_seconds=2, memory=256)


def test_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret")
    assert program.passes("import os\nassert 'A_KEY' not in os.environ", "pass", cpu_seconds=2, memory=256)


def test_no_process_is_left_behind() -> None:
    verifier("python", **QUICK)
    assert passes(verifier("regex", **QUICK), row(answer="a"), "a") == [True]
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    names = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not any(b"sandbox.py" in name for name in names)
