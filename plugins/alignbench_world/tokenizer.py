"""The world's tokenizer: one token a word, of the transformers kind."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK, USER, ASSISTANT = SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>")

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- ' <user> ' + message['content'] -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- ' <assistant> ' + message['content'] + ' ' + eos_token -}}
    {%- else -%}
        {{- raise_exception('Only user and assistant messages can be rendered, not ' + message['role'] + '.') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- ' <assistant>' -}}
{%- endif -%}
"""


def build_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the special tokens and `words`, in this order; any other word is <unk>."""
    ids = {word: index for index, word in enumerate((*SPECIAL, *words))}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    # As the judge reads: lower case, every sign a word of its own. Texts of the language are unchanged by it.
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
