"""The Policy contract on small transformers models: tokens, log-probabilities, the reference, saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from alignbench_hf.build import build_scratch
from alignbench_hf.config import ScratchConfig
from alignbench_hf.policy import HFPolicy
from alignbench_hf.roles import CopiedRoles
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
)

from alignbench import REFERENCE, Message, Prompt, Sampling, Seeds, Sequences, UserError
from tests import tiny

TEXTS = ("b", "a b c", "", "d e", "h g f e d c b", "h h h h h")  # of 1 to 7 letters, where 6 tokens fit


@pytest.fixture(params=["scratch", "adapters"])
def policy(request: pytest.FixtureRequest) -> HFPolicy:
    return getattr(tiny, request.param)()


def plain(policy: HFPolicy, sequences: Sequences, row: int) -> Tensor:
    """The logits [R, V] before each response token of one row, by the model itself, without padding."""
    prompt = sequences.prompt_ids[row][sequences.prompt_mask[row]]
    response = sequences.response_ids[row][sequences.response_mask[row]]
    with torch.no_grad():
        logits = policy._roles.use("policy")(input_ids=torch.cat([prompt, response])[None]).logits[0]
    return logits[len(prompt) - 1 : -1]


# Tokens


def test_encode(policy: HFPolicy) -> None:
    samples = policy.encode(tiny.PROMPTS, TEXTS, finished=[True, False, True, True, True, True])
    names = policy.tokenizer.get_vocab()
    s = samples.sequences
    assert samples.prompts == tiny.PROMPTS
    assert samples.texts == TEXTS
    wanted = [[names[w] for w in text.split()] + [tiny.EOS] for text in TEXTS]
    wanted[1].pop()  # was cut off: no EOS
    wanted = [row[:6] for row in wanted]
    for row, prompt in enumerate(tiny.PROMPTS):
        asked = [names[w] for w in (*prompt.text.split(), "<bot>")]
        assert s.response_ids[row].tolist() == wanted[row] + [tiny.PAD] * (6 - len(wanted[row]))
        assert s.response_mask[row].tolist() == [True] * len(wanted[row]) + [False] * (6 - len(wanted[row]))
        assert s.prompt_ids[row].tolist() == [tiny.PAD] * (6 - len(asked)) + asked
        assert s.prompt_mask[row].tolist() == [False] * (6 - len(asked)) + [True] * len(asked)
        assert policy.prompt_tokens(prompt) == len(asked)
    assert samples.finished.tolist() == [
        True,
        False,
        True,
        True,
        False,
        True,
    ]  # seven letters: cut; five: EOS just fits
    assert policy.encode(tiny.PROMPTS, TEXTS).finished.tolist() == [True, True, True, True, False, True]


def test_an_empty_response_that_was_cut_off_has_no_tokens(policy: HFPolicy) -> None:
    sequences = policy.encode(tiny.PROMPTS[:2], ["", "a"], finished=[False, True]).sequences
    assert sequences.response_mask.sum(1).tolist() == [0, 2]
    scores = policy.logprobs(sequences, entropy=True)
    assert (scores.logprobs[0] == 0).all()
    assert torch.isfinite(scores.logprobs).all()


def test_generated_and_encoded_tokens_agree(policy: HFPolicy) -> None:
    """What was sampled, decoded and encoded again is the same sequence, unless it held special tokens."""
    samples = policy.generate(tiny.PROMPTS, Sampling(), n=5, rng=torch.Generator().manual_seed(0)).samples
    again = policy.encode(samples.prompts, samples.texts, finished=samples.finished.tolist())
    lengths = samples.sequences.response_mask.sum(1), again.sequences.response_mask.sum(1)
    same = lengths[0] == lengths[1]
    assert same.float().mean() > 0.3
    for row in same.nonzero().squeeze(1).tolist():
        length = int(lengths[0][row])
        assert torch.equal(samples.sequences.response_ids[row, :length], again.sequences.response_ids[row, :length])
        assert bool(samples.finished[row]) == bool(again.finished[row])


@pytest.mark.parametrize("messages", [(), (Message("user", ""),), (Message("user", " \n "),)])
def test_empty_prompts_are_refused_by_name(policy: HFPolicy, messages: tuple[Message, ...]) -> None:
    empty = Prompt("the empty one", messages)
    for ask in (
        lambda: policy.prompt_tokens(empty),
        lambda: policy.encode([tiny.PROMPTS[0], empty], ["a", "b"]),
        lambda: policy.generate([empty], Sampling(), rng=torch.Generator()),
    ):
        with pytest.raises(UserError, match="Prompt 'the empty one' is empty"):
            ask()


def test_long_prompts_are_refused_by_name(policy: HFPolicy) -> None:
    fits, long = tiny.prompt("a b c d e f g"), tiny.prompt("a b c d e f g h")
    assert (policy.prompt_tokens(fits), policy.prompt_tokens(long)) == (8, 9)
    policy.encode([fits], ["a"])
    for ask in (
        lambda: policy.encode([fits, long], ["a", "b"]),
        lambda: policy.generate([long], Sampling(), rng=torch.Generator()),
    ):
        with pytest.raises(UserError, match=r"'a b c d e f g h' has 9 tokens, model.max_prompt_tokens is 8"):
            ask()


def test_conversations_are_told_apart(policy: HFPolicy) -> None:
    """Prompts are remembered by what was said, not by their id."""
    one = Prompt("same", (Message("user", "a b"),))
    two = Prompt("same", (Message("user", "a b"), Message("assistant", "c"), Message("user", "d")))
    assert (policy.prompt_tokens(one), policy.prompt_tokens(two), policy.prompt_tokens(one)) == (3, 6, 3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"chat_template": None}, "no chat template"),
        ({"pad_token": None}, "padding"),
        ({"pad_token": "<eos>"}, "differ"),
    ],
)
def test_tokenizers_that_masks_cannot_rely_on_are_refused(change: dict[str, object], message: str) -> None:
    tokenizer = tiny.letters()
    for name, value in change.items():
        setattr(tokenizer, name, value)
    with pytest.raises(UserError, match=message):
        build_scratch(ScratchConfig(), tokenizer=tokenizer, device=tiny.CPU, seeds=Seeds(0))


def test_impossible_models_are_refused() -> None:
    with pytest.raises(UserError, match=r"Unknown model.scalar_head 'lienar'.*linear"):
        tiny.scratch(scalar_head="lienar")
    with pytest.raises(UserError, match=r"Unknown sampler 'lop'.*generate, loop"):
        tiny.scratch(sampler="lop")
    with pytest.raises(UserError, match=r"Unknown model.value_trunk 'mine'.*own, shared"):
        tiny.scratch(value_trunk="mine")
    with pytest.raises(UserError, match=r"model.hidden_size=18 must be a multiple of model.num_heads=4"):
        tiny.scratch(hidden_size=18, num_heads=4)
    with pytest.raises(UserError, match="tokenizer of its own"):
        build_scratch(ScratchConfig(), tokenizer=None, device=tiny.CPU, seeds=Seeds(0))


def test_weights_come_from_the_seed() -> None:
    one, same, other = tiny.scratch(0), tiny.scratch(0), tiny.scratch(1)
    assert all(torch.equal(a, b) for a, b in zip(one.trainable(), same.trainable(), strict=True))
    assert not torch.equal(one.trainable()[0], other.trainable()[0])


# Log-probabilities


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_logprobs_and_entropy_are_those_of_the_plain_model(policy: HFPolicy, temperature: float) -> None:
    """Each row alone, without padding, through transformers' own forward."""
    sequences = tiny.sequences(policy)
    scores = policy.logprobs(sequences, temperature=temperature, entropy=True)
    assert scores.entropy is not None
    for row in range(len(sequences)):
        log_p = torch.log_softmax(plain(policy, sequences, row) / temperature, -1)
        length = len(log_p)
        expected = log_p.gather(1, sequences.response_ids[row, :length, None])[:, 0]
        torch.testing.assert_close(scores.logprobs[row, :length], expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(scores.entropy[row, :length], -(log_p.exp() * log_p).sum(-1), rtol=0, atol=2e-5)
        assert (scores.logprobs[row, length:] == 0).all()
        assert (scores.entropy[row, length:] == 0).all()
    assert scores.logprobs.dtype == torch.float32


def test_models_with_learnt_positions_count_them_from_the_first_token() -> None:
    """Rotary embeddings hide a shift by the padding on the left; GPT-2's positions do not. Sampling and scoring."""
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=12,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=16,
        initializer_range=0.4,
        pad_token_id=tiny.PAD,
        eos_token_id=tiny.EOS,
        bos_token_id=None,
    )
    roles = CopiedRoles(GPT2LMHeadModel(shape))
    limits = ScratchConfig(max_prompt_tokens=8, max_response_tokens=6)
    policy = HFPolicy(limits, roles, tiny.letters(), pretrained=False, device=tiny.CPU)
    rollout = policy.generate(tiny.PROMPTS, Sampling(), n=4, rng=torch.Generator().manual_seed(0))
    sequences = rollout.samples.sequences
    with torch.no_grad():
        scores = policy.logprobs(sequences).logprobs
    for row in range(len(sequences)):
        log_p = torch.log_softmax(plain(policy, sequences, row), -1)
        expected = log_p.gather(1, sequences.response_ids[row, : len(log_p), None])[:, 0]
        torch.testing.assert_close(scores[row, : len(log_p)], expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(rollout.logprobs[row, : len(log_p)], expected, rtol=0, atol=1e-4)


def test_gradients_with_and_without_padding_agree(policy: HFPolicy) -> None:
    sequences = tiny.sequences(policy, n=1)
    total = sum(policy.logprobs(sequences.select(torch.tensor([i]))).logprobs.sum() for i in range(len(sequences)))
    alone = torch.autograd.grad(total, policy.trainable())
    together = torch.autograd.grad(policy.logprobs(sequences).logprobs.sum(), policy.trainable())
    assert max(float(g.abs().max()) for g in alone) > 1e-2
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_no_gradient_and_any_batch_size_give_the_same(policy: HFPolicy) -> None:
    sequences = tiny.sequences(policy)
    with_gradient = policy.logprobs(sequences, entropy=True)
    assert with_gradient.logprobs.requires_grad
    policy._config.scoring_batch_size = 5
    with torch.no_grad():
        without = policy.logprobs(sequences, entropy=True)
    assert not without.logprobs.requires_grad
    torch.testing.assert_close(without.logprobs, with_gradient.logprobs.detach(), rtol=0, atol=2e-5)
    assert with_gradient.entropy is not None
    assert without.entropy is not None
    torch.testing.assert_close(without.entropy, with_gradient.entropy, rtol=0, atol=2e-5)
    assert policy.logprobs(sequences).entropy is None


def test_what_lies_outside_the_masks_changes_nothing(policy: HFPolicy) -> None:
    """More columns of padding on either side, with any tokens in them."""
    s = tiny.sequences(policy)

    def widen(ids: Tensor, mask: Tensor, left: int, right: int) -> tuple[Tensor, Tensor]:
        garbage = ids.masked_fill(~mask, 7)
        return torch.nn.functional.pad(garbage, (left, right), value=9), torch.nn.functional.pad(mask, (left, right))

    wide = Sequences(*widen(s.prompt_ids, s.prompt_mask, 3, 0), *widen(s.response_ids, s.response_mask, 0, 4))
    role = policy.scalar("reward")
    with torch.no_grad():
        for parameter in role.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    width = s.response_ids.shape[1]
    expected, values = policy.logprobs(s).logprobs, role.values(s)
    got, wide_values = policy.logprobs(wide).logprobs, role.values(wide)
    torch.testing.assert_close(got[:, :width], expected, rtol=0, atol=2e-5)
    assert (got[:, width:] == 0).all()
    defined = torch.nn.functional.pad(s.response_mask, (1, 0), value=True)
    torch.testing.assert_close(wide_values[:, : width + 1][defined], values[defined], rtol=0, atol=5e-5)


# Memory


def test_running_out_of_memory_names_the_part_and_what_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.adapters(generation_batch_size=8, scoring_batch_size=6)
    policy.freeze_reference()
    sequences = tiny.sequences(policy, n=2)

    def full(**rest: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(policy._roles.use("policy").base_model, "forward", full)
    before = [id(module) for module in policy._roles.use("policy").modules()]
    for ask, line in (
        (
            lambda: policy.generate(tiny.PROMPTS, Sampling(), n=2, rng=torch.Generator()),
            "sampling 8 responses at once. It takes less with model.generation_batch_size=4 or model.merge_adapters=false.",
        ),
        (
            lambda: policy.logprobs(sequences, role=REFERENCE),
            "the reference's pass over 6 rows. It takes less with model.scoring_batch_size=3 or model.quantization=nf4.",
        ),
        (
            lambda: policy.logprobs(sequences),
            "the policy's pass over 12 rows. It takes less with micro_batch_size=6 or model.gradient_checkpointing=true.",
        ),
    ):
        with pytest.raises(UserError) as caught:
            ask()
        assert str(caught.value) == f"Out of memory in {line}"
    assert [id(module) for module in policy._roles.use("policy").modules()] == before


# The reference


def test_the_reference_stays_while_the_policy_trains(policy: HFPolicy) -> None:
    policy.freeze_reference()
    sequences = tiny.sequences(policy)
    start = policy.logprobs(sequences).logprobs.detach()
    assert torch.equal(policy.logprobs(sequences, role=REFERENCE).logprobs, start), "it is the policy at that moment"
    optimizer = torch.optim.SGD(policy.trainable(), lr=0.5)
    policy.logprobs(sequences).logprobs.mean().backward()
    optimizer.step()
    assert not policy.logprobs(sequences, role=REFERENCE).logprobs.requires_grad
    assert torch.equal(policy.logprobs(sequences, role=REFERENCE).logprobs, start)
    moved = policy.logprobs(sequences).logprobs.detach()
    assert (moved - start).abs().max() > 1e-2
    policy.freeze_reference()
    assert torch.equal(policy.logprobs(sequences, role=REFERENCE).logprobs, moved), "asked again, it follows"


def test_generation_and_scoring_do_not_disturb_each_other(policy: HFPolicy) -> None:
    """Whatever role was used last, sampling is the policy's, and the weights are the same bits after it."""
    policy.freeze_reference()
    tiny.move(policy, seed=3)
    before = [p.detach().clone() for p in policy._roles.use("policy").parameters()]
    first = policy.generate(tiny.PROMPTS, Sampling(), n=4, rng=torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.logprobs(first.samples.sequences, role=REFERENCE)
    second = policy.generate(tiny.PROMPTS, Sampling(), n=4, rng=torch.Generator().manual_seed(0))
    assert torch.equal(first.logprobs, second.logprobs)
    after = list(policy._roles.use("policy").parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# Saving


def test_a_saved_model_loads_in_plain_transformers(tmp_path: Path) -> None:
    policy = tiny.scratch()
    policy.freeze_reference()
    tiny.move(policy)
    path = policy.save(tmp_path)
    assert path == tmp_path / "model"
    assert not list(path.glob("*.bin")) and list(path.glob("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    sequences = tiny.sequences(policy)
    ids = sequences.prompt_ids[3:4]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, policy._roles.use("policy")(input_ids=ids).logits)
    chat = [{"role": "user", "content": tiny.PROMPTS[1].text}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert len(tokenizer(rendered, add_special_tokens=False)["input_ids"]) == policy.prompt_tokens(tiny.PROMPTS[1])
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (tiny.PAD, tiny.EOS)
    other = tiny.scratch(seed=1)
    other.load(path)
    assert torch.equal(other.logprobs(sequences).logprobs, policy.logprobs(sequences).logprobs)


def test_loading_replaces_the_policy_alone(policy: HFPolicy, tmp_path: Path) -> None:
    path = policy.save(tmp_path)
    sequences = tiny.sequences(policy)
    start = policy.logprobs(sequences).logprobs.detach()
    tiny.move(policy, seed=7)
    policy.freeze_reference()
    value = policy.scalar("value")
    value_before = [p.detach().clone() for p in value.parameters()]
    reference = policy.logprobs(sequences, role=REFERENCE).logprobs
    policy.load(path)
    assert torch.equal(policy.logprobs(sequences).logprobs, start)
    assert torch.equal(policy.logprobs(sequences, role=REFERENCE).logprobs, reference)
    assert not torch.equal(reference, start)
    assert all(torch.equal(a, b) for a, b in zip(value_before, value.parameters(), strict=True))
    assert all(p.requires_grad for p in policy.trainable())


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tiny.scratch(hidden_size=24, num_heads=2).save(tmp_path)
    with pytest.raises(UserError, match=r"another model or rank: lm_head.weight is \[12, 24\], not \[12, 16\]"):
        tiny.scratch().load(path)


# Models whose logits are not their output layer's


def capped(cap: float | None) -> Gemma2ForCausalLM:
    torch.manual_seed(0)
    shape = Gemma2Config(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        head_dim=8,
        num_key_value_heads=1,
        intermediate_size=16,
        pad_token_id=tiny.PAD,
        eos_token_id=tiny.EOS,
        bos_token_id=None,
        final_logit_softcapping=cap,
        initializer_range=0.4,
    )
    return Gemma2ForCausalLM(shape).eval()


def scaled(scale: float) -> GraniteForCausalLM:
    torch.manual_seed(0)
    shape = GraniteConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        pad_token_id=tiny.PAD,
        eos_token_id=tiny.EOS,
        bos_token_id=None,
        logits_scaling=scale,
        initializer_range=0.4,
    )
    return GraniteForCausalLM(shape).eval()


@pytest.mark.parametrize("make, size", [(capped, 30.0), (capped, 2.0), (scaled, 8.0), (scaled, 1.05)])
def test_caps_and_scales_are_the_models_own(make, size: float) -> None:  # type: ignore[no-untyped-def]
    """Scored, sampled and with tokens suppressed; a cap that hardly shows in these logits too."""
    config = ScratchConfig(max_prompt_tokens=8, max_response_tokens=6, suppress_tokens=["a"])
    policy = HFPolicy(config, CopiedRoles(make(size)), tiny.letters(), pretrained=False, device=tiny.CPU)
    rollout = policy.generate(tiny.PROMPTS, Sampling(), n=2, rng=torch.Generator().manual_seed(0))
    sequences = rollout.samples.sequences
    found = policy.logprobs(sequences).logprobs
    suppressed = policy.tokenizer.convert_tokens_to_ids("a")
    for row in range(len(sequences)):
        logits = plain(policy, sequences, row).index_fill(-1, torch.tensor([suppressed]), -torch.inf)
        expected = logits.log_softmax(-1).gather(1, sequences.response_ids[row, : len(logits), None])[:, 0]
        torch.testing.assert_close(found[row, : len(logits)], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(rollout.logprobs[row, : len(logits)], expected, rtol=0, atol=2e-5)


def test_suppressed_tokens_have_no_probability() -> None:
    """Neither in sampling nor in log-probabilities, and what remains is renormalised."""
    plain, policy = tiny.scratch(), tiny.scratch(suppress_tokens=["a", "<pad>"])
    ids = policy.tokenizer.convert_tokens_to_ids(["a", "<pad>"])
    rollout = policy.generate(tiny.PROMPTS, Sampling(), n=40, rng=torch.Generator().manual_seed(0))
    sequences, mask = rollout.samples.sequences, rollout.samples.sequences.response_mask
    assert not torch.isin(sequences.response_ids[mask], torch.tensor(ids)).any()
    with torch.no_grad():
        scores = policy.logprobs(sequences, entropy=True)
        whole = plain.logprobs(sequences).logprobs
    assert scores.entropy is not None
    assert torch.isfinite(scores.entropy).all()
    torch.testing.assert_close(scores.logprobs, rollout.logprobs, rtol=1e-4, atol=1e-5)
    assert bool((scores.logprobs[mask] > whole[mask]).all())
    with torch.no_grad():
        shown = policy.encode(tiny.PROMPTS[:1], ["a b"]).sequences
        assert float(policy.logprobs(shown).logprobs[0, 0]) < -1e6


@pytest.mark.parametrize(("tokens", "message"), [(["zebra"], "'zebra' is no token"), (["<eos>"], "could end")])
def test_tokens_that_cannot_be_suppressed(tokens: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny.scratch(suppress_tokens=tokens)
