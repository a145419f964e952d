"""The tokenizer of sums: one token a sign, of the transformers kind."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SIGNS = "0123456789+="
PAD, EOS, UNK, USER, ASSISTANT = SPECIAL = ("<pad>", "<eos>", "<unk>", "<user>", "<assistant>")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '<user>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<assistant>' + message['content'] + eos_token -}}
    {%- else -%}
        {{- raise_exception('Only user and assistant messages can be rendered, not ' + message['role'] + '.') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<assistant>' -}}
{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Every digit is a token of its own; white space says nothing, and any other sign is <unk>."""
    ids = {token: index for index, token in enumerate((*SPECIAL, *SIGNS))}
    backend = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    backend.normalizer = normalizers.Replace(Regex(r"\s+"), "")
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"."), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
