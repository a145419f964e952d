"""An OpenAI-compatible vLLM server as an engine: completions by token ids, adapters loaded while it runs."""

from __future__ import annotations

import http.client
import json
import logging
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alignbench import UserError, redacted
from alignbench_hf.engine.contract import AdapterUnknown, Answer, Engine, Question, check_version

log = logging.getLogger(__name__)

START = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve <model.path> --enable-lora --max-lora-rank <model.lora_rank or more> "
    "--logprobs-mode processed_logprobs"
)
KEY = "VLLM_API_KEY"  # the server's own name for the variable
_TRY_AGAIN = (408, 409, 425, 429)  # and all of the server's own, 500 and above
_LARGEST = 2**26  # bytes of an answer
_TIMEOUT = 600.0  # seconds for one answer
_RANK = re.compile(r"LoRA rank \d+ is greater than max_lora_rank \d+")
_PARTING = 10.0  # seconds to say that an adapter is not needed any more
_PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds between attempts; then always the last


class _Gone(Exception):
    """Worth another attempt."""


class _Refused(Exception):
    """Not worth another attempt."""

    def __init__(self, code: int, told: str) -> None:
        super().__init__(f"HTTP {code}" + (f" ({told})" if told else ""))
        self.code, self.told = code, told


class Server(Engine):
    """`patience`: seconds that it may be away, while it starts anew, before a run ends. `at_once`: questions in flight."""

    def __init__(self, url: str, *, patience: float, at_once: int) -> None:
        self.where = f"The engine at {url}"
        self._url, self._patience, self._at_once = url.rstrip("/").removesuffix("/v1"), patience, at_once
        self._processed: bool | None = None  # whether log-probabilities are those of what is sampled from
        try:
            self.version = str(self._ask("/version")["version"])
        except (_Refused, LookupError, TypeError):
            raise UserError(f"{self.where} does not say its version: it is no vLLM server.") from None
        check_version(self.version, self.where)

    def load(self, name: str, folder: Path) -> None:
        try:
            self._ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        except _Refused as refusal:
            if "already been loaded" in refusal.told:  # it answered, and the answer was lost
                return
            raise UserError(_why_not_loaded(self.where, refusal)) from None

    def unload(self, name: str) -> None:
        try:
            self._once("/v1/unload_lora_adapter", {"lora_name": name}, timeout=_PARTING)
        except (_Refused, _Gone) as error:
            log.info("%s did not let the adapter %s go: %s.", self.where, name, error)

    def sample(self, adapter: str, questions: Sequence[Question]) -> list[Answer]:
        if any(question.processed for question in questions):
            self._require_processed(adapter, questions[0])
        stopping = threading.Event()
        with ThreadPoolExecutor(min(self._at_once, max(len(questions), 1))) as pool:
            try:
                return list(pool.map(lambda question: self._answer(adapter, question, stopping), questions))
            except BaseException:
                stopping.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _require_processed(self, adapter: str, question: Question) -> None:
        """The likeliest token's log-probability moves with the temperature, or it is that of the bare logits."""
        if self._processed is None:
            tops = []
            for temperature in (1.0, 0.5):
                asked = self._body(adapter, question) | {"max_tokens": 1, "temperature": temperature, "top_k": 0}
                choice = self._completion(asked | {"logprobs": 1, "top_p": 1.0})
                try:
                    tops.append(max(choice["logprobs"]["top_logprobs"][0].values()))
                except (LookupError, TypeError, ValueError, AttributeError):
                    raise UserError(f"{self.where} gives no log-probabilities: it is no vLLM server.") from None
            if max(tops) > -1e-4:  # a token that is sure at any temperature shows nothing: the next prompt may
                return
            self._processed = abs(tops[0] - tops[1]) > 1e-6
        if not self._processed:
            raise UserError(
                f"{self.where} gives log-probabilities of bare logits, and a temperature other than 1 or model.suppress_tokens needs "
                "those of what is sampled from: start it with --logprobs-mode processed_logprobs."
            )

    def _answer(self, adapter: str, question: Question, stopping: threading.Event) -> Answer:
        choice = self._completion(self._body(adapter, question), stopping)
        try:
            ids, logprobs = tuple(choice["token_ids"]), tuple(choice["logprobs"]["token_logprobs"])
            sound = all(type(i) is int and i >= 0 for i in ids) and all(math.isfinite(p) for p in logprobs)
            if not (sound and 0 < len(ids) == len(logprobs) <= question.max_new_tokens):
                raise ValueError
        except (LookupError, TypeError, ValueError):
            raise UserError(
                f"{self.where} (version {self.version}) answered without a token id and a finite log-probability for each token of at "
                f"most {question.max_new_tokens}: it is no vLLM server, or of a version that speaks otherwise."
            ) from None
        return Answer(ids, logprobs)

    def _body(self, adapter: str, question: Question) -> dict[str, Any]:
        """Everything is said: what is left out a server takes from the model's generation_config.json."""
        sampling = question.sampling
        return {
            "model": adapter,
            "prompt": list(question.prompt),
            "max_tokens": question.max_new_tokens,
            "seed": question.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "min_tokens": 0,
            "stop": [],
            "ignore_eos": True,  # of the ends below, and no other
            "stop_token_ids": list(question.ends),
            "logit_bias": {str(token): -100.0 for token in question.suppressed} or None,
            "skip_special_tokens": False,
            "add_special_tokens": False,
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    def _completion(self, body: Mapping[str, Any], stopping: threading.Event | None = None) -> Any:
        try:
            answer = self._ask("/v1/completions", body, stopping=stopping)
        except _Refused as refusal:
            if refusal.code == 404 and "does not exist" in refusal.told:
                raise AdapterUnknown(str(refusal)) from None
            raise UserError(f"{self.where} refused to sample: {refusal}.") from None
        try:
            (choice, *_) = answer["choices"]
        except (LookupError, TypeError, ValueError):
            raise UserError(f"{self.where} answered with what is no completion: it is no vLLM server.") from None
        return choice

    # --- one request ---

    def _ask(self, path: str, body: Mapping[str, Any] | None = None, *, stopping: threading.Event | None = None) -> Any:
        """Asked again while the server is away, as long as patience lasts."""
        stopping, start, attempts = stopping or threading.Event(), time.monotonic(), 0
        while True:
            try:
                return self._once(path, body)
            except _Gone as error:
                reason = str(error)
            waited, pause = time.monotonic() - start, _PAUSES[min(attempts, len(_PAUSES) - 1)]
            attempts += 1
            if waited + pause > self._patience or stopping.is_set():
                break
            log.warning("%s: %s; asked again in %.1f s.", self.where, reason, pause)
            if stopping.wait(pause):
                break
        raise UserError(
            f"{self.where} is gone: {reason}, in {attempts} attempts over {waited:.0f} s. Start it ({START}), check "
            "model.sampler_url, or raise model.sampler_patience; a run goes on with: alignbench resume."
        )

    def _once(self, path: str, body: Mapping[str, Any] | None = None, *, timeout: float = _TIMEOUT) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": "alignbench"}
        if key := os.environ.get(KEY, "").strip():
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps({k: v for k, v in body.items() if v is not None}).encode()
        request = urllib.request.Request(self._url + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                raw = response.read(_LARGEST)
        except urllib.error.HTTPError as error:
            told = _told(error)
            # What is wrong with an adapter is told as an error of the server's own, and does not pass.
            if (error.code in _TRY_AGAIN or error.code >= 500) and "lora" not in told.lower():
                raise _Gone(f"HTTP {error.code}" + (f" ({told})" if told else "")) from None
            raise _Refused(error.code, told) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Gone(_line(str(getattr(error, "reason", error)) or type(error).__name__)) from None
        try:
            return json.loads(raw) if raw[:1] in (b"{", b"[") else {}
        except (ValueError, RecursionError):
            raise _Gone("half an answer") from None


def _why_not_loaded(where: str, refusal: _Refused) -> str:
    if refusal.code in (404, 405) and refusal.told in ("", "Not Found", "Method Not Allowed"):
        return f"{where} takes no adapters while it runs: start it as {START}."
    if rank := _RANK.search(refusal.told):
        return f"{where}: {rank[0]}. Start it with a higher --max-lora-rank, or lower model.lora_rank."
    if "no adapter found" in refusal.told.lower():
        return f"{where} cannot read the adapter's folder: it must see the same files, as the same user (TMPDIR says where they are written)."
    return f"{where} does not take the adapter: {refusal}. Start it as {START}."


def _told(error: urllib.error.HTTPError) -> str:
    """What a server says of an error, as one line."""
    try:
        text = error.read(2**16).decode(errors="replace")
        found = json.loads(text)
        found = found.get("error", found)
        text = str(found.get("message") or found.get("detail") or "") if isinstance(found, dict) else str(found)
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return ""
    return _line(text)


def _line(text: str) -> str:
    said = " ".join("".join(c if c.isprintable() else " " for c in redacted(text)).split())
    return said if len(said) <= 240 else said[:237] + "..."
