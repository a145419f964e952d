"""Asking a language model behind an OpenAI-compatible endpoint: retries, a cache on disk, what it cost. Its key is in no
message, log or file: whatever comes back from the server is cleaned of it before anything else is done with it."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import tempfile
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from alignbench import Seeds, UserError, functional, redacted, user_path
from alignbench_rewards.config import JudgeConfig
from alignbench_rewards.deadline import Deadline

log = logging.getLogger(__name__)

Messages = tuple[tuple[str, str], ...]
"""Pairs of role and content."""
Parse = Callable[[str], float | None]
_TRY_AGAIN = (408, 409, 425, 429)  # and all of the server's own, 500 and above
_LARGEST = 2**22  # bytes of an answer: whatever sends more is no judge
_MOST_TOKENS = 2**31  # of an answer's own count of its tokens: more is no count
_PROBES = 3  # questions that are asked one by one before all others: who answers none of them is not asked the rest
_REMINDER = "That answer did not end as asked. Answer again, and end with the one line that was asked for."


class _Unanswered(Exception):
    """Worth another attempt, after `wait` seconds if the server said so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Answer(NamedTuple):
    """What came back. `cut`: it had reached its greatest length."""

    text: str
    cut: bool


@dataclass(frozen=True)
class Reply:
    """What the model said last, and the number read from it: None where it gave none, however often it was asked."""

    text: str
    value: float | None


def require_model(config: JudgeConfig) -> None:
    """Raises UserError where no model is named."""
    slot = config.slot
    if not config.model.strip():
        raise UserError(
            f"{slot}=judge needs {slot}.model=<the judge's name at the endpoint>, e.g. {slot}.model=gpt-4o-mini."
        )


def read_key(config: JudgeConfig) -> str:
    """The key, from the environment alone; empty where no variable is named."""
    require_model(config)
    slot, variable = config.slot, config.key_variable
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"The judge's key is missing: set the environment variable {variable}, name another with {slot}.key_variable=, "
            f"or none ({slot}.key_variable='') for a server that takes no key."
        )
    if not (key.isascii() and key.isprintable() and " " not in key):  # http.client would print it in its complaint
        raise UserError(
            f"The environment variable {variable} holds no key: spaces, line breaks or letters with accents."
        )
    return key


class ChatClient:
    """Questions to one model, several at once. Several threads may ask."""

    def __init__(self, config: JudgeConfig, seeds: Seeds) -> None:
        self._config, self._seeds, self._key = config, seeds, read_key(config)
        self._url = config.url.rstrip("/") + "/chat/completions"
        root = Path(os.environ.get("ALIGNBENCH_CACHE") or Path.home() / ".cache" / "alignbench")
        self.folder = user_path(config.cache_dir, f"{config.slot}.cache_dir") if config.cache_dir else root / "judge"
        self._counts: Counter[str] = Counter()
        self._understood = False  # an answer was read, so that the judge knows what is asked of it
        self._lock = threading.Lock()

    def figures(self) -> dict[str, float]:
        """What was asked since this was built: `tokens_*` and `cost_usd` as the server counts them."""
        names = ("requests", "cached", "retries", "tokens_in", "tokens_out", "without_verdict")
        found = {name: float(self._counts[name]) for name in names}
        config = self._config
        cost = found["tokens_in"] * config.price_in + found["tokens_out"] * config.price_out
        return found | {"cost_usd": cost / 1e6}

    def ask(self, questions: Sequence[Messages], parse: Parse) -> list[Reply]:
        """A reply to each, in order. Equal questions are asked once, and by one of the processes that share a run. Raises
        UserError where the server gives none; what it has answered by then is in the cache."""
        return functional.asked_once(partial(self._ask, questions, parse))

    def _ask(self, questions: Sequence[Messages], parse: Parse) -> list[Reply]:
        stopping = threading.Event()
        different = list(dict.fromkeys(questions))
        replies = self._probe(different, parse, stopping)
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            try:
                replies += pool.map(lambda question: self._reply(question, parse, stopping), different[len(replies) :])
            except BaseException:
                stopping.set()
                pool.shutdown(cancel_futures=True)
                raise
        found = dict(zip(different, replies, strict=True))
        spent = ", ".join(f"{value:g} {name}" for name, value in self.figures().items())
        log.info("The judge %s so far: %s.", self._config.model, spent)
        return [found[question] for question in questions]

    def _probe(self, questions: Sequence[Messages], parse: Parse, stopping: threading.Event) -> list[Reply]:
        """The first replies, until one can be read. Raises UserError where none of the first ones can."""
        replies: list[Reply] = []
        while not self._understood and len(replies) < min(_PROBES, len(questions)):
            replies.append(self._reply(questions[len(replies)], parse, stopping))
            self._understood = replies[-1].value is not None
        if not self._understood and len(replies) == _PROBES:
            config, said = self._config, [" ".join(reply.text.split())[:100] for reply in replies]
            raise UserError(
                f"The judge {config.model} was asked {_PROBES} questions, {config.reasks + 1} times each, and none of its answers "
                f"ends with the line that it is asked for; it said {said[0]!r}. Choose another judge, or raise "
                f"{config.slot}.max_tokens or {config.slot}.reasks. What it is asked stands in docs/rewards.md."
            )
        return replies

    def _reply(self, question: Messages, parse: Parse, stopping: threading.Event) -> Reply:
        path = self._path(question)
        if self._config.cache and (kept := _kept(path)) is not None and (value := parse(kept)) is not None:
            self._count(cached=1)
            return Reply(kept, value)
        text, messages = "", question
        for asked in range(self._config.reasks + 1):
            if asked and stopping.is_set():  # another question has ended the run: no more is spent
                break
            text, cut = self._completion(messages, stopping)
            # Of "Rating: 10" a cut may leave "Rating: 1"; and a judge that was cut while it thought has said nothing yet.
            if not cut and (value := parse(text)) is not None:
                if self._config.cache:
                    self._keep(path, question, text)
                return Reply(text, value)
            messages = (*question, ("assistant", text), ("user", _REMINDER))
        self._count(without_verdict=1)
        return Reply(text, None)

    def _completion(self, messages: Messages, stopping: threading.Event) -> Answer:
        config, slot, body = self._config, self._config.slot, self._body(messages)
        jitter, pause, reason = self._seeds.python(hashlib.sha256(body).hexdigest()), config.backoff, ""
        for attempt in range(config.retries + 1):
            try:
                return self._once(body)
            except _Unanswered as error:
                reason = str(error)
                wait = min(max(pause * (1 + jitter.random() / 2), error.wait), config.max_backoff)
                pause *= 2
            if attempt < config.retries:
                self._count(retries=1)
                log.warning("The judge %s: %s; asked again in %.1f s.", config.model, reason, wait)
                if stopping.wait(wait):
                    break
        kept = f" What it has answered is kept in {self.folder}, and not asked again." if config.cache else ""
        raise UserError(
            f"The judge {config.model} at {config.url} gave no answer in {config.retries + 1} attempts: {reason}.{kept} "
            f"Check {slot}.url and that the server runs, or raise {slot}.timeout or {slot}.retries."
        )

    def _once(self, body: bytes) -> Answer:
        headers = {"Content-Type": "application/json", "User-Agent": "alignbench"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")
        self._count(requests=1)
        with Deadline(self._config.timeout) as deadline:
            try:
                with deadline.opener.open(request, timeout=self._config.timeout) as response:
                    raw = _read(response)
            except urllib.error.HTTPError as error:
                raise self._refusal(error) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                cause = getattr(error, "reason", error)  # urllib wraps what the socket says
                if deadline.passed or isinstance(cause, TimeoutError):
                    raise _Unanswered(f"no whole answer within {self._config.timeout:g} s") from None
                raise _Unanswered(self._one_line(str(cause) or type(cause).__name__)) from None
        if deadline.passed:  # what was cut off may look whole
            raise _Unanswered(f"no whole answer within {self._config.timeout:g} s")
        try:
            answer = json.loads(raw)
            (choice, *_), usage = answer["choices"], answer.get("usage") or {}
            text, cut = choice["message"]["content"] or "", choice.get("finish_reason") == "length"
            tokens = {f"tokens_{end}": int(usage.get(f"{name}_tokens") or 0) for end, name in _COUNTED.items()}
            if not isinstance(text, str) or not all(0 <= count < _MOST_TOKENS for count in tokens.values()):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            raise _Unanswered("what came back is no chat completion") from None
        self._count(**tokens)
        return Answer(self._clean(text), cut)

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        try:
            told = self._one_line(_message(error.read(_LARGEST)))
        except (OSError, http.client.HTTPException, ValueError):
            told = ""
        text = f"HTTP {error.code}" + (f" ({told})" if told else "")
        if error.code in _TRY_AGAIN or error.code >= 500:
            seconds = error.headers.get("Retry-After", "")
            return _Unanswered(text, float(seconds) if seconds.isdecimal() else 0.0)
        config, slot = self._config, self._config.slot
        return UserError(
            f"The judge {config.model} at {config.url} refused the question: {text}. Check {slot}.url, "
            f"{slot}.model and {f'the key in {config.key_variable}' if self._key else f'{slot}.key_variable'}."
        )

    def _body(self, messages: Messages) -> bytes:
        fields: dict[str, Any] = {
            "model": self._config.model,
            "messages": [{"role": role, "content": content} for role, content in messages],
            "temperature": 0,
            "max_tokens": self._config.max_tokens,
        } | self._config.extra
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()

    def _clean(self, text: str) -> str:
        return redacted(text, self._key)

    def _one_line(self, text: str) -> str:
        """What a server says of an error: cleaned whole, then its first line, cut."""
        first = next((line for line in self._clean(text).splitlines() if line.strip()), "")
        said = " ".join("".join(c if c.isprintable() else " " for c in first).split())
        return said if len(said) <= 200 else said[:197] + "..."

    def _count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)

    # The cache: one file for each question, named by everything that was asked and of whom.

    def _path(self, question: Messages) -> Path:
        name = hashlib.sha256(self._url.encode() + b"\0" + self._body(question)).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def _keep(self, path: Path, question: Messages, answer: str) -> None:
        record = {"model": self._config.model, "question": question, "answer": answer}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", delete=False) as file:
                try:
                    json.dump(record, file, indent=1)
                    file.flush()
                    os.replace(file.name, path)
                except BaseException:  # a full disk, Ctrl-C
                    os.unlink(file.name)
                    raise
        except OSError as error:
            raise UserError(
                f"The judge's answers cannot be kept in {self.folder} ({error.strerror or error}): make room, choose another "
                f"folder with {self._config.slot}.cache_dir=, or do without ({self._config.slot}.cache=false)."
            ) from error


_COUNTED: Mapping[str, str] = {"in": "prompt", "out": "completion"}


def _kept(path: Path) -> str | None:
    """The answer in a file of the cache; None where there is none, or it is damaged: then it is asked for again."""
    try:
        answer = json.loads(path.read_text())["answer"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return answer if isinstance(answer, str) else None


def _read(response: Any) -> bytes:
    """The whole body."""
    raw: bytes = response.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise http.client.HTTPException("an answer without end")
    return raw


def _message(raw: bytes) -> str:
    """What a server says of an error, out of its JSON where it is some."""
    text = raw.decode(errors="replace")
    try:
        error = json.loads(text)
        error = error.get("error", error)
        return str(error.get("message", "") if isinstance(error, dict) else error)
    except (ValueError, AttributeError, RecursionError):
        return text
