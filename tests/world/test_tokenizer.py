"""The world's tokenizer loses nothing of the language and survives being saved."""

import pytest
from alignbench_world.config import WorldConfig
from alignbench_world.judge import read
from alignbench_world.language import PHRASINGS, vocabulary
from alignbench_world.source import WorldData
from transformers import AutoTokenizer

from alignbench import Seeds, Split


@pytest.fixture(scope="module")
def world():
    return WorldData(WorldConfig(train_prompts=2000, demonstrations=2000), seeds=Seeds(0))


@pytest.fixture(scope="module")
def tokenizer(world):
    return world.tokenizer()


def every_text(world):
    yield from (prompt.text for split in Split for prompt in world.prompts(split))
    yield from (shown.response for shown in (*world.lessons(), *world.demonstrations()))
    yield from (lesson.prompt.text for lesson in world.lessons())
    yield from (
        phrasing.format(value="lumen", entity="alvia", relation="capital")
        for phrasings in PHRASINGS.values()
        for phrasing in phrasings
    )
    yield from vocabulary()


def test_round_trip(world, tokenizer):
    texts = sorted(set(every_text(world)))
    encoded = tokenizer(texts)["input_ids"]
    assert tokenizer.batch_decode(encoded, skip_special_tokens=True) == texts
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)
    assert all(
        len(ids) == read(text).length for ids, text in zip(encoded, texts, strict=True)
    )  # the judge counts tokens


def test_special_tokens(tokenizer):
    ids = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    assert len(set(ids)) == 4 and tokenizer.padding_side == "left"
    assert len(tokenizer) == len(vocabulary()) + 6 < 200
    assert tokenizer.decode(tokenizer.encode("lumen <eos> <pad>"), skip_special_tokens=True) == "lumen"
    assert tokenizer.encode("gibberish") == [tokenizer.unk_token_id]


def test_chat_template(tokenizer):
    user, assistant = {"role": "user", "content": "be brief ."}, {"role": "assistant", "content": "lumen ."}
    rendered = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    assert rendered == "<bos> <user> be brief . <assistant>"
    ids = tokenizer.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([user, assistant], return_dict=False)
    # A prompt's tokens and a response's tokens, put together, are those of the whole conversation.
    assert whole == [*ids, *tokenizer.encode("lumen ."), tokenizer.eos_token_id]
    assert ids == tokenizer.encode(rendered, add_special_tokens=False)
    with pytest.raises(Exception, match="not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "be brief ."}], tokenize=False)


def test_saved_and_loaded_again(world, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = sorted(set(every_text(world)))
    ids = tokenizer(texts)["input_ids"]
    assert loaded(texts)["input_ids"] == ids
    assert loaded.batch_decode(ids, skip_special_tokens=True) == texts
    assert loaded.all_special_ids == tokenizer.all_special_ids and loaded.padding_side == "left"
    chat = [{"role": "user", "content": texts[0]}]
    assert loaded.apply_chat_template(chat, tokenize=False) == tokenizer.apply_chat_template(chat, tokenize=False)
