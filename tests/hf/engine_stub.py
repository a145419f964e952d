"""A small server that speaks what vLLM's does (completions by token ids, adapters loaded while it runs), over a tiny model."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from peft import PeftModel

from tests import tiny


class Stub:
    """What the server knows and did. Attributes are what a test may change while it runs."""

    def __init__(self) -> None:
        self.version = "0.32.0"
        self.max_rank = 16
        self.lora, self.updates, self.processed = True, True, True
        self.base_seed = 0
        self.adapters: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []  # completions
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.forget_after = -1  # completions, and then it has started anew, without adapters
        self.die_after = -1  # completions, and then it answers nothing
        self.change: dict[str, Any] = {}  # in every choice
        self.url = ""
        self.lock = threading.Lock()
        self.server: ThreadingHTTPServer | None = None

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"version": self.version}
        if path == "/v1/load_lora_adapter" and self.updates:
            return self.load(body["lora_name"], body["lora_path"])
        if path == "/v1/unload_lora_adapter" and self.updates:
            self.unloaded.append(body["lora_name"])
            if self.adapters.pop(body["lora_name"], None) is None:
                return 404, error(f"The lora adapter '{body['lora_name']}' cannot be found.")
            return 200, "Success"
        if path == "/v1/completions":
            with self.lock:
                self.asked.append(body)
                if len(self.asked) - 1 == self.forget_after:
                    self.adapters.clear()
                if 0 <= self.die_after <= len(self.asked) - 1:
                    return 0, None
            if body["model"] not in self.adapters:
                return 404, error(f"The model `{body['model']}` does not exist. Valid aliases: base.")
            return 200, {"choices": [self.choice(self.adapters[body["model"]], body) | self.change]}
        return 404, {"detail": "Not Found"}

    def load(self, name: str, path: str) -> tuple[int, Any]:
        if not self.lora:
            return 500, failed("LoRA is not enabled. Use --enable-lora to enable LoRA.")
        with open(f"{path}/adapter_config.json") as file:
            if (rank := json.load(file)["r"]) > self.max_rank:
                return 500, failed(f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}.")
        self.adapters[name] = PeftModel.from_pretrained(tiny.base_model(self.base_seed), path).eval()
        self.loaded.append(name)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    @torch.no_grad()
    def choice(self, model: Any, body: dict[str, Any]) -> dict[str, Any]:
        assert body["ignore_eos"] is True and body["top_p"] == 1 and body["repetition_penalty"] == 1
        rng, ids, new, told, top = torch.Generator().manual_seed(body["seed"]), list(body["prompt"]), [], [], []
        for _ in range(body["max_tokens"]):
            bare = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            logits = bare.clone()
            for token, bias in (body.get("logit_bias") or {}).items():
                logits[int(token)] += bias
            drawn_from = torch.log_softmax(logits / body["temperature"], -1)
            if body["top_k"] > 0:
                kept = drawn_from >= drawn_from.topk(body["top_k"]).values[-1]
                drawn_from = torch.log_softmax(drawn_from.masked_fill(~kept, -torch.inf), -1)
            says = drawn_from if self.processed else torch.log_softmax(bare, -1)
            token = int(torch.multinomial(drawn_from.exp(), 1, generator=rng))
            ids.append(token)
            new.append(token)
            told.append(float(says[token]))
            top.append({f"token_id:{int(says.argmax())}": float(says.max())})
            if token in body["stop_token_ids"]:
                break
        return {"token_ids": new, "logprobs": {"token_logprobs": told, "top_logprobs": top}}

    def start(self, port: int = 0) -> None:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(*stub.answer(self.path, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.reply(*stub.answer(self.path, body))

            def reply(self, code: int, answer: Any) -> None:
                if not code:
                    self.close_connection = True
                    return
                raw = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> int:
        """Its port, to start on again."""
        assert self.server is not None
        port = int(self.server.server_address[1])
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        return port


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "NotFoundError", "param": None, "code": 404}}


def failed(why: str) -> dict[str, Any]:
    """As vLLM 0.32 tells what its worker says of an adapter."""
    text = f"Call to add_lora method failed: Worker failed with error '{why}', please check the stack trace above for the root cause"
    return {"error": {"message": text, "type": "InternalServerError", "param": None, "code": 500}}


@contextlib.contextmanager
def stub_server() -> Iterator[Stub]:
    stub = Stub()
    stub.start()
    try:
        yield stub
    finally:
        if stub.server:
            stub.stop()
