"""Nothing that the page has acknowledged is lost or kept twice, however often its server is killed.

    python benchmarks/page_kills.py --kills 100

People rank over HTTP without a pause while the server's process is killed (SIGKILL) at random moments and started anew; they send again what
was not acknowledged, under the same id, as a browser does. At the end the project's file holds every acknowledged action exactly
once, and nothing that nobody sent. The exit code is 1 where it does not."""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from alignbench.page.rank.items import Item
from alignbench.page.rank.store import Project, Settings
from alignbench.records import Message

PROJECT = "killed"


def make_project(folder: Path, items: int, people: int) -> Project:
    project = Project.create(folder / PROJECT, Settings(people=people))
    project.add(
        [
            Item(f"p{i}", (Message("user", f"Question {i}?"),), tuple(f"Response {k} to it." for k in range(4)))
            for i in range(items)
        ]
    )
    return project


class Server:
    """The page's own command. Its port stays the same over all its lives."""

    def __init__(self, results: Path, port: int = 0) -> None:
        self._results, self.port = results, port
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "alignbench", "page", str(self._results), "--port", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = process.stdout.readline()  # it says where it is once it listens
        if "http://" not in said:
            raise RuntimeError(f"the page did not start: {said or process.wait()}")
        self.port = int(said.split("//")[1].split("/")[0].split(":")[1])
        return process

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        self.process = self._start()


@dataclass
class Person:
    """Ranks as fast as it is answered; keeps the ids of what was sent and of what was acknowledged."""

    name: str
    server: Server
    rng: random.Random
    pause: float = 0.0
    sent: set[str] = field(default_factory=set)
    acknowledged: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _connection: HTTPConnection | None = None
    _key: str = ""

    def work(self, until: threading.Event) -> None:
        state = self._insist("GET", "state", None)
        while not until.is_set() and state and state["item"]:
            time.sleep(self.pause * self.rng.uniform(0.5, 1.5))
            number, count = state["item"]["number"], len(state["item"]["responses"])
            ranks = [self.rng.randrange(count) for _ in range(count)]
            draft = {"id": self._id(), "kind": "draft", "item": number, "ranks": [*ranks[:-1], None]}
            if self.rng.random() < 0.5:
                self._insist("POST", "action", draft)
            undo = self.rng.random() < 0.1 and state["can_undo"]
            action = {"id": self._id(), "kind": "undo"} if undo else {
                "id": self._id(), "kind": "answer", "item": number, "ranks": ranks, "seconds": 1.5,
            }  # fmt: skip
            self.sent.add(action["id"])
            if state := self._insist("POST", "action", action):
                self.acknowledged[action["id"]] = action["kind"]

    def _id(self) -> str:
        return f"{self.rng.getrandbits(128):032x}"

    def _insist(self, method: str, what: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
        """Until it is answered; None for a refusal."""
        deadline = time.monotonic() + 120
        while True:
            began = time.perf_counter()
            try:
                status, text = self._ask(method, f"/rank/{PROJECT}/as/{self.name}/{what}", body)
            except (OSError, HTTPException):
                self._connection = None
                status, text = 0, "no connection"
            if status == 200:
                self.seconds.append(time.perf_counter() - began)
                return dict(json.loads(text))
            if status == 403:
                self._key = ""  # the server was started anew
            elif status and status < 500:
                self.faults.append(f"{status}: {text}")
                return None
            if time.monotonic() > deadline:
                self.faults.append(f"not answered in two minutes: {status}: {text}")
                return None
            time.sleep(0.02)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, str]:
        if self._connection is None:
            self._connection = HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        if body is not None and not self._key:
            self._connection.request("GET", "/session")
            self._key = json.loads(self._connection.getresponse().read())["key"]
        headers = {"Origin": f"http://127.0.0.1:{self.server.port}", "X-Alignbench-Change": self._key}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()


def kill_often(
    folder: Path, *, kills: int, people: int, seed: int, items: int = 100_000, longest: float = 1.0
) -> list[str]:
    """What was wrong at the end; nothing, where the page keeps its word."""
    project = make_project(folder / "rank", items, people)
    server = Server(folder / "runs")
    rng, until = random.Random(seed), threading.Event()
    persons = [Person(f"P{i}", server, random.Random(f"{seed} {i}")) for i in range(people)]
    threads = [threading.Thread(target=person.work, args=(until,), daemon=True) for person in persons]
    try:
        for thread in threads:
            thread.start()
        for number in range(kills):
            time.sleep(rng.uniform(0.02, longest))
            server.kill()
            server.restart()
            if number % 10 == 9:
                print(
                    f"{number + 1} kills, {sum(len(person.acknowledged) for person in persons)} acknowledged",
                    flush=True,
                )
        time.sleep(longest / 2)
        until.set()
        for thread in threads:
            thread.join(150)
    finally:
        until.set()
        server.kill()
    return audit(project, persons)


def audit(project: Project, persons: list[Person]) -> list[str]:
    faults = [f"{person.name}: {fault}" for person in persons for fault in person.faults]
    if project.rows("PRAGMA integrity_check") != [("ok",)]:
        faults.append("the file is damaged")
    actions = project.rows("SELECT id, kind FROM actions")
    kept = dict(actions)
    acknowledged = {name: kind for person in persons for name, kind in person.acknowledged.items()}
    sent = set().union(*(person.sent for person in persons))
    if len(kept) != len(actions):
        faults.append("an action is kept twice")
    if lost := [name for name, kind in acknowledged.items() if kept.get(name) != kind]:
        faults.append(f"{len(lost)} acknowledged actions are lost")
    if invented := set(kept) - sent:
        faults.append(f"{len(invented)} actions were never sent")
    # Every answer that was not taken back stands in the table, once, and nothing else does.
    answers = [name for (name,) in project.rows("SELECT action FROM answers")]
    counts = {kind: sum(k == kind for k in kept.values()) for kind in ("answer", "undo")}
    if len(answers) != len(set(answers)) or not set(answers) <= {n for n, k in kept.items() if k == "answer"}:
        faults.append("an answer stands twice, or has no action")
    if len(answers) != counts["answer"] - counts["undo"]:
        faults.append(f"{counts['answer']} answers less {counts['undo']} taken back are not {len(answers)}")
    if not acknowledged:
        faults.append("nothing was acknowledged: the test tells nothing")
    print(f"{len(acknowledged)} acknowledged actions ({counts}), {len(answers)} answers stand")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = kill_often(Path(folder), kills=options.kills, people=options.people, seed=options.seed, items=3000)
    for fault in faults:
        print(fault)
    print(f"{options.kills} kills: {'nothing lost, nothing twice' if not faults else 'FAILED'}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
