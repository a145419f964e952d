"""Models without a chat template: they are given one by name, and supervised fine-tuning teaches them to answer and to stop."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from alignbench_hf.chat.templates import NAMED
from alignbench_hf.chat.tokens import Chat
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignbench import Demonstration, Message, Prompt, UserError
from benchmarks.base_model import pretrain, taught
from tests.core.harness import command, records
from tests.hf.chats import checkpoint, load, merging, talk, turns


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "bare", merging("bytes", None, eos="<|end_of_text|>"))


def test_without_a_template_it_is_refused_before_a_weight_is_read(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbench.pretrained.Checkpoint.model", lambda *_, **__: pytest.fail("weights are read"))
    with pytest.raises(
        UserError, match=r"no chat template, as a base model's.*model\.chat_template=plain\|alpaca.*\.jinja"
    ) as failed:
        load(bare)
    assert "chatml" in str(failed.value) and "llama-3" not in str(failed.value), "those whose tokens it has"
    with pytest.raises(UserError, match=r"Unknown model\.chat_template 'plane'\. Did you mean 'plain'"):
        load(bare, chat_template="plane")
    with pytest.raises(UserError, match=r"chat_template=llama-3 needs control tokens.*<\|start_header_id\|>.*plain\|"):
        load(bare, chat_template="llama-3")
    with pytest.raises(UserError, match=r"nowhere\.jinja cannot be read"):
        load(bare, chat_template="nowhere.jinja")


def test_a_gguf_file_without_a_template_is_refused_before_it_is_converted(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "small.gguf"), "llama")
    writer.add_context_length(32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match=r"small\.gguf has no chat template.*model\.chat_template=plain"):
        load(tmp_path / "small.gguf")
    with pytest.raises(UserError, match="cannot be converted"):
        load(tmp_path / "small.gguf", chat_template="plain")


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
def test_named_templates_agree_with_themselves(
    name: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A prompt and its answer are the conversation, and the end of the answer ends a turn."""
    tokenizer = merging(kind, None, eos="<|end_of_text|>")
    if missing := [token for token in NAMED[name] if token not in tokenizer.get_vocab()]:
        tokenizer.add_special_tokens({"extra_special_tokens": missing}, replace_extra_special_tokens=False)
    policy = load(checkpoint(tmp_path, tokenizer), chat_template=name)
    told = [message for message in caplog.messages if "chat template" in message]
    assert bool(told) == (name == "llama-2" and kind == "bytes"), (
        "of a space before the answer, which Llama 2's own tokenizer adds"
    )
    end = {"chatml": "<|im_end|>", "llama-3": "<|eot_id|>", "gemma": "<end_of_turn>"}.get(name, "<|end_of_text|>")
    assert policy.tokenizer.convert_ids_to_tokens(policy.eos_token_ids[0]) == end
    assert policy.tokenizer.eos_token_id in policy.eos_token_ids
    told_what = Prompt("p", (Message("system", "Be brief."), *talk("One?", "Two.", "Three?").messages))
    text = policy.tokenizer.decode(policy._chat.prompt(told_what))
    places = [text.find(part) for part in ("Be brief", "One?", "Two", "Three?")]
    assert -1 not in places and places == sorted(places)
    saved = AutoTokenizer.from_pretrained(policy.save(tmp_path))
    assert saved.apply_chat_template(
        turns(talk("a")), return_dict=False, add_generation_prompt=True
    ) == policy._chat.prompt(talk("a"))


def test_a_template_begins_as_the_tokenizer_itself_begins_texts(bare: Path) -> None:
    """Llama's and Gemma's base models were never shown a text without BOS."""
    assert not load(bare, chat_template="plain").tokenizer.chat_template.startswith("{{- bos_token")
    tokenizer = AutoTokenizer.from_pretrained(bare)
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = _begins_with(tokenizer)
    tokenizer.save_pretrained(bare)
    for name in ("plain", "llama-2"):
        policy = load(bare, chat_template=name)
        assert policy._chat.prompt(talk("a")).count(2) == 1 and policy._chat.prompt(talk("a"))[0] == 2


def _begins_with(tokenizer: object) -> object:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 2)])


def test_a_padding_token_is_found_where_base_models_have_one() -> None:
    """Pythia's is an added token that its settings do not name."""
    from alignbench.pretrained import padding_token

    tokenizer = merging("bytes", None)
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|padding|>"]}, replace_extra_special_tokens=False)
    assert padding_token(tokenizer) == "<|pad|>"  # of its vocabulary, too
    with pytest.raises(UserError, match="lacks an EOS or a padding token"):
        tokenizer.chat_template = "{{ messages[0].content }}"
        Chat(tokenizer)


# Supervised fine-tuning teaches a base model


PLAIN = [
    *(f"The {who} {did} the {what}. It was a {how} day, of course." for who in ("cat", "dog", "man") for did in ("saw", "had")
      for what in ("mat", "house", "car") for how in ("fine", "cold")),
    *(f"May the {who} have the {what}, please? {said}, the {who} may. There are {number} of them."
      for number, who in enumerate(("cat", "dog", "man")) for what in ("mat", "house", "car") for said in ("Yes", "No")),
]  # fmt: skip


def dialogue(number: int) -> dict[str, str]:
    start = f"\n\nHuman: May I have number {number}, please?\n\nAssistant: "
    return {"chosen": start + "Yes, of course.", "rejected": start + "No."}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    assert pretrain(folder, PLAIN, updates=80, length=64) < 1.5, "it has read something"
    return folder


def test_it_learns_to_answer_and_to_stop(base: Path) -> None:
    settings = {"max_prompt_tokens": 96, "max_response_tokens": 32, "lora_rank": 16}
    policy = load(base, chat_template="plain", **settings)
    rows = [Demonstration(talk(f"May I have number {i}, please?"), "Yes, of course.") for i in range(64)]
    options = {"updates": 40, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 5e-3}
    before, after = taught(policy, rows[:32], rows[32:], **options)
    assert before.loss > 2 and before.finished < 0.5
    assert after.loss < 0.2 and after.finished > 0.9


def test_a_base_model_goes_through_the_whole_pipeline(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SFT, a reward model and PPO; the export answers in plain transformers with its template."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(dialogue(i)) + "\n" for i in range(48)))
    batches = [f"{part}.{name}=8" for part in ("sft", "reward", "algo") for name in ("batch_size", "micro_batch_size")]
    done = command(
        capfd, "algo=ppo", "algo.updates=2", "algo.epochs=1", *batches, "model=hf", f"model.path={base}", "model.chat_template=plain",
        "model.dtype=float32", "model.max_prompt_tokens=96", "model.max_response_tokens=32", "data=hh", f"data.path={data}",
        "data.held_out_rows=8", "annotator=recorded", "sft.updates=40", "sft.learning_rate=0.005", "reward=learned",
        "eval.families=[optimization]", "eval.samples=2", "cache=false", f"results_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert done.code == 0, done.err
    aligned, sft = records(tmp_path / "runs")
    assert sft["metrics"]["optimization/finished"]["value"] > 0.9, "it has learnt to stop"
    assert aligned["status"] == "finished"
    (run,) = (tmp_path / "runs").glob("*-ppo-*")
    assert "chat_template: plain" in (run / "config.yaml").read_text()
    for folder in (run / "adapter", run / "sft" / "adapter"):
        assert "### Assistant:" in AutoTokenizer.from_pretrained(folder).chat_template
    done = command(capfd, "export", str(run / "sft"), "--merged", "--output", str(tmp_path / "out"))
    assert done.code == 0, done.err
    model, words = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    asked = words.apply_chat_template(
        turns(talk("May I have number 3, please?")), add_generation_prompt=True, return_tensors="pt"
    )
    torch.manual_seed(0)
    answer = model.generate(**asked, max_new_tokens=32, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert words.decode(answer) == "Yes, of course.<|endoftext|>"
