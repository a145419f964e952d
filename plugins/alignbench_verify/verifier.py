"""Checks responses by their prompts' references: by which check, where, and what became of it."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from alignbench import DataSource, Prompt, Reference, Split, UserError
from alignbench_verify.bounded import program
from alignbench_verify.bounded.worker import Worker
from alignbench_verify.checks import programs
from alignbench_verify.checks.registry import CHECKS, Check, Row, applicable, named, schema_text
from alignbench_verify.config import CheckingConfig

INSPECTED = 200
"""References that are looked at before anything is trained, spread over the data: some checks take long to read one."""

SHOWN_CHARACTERS = 60
"""Characters of a prompt that an error shows."""
HOW = (
    "reference answers come with data=arithmetic and with data whose rows have a column answer, solution, choices, constraints "
    "or tests"
)


@dataclass(frozen=True)
class Answer:
    """A response to a prompt, `finished` where it ended by itself."""

    prompt: Prompt
    response: str
    finished: bool


@dataclass(frozen=True)
class _Asked:
    """A check of one response that is not done in this process: `name` is what it was asked for by."""

    place: int
    name: str
    check: Check
    row: Row


class Verifier:
    """`names` are checks, or auto. Its report counts responses, and those that took too much and were ended."""

    def __init__(self, config: CheckingConfig, names: Sequence[str], *, where: str) -> None:
        self._config, self.names = config, named(list(names), where=where)
        self._schema, self._where = schema_text(config), where
        self._idle: dict[str, list[Worker]] = defaultdict(list)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def report(self) -> Mapping[str, float]:
        return {"checked": 0.0, "unfinished": 0.0, "ended": 0.0} | {k: float(v) for k, v in self._counts.items()}

    def fingerprint(self) -> str:
        return self._schema

    def passed(self, answers: Sequence[Answer]) -> list[dict[str, bool]]:
        """Of each response, which of the named checks that its row holds something for it passes.

        Raises UserError where a row holds nothing for any of them."""
        wanted = [self._checks_of(answer.prompt) for answer in answers]
        found: list[dict[str, bool]] = [dict.fromkeys(checks, False) for checks in wanted]
        bounded: list[_Asked] = []
        for place, (answer, checks) in enumerate(zip(answers, wanted, strict=True)):
            self._counts["checked"] += 1
            if not (answer.finished or self._config.unfinished):
                self._counts["unfinished"] += 1
                continue
            row = self._row(answer.prompt, answer.response)
            for name, check in checks.items():
                if (here := CHECKS[check].here) is not None:
                    found[place][name] = here(row)
                else:
                    bounded.append(_Asked(place, name, CHECKS[check], row))
        if bounded:
            with ThreadPoolExecutor(min(self._config.workers, len(bounded))) as pool:
                for asked, right in zip(bounded, pool.map(self._bounded, bounded), strict=True):
                    self._counts["ended"] += right is None
                    found[asked.place][asked.name] = bool(right)
        return found

    def check_data(self, data: DataSource) -> None:
        """Raises UserError where some prompt cannot be verified, or a reference is not what its check reads."""
        for split in Split:
            prompts = data.prompts(split)
            if without := [prompt for prompt in prompts if not self._found(prompt)]:
                raise UserError(self._lacks(without[0], f"{len(without)} of {len(prompts)} {split.value} prompts"))
            self.inspect(prompts)

    def inspect(self, prompts: Sequence[Prompt]) -> None:
        """Raises UserError for a reference that is not what its check reads; looks at INSPECTED of them."""
        sandboxed = False
        for prompt in prompts[:: max(len(prompts) // INSPECTED, 1)]:
            for name in self._checks_of(prompt).values():
                check = CHECKS[name]
                if check.in_sandbox and not sandboxed:
                    program.check_available()
                    sandboxed = True
                if check.inspector:
                    self._ask(check, check.inspector, check.arguments(self._row(prompt, "")), prompt)

    def reads(self, prompt: Prompt) -> bool:
        """Whether a prompt's row holds something for any of the checks."""
        return bool(self._found(prompt))

    def _found(self, prompt: Prompt) -> dict[str, str]:
        reference = prompt.reference or Reference()
        found = {name: applicable(name, reference, self._config) for name in self.names}
        return {name: check for name, check in found.items() if check is not None}

    def _checks_of(self, prompt: Prompt) -> dict[str, str]:
        """The named checks that a row holds something for, and which check each is there."""
        if found := self._found(prompt):
            return found
        raise UserError(self._lacks(prompt))

    def _lacks(self, prompt: Prompt, how_many: str = "") -> str:
        needs = " or ".join(CHECKS[name].needs for name in self.names if name in CHECKS) or "a reference"
        without = f"{how_many} do not bring" if how_many else "a prompt does not bring"
        return f"{self._where}: {without} what {', '.join(self.names)} reads ({needs}), as {_shown(prompt)}: {HOW}."

    def _row(self, prompt: Prompt, response: str) -> Row:
        return Row(prompt, prompt.reference or Reference(), response, self._config.pattern, self._schema)

    def _bounded(self, asked: _Asked) -> bool | None:
        check, row = asked.check, asked.row
        if check.in_sandbox:
            limits = {"cpu_seconds": self._config.cpu_seconds, "memory": self._config.memory}
            return program.passes(programs.source(row.response), row.reference.tests, **limits)
        return self._ask(check, check.function, {**check.arguments(row), "response": row.response}, row.prompt)

    def _ask(self, check: Check, function: str, request: Mapping[str, object], prompt: Prompt) -> bool | None:
        with self._lock:
            idle = self._idle[check.module]
            worker = idle.pop() if idle else None
        limits = {"cpu_seconds": self._config.cpu_seconds, "memory": self._config.memory}
        worker = worker or Worker([check.module], **limits)
        try:
            answer = worker.ask(f"{check.module}:{function}", request)
        except UserError as error:
            raise UserError(f"{self._where}, prompt {_shown(prompt)}: {error}.") from error
        finally:
            with self._lock:
                self._idle[check.module].append(worker)
        return None if answer is None else bool(answer)


def _shown(prompt: Prompt) -> str:
    """Its id and how it begins: by its words the row is found that it is from, as an id may be made of them."""
    words = " ".join(prompt.text.split())
    return f"{prompt.id!r} ({words[:SHOWN_CHARACTERS]!r}{' ...' if len(words) > SHOWN_CHARACTERS else ''})"
