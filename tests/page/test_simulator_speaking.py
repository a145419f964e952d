"""Models of a results folder that answer while somebody watches: those of the embedded world, and a chat model."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from starlette.testclient import TestClient
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignbench import UserError
from alignbench.commands.cli import run_command
from alignbench.page.server import create_app
from alignbench.page.settings import PageSettings
from alignbench.page.simulator import columns, pool, starts
from alignbench.page.simulator.responses import pieces
from alignbench.page.simulator.speaking import overheard
from tests import tiny
from tests.page.conftest import needs_browser, run_apart
from tests.page.test_simulator_browser import opened  # noqa: F401
from tests.page.test_simulator_data import changing, client  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Page

TEMPLATE = "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}<end>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


def said(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


# On the embedded world


def test_a_run_answers_the_datas_prompts_and_typed_ones(
    client: TestClient,  # noqa: F811
    simulated: dict[str, Any],
    results: Path,
) -> None:
    (run,) = [path.name for path in results.glob("*-ppo-*")]
    prompt = simulated["prompts"][3]
    finals = []
    for what in ({"prompt": prompt["id"]}, {"text": f" {prompt['text']} "}):
        events = said(changing(client, "/simulator/say", {"start": "", "run": run, "seed": 5, **what}))
        grown = [event["texts"] for event in events if event.get("texts")]
        (done,) = [event["done"] for event in events if "done" in event]
        assert grown[-1] == done["texts"] and len(done["texts"]) == 4 and len(grown) > 2
        assert grown[0] != grown[-1], "token by token"
        assert all(one == other[: len(one)] for k in range(4) for one, other in [(grown[0][k], grown[-1][k])])
        assert ["".join(piece for piece, _ in tokens).strip() for tokens in done["tokens"]] == done["texts"]
        assert max(abs(ratio) for tokens in done["tokens"] for _, ratio in tokens) > 0
        gold = columns.read(done["columns"]["gold"])
        assert len(gold) == 4 and not any(value != value for value in gold), "its truth is known"
        assert simulated["rewards"][0]["name"] in done["columns"]
        finals.append(done)
    again, other = (
        said(changing(client, "/simulator/say", {"run": run, "seed": seed, "prompt": prompt["id"]}))[-1]["done"]
        for seed in (5, 6)
    )
    assert again == finals[0], "the same question and seed: the same chances"
    assert other["texts"] != again["texts"]
    (sft,) = [e["done"] for e in said(changing(client, "/simulator/say", {"prompt": prompt["id"]})) if "done" in e]
    assert "tokens" not in sft and len(sft["texts"]) == 4, "of the SFT model there is no ratio to itself"


def test_what_cannot_be_answered_is_said(client: TestClient, simulated: dict[str, Any], results: Path) -> None:  # noqa: F811
    for body, words in (
        ({"run": "../elsewhere", "text": "x"}, "no longer in the results folder"),
        ({"text": " "}, "1 to 500 characters"),
        ({"text": "x", "seed": "1"}, "no whole number"),
    ):
        refused = changing(client, "/simulator/say", body)
        assert refused.status_code == 400 and words in refused.text, refused.text
    for body, words in (
        ({"text": "hello there"}, "its own language alone. Ask for example: "),
        ({"prompt": "elsewhere"}, "none of the data's own"),
    ):
        assert words in said(changing(client, "/simulator/say", body))[-1]["error"]


def test_who_leaves_is_not_sampled_for() -> None:
    """And a fault is told in words, not in a traceback."""
    ended, told = threading.Event(), []

    def work(tell: Callable[[dict[str, Any]], None]) -> None:
        try:
            for k in range(10_000):
                tell({"k": k})
                told.append(k)
                time.sleep(0.001)
        finally:
            ended.set()

    async def leave_early() -> None:
        listening = overheard(work)
        assert await anext(listening) == {"k": 0}
        await listening.aclose()

    run_apart(leave_early())
    assert ended.wait(5) and len(told) < 1000

    def fault(tell: Callable[[dict[str, Any]], None]) -> None:
        raise ZeroDivisionError("secret")

    def refusal(tell: Callable[[dict[str, Any]], None]) -> None:
        raise UserError("no such thing")

    async def everything(job: Callable[..., None]) -> list[dict[str, Any]]:
        return [event async for event in overheard(job)]

    assert "secret" not in str(run_apart(everything(fault)))
    assert run_apart(everything(refusal)) == [{"error": "no such thing"}]


# A chat model


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, and a vocabulary of bytes: of an ä one token is half."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    specials = ["<pad>", "<end>", "<u>", "<s>", "<a>"]
    vocabulary = {token: i for i, token in enumerate([*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", chat_template=TEMPLATE,
        extra_special_tokens=["<u>", "<s>", "<a>"],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=16, max_position_embeddings=160, pad_token_id=0, eos_token_id=1, bos_token_id=None,
                tie_word_embeddings=False, initializer_range=0.3,
            )
        )  # fmt: skip
    model.save_pretrained(folder)
    rows = [
        {"prompt": f"Tell me of {word}.", "chosen": "Yes.", "rejected": "No."} for word in "abcdefghijklmnopqrstuvwx"
    ]
    (folder.parent / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.parent


@pytest.fixture(scope="module")
def chats(chatting: Path) -> Path:
    """A results folder with DPO on a chat model, of which no reward is known."""
    return run_on(chatting, "dpo", "algo=dpo")


@pytest.fixture(scope="module")
def rewarded_chats(chatting: Path) -> Path:
    """And one with a reward."""
    return run_on(chatting, "ppo", "algo=ppo", "reward=length")


def run_on(chatting: Path, name: str, *options: str) -> Path:
    results = chatting / name
    small = (
        *("model=hf", f"model.path={chatting / 'model'}", "model.max_prompt_tokens=40", "model.max_response_tokens=12"),
        *("data=preferences", f"data.path={chatting / 'pairs.jsonl'}", "sft.updates=1", "sft.batch_size=4"),
        *("algo.updates=1", "algo.batch_size=4", "algo.learning_rate=0.01", "eval.families=[optimization]"),
        *("eval.questions=4", "eval.samples=1", f"results_dir={results}"),
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        code = run_command([*small, *options])
    assert code == 0, err.getvalue()[-2000:]
    return results


def test_pieces_of_half_a_character_stand_with_its_last_token(chats: Path) -> None:
    policy = tiny.scratch()

    def texts(rows: Any) -> tuple[str, ...]:
        return tuple(bytes(row).decode(errors="replace") for row in rows)

    policy.response_texts = texts  # type: ignore[method-assign]
    row = "aä b".encode()
    assert list(pieces(policy, list(row))) == ["a", "", "ä", " ", "b"]
    assert list(pieces(policy, list(row[:2]))) == ["a", "\ufffd"], "what was cut off stays so"


def test_a_chat_model_without_a_reward_answers_and_is_not_tilted(chats: Path) -> None:
    made = pool.pool(starts.chosen(chats))
    assert (made["pool"], made["rewards"], made["pretrained"]) == (None, [], True)
    asking = TestClient(create_app(PageSettings(chats)), base_url="http://127.0.0.1")
    (checkpoint,) = made["checkpoints"]
    typed = {"text": "What is an ä?", "run": checkpoint["run"]}
    events = said(changing(asking, "/simulator/say", typed))
    (done,) = [event["done"] for event in events if "done" in event]
    assert len(done["texts"]) == 2 and len(events) > 4
    assert all(value != value for value in columns.read(done["columns"]["gold"])), "nobody knows"
    assert sum(len(tokens) for tokens in done["tokens"]) > 2
    long = said(changing(asking, "/simulator/say", {"text": "x" * 100}))
    assert "at most 40: shorten it" in long[-1]["error"]


@needs_browser
def test_a_chat_model_is_watched_while_it_answers(
    opened: Callable[..., Page],  # noqa: F811
    serve: Callable[[Path], str],
    chats: Path,
) -> None:
    from axe_playwright_python.base import AXE_FILE_PATH

    page = opened(f"{serve(chats)}/simulator")
    assert page.is_hidden("#gauges") and page.is_hidden("#coefficient") and page.is_visible("#generate")
    assert "Trained: dpo" in page.inner_text("#answers-title")
    page.evaluate("""() => { globalThis.seen = new Set(); new MutationObserver(() =>
        globalThis.seen.add(document.getElementById('answers-tilted').innerText)).observe(
        document.getElementById('answers-tilted'), {childList: true, subtree: true}); }""")
    page.fill("#own-text", "What is an ä?")
    page.press("#own-text", "Enter")
    page.wait_for_selector("#prompt-sure:has-text('The truth is not known here')", timeout=60_000)
    assert "no gold reward and no agreement with wrong opinions" in page.inner_text("#prompt-sure")
    assert page.inner_text("#asked") == "What is an ä?"
    assert page.locator("#answers-sft li").count() == page.locator("#answers-tilted li").count() == 2
    assert page.locator("#answers-tilted .token").count() > 4 and page.locator("#answers-sft .token").count() == 0
    assert page.evaluate("globalThis.seen.size") > 1, "it grew"
    page.evaluate(AXE_FILE_PATH.read_text())
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []
    first = page.inner_text("#answers-tilted")
    page.click("#generate")
    page.wait_for_function(
        "first => { const now = document.getElementById('answers-tilted'); return now.querySelector('.token') && now.innerText !== first; }",
        arg=first,
    )


@needs_browser
def test_a_chat_model_with_a_reward_is_tilted_and_watched(
    opened: Callable[..., Page],  # noqa: F811
    serve: Callable[[Path], str],
    rewarded_chats: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "OF_PRETRAINED", (2, 32))
    page = opened(f"{serve(rewarded_chats)}/simulator")
    assert page.inner_text("#reward option:checked") == "length"
    assert page.is_visible("#gauge-proxy") and page.is_hidden("#gauge-gold") and page.is_hidden("#gauge-agreement")
    assert "gold reward, repeats wrong opinions, right answers" in page.inner_text("#missing")
    assert page.text_content("#samples") == "32"
    assert page.locator("#answers-tilted li").count() == 4, "of the tilted samples"
    page.select_option("#checkpoint", "0")
    page.click("#generate")
    page.wait_for_selector("#prompt-sure:has-text('Sampled now')", timeout=60_000)
    assert page.locator("#answers-sft li").count() == page.locator("#answers-tilted li").count() == 2
    assert "proxy" in page.inner_text("#answers-tilted")
