"""Rows of one prompt share its computation: the same numbers from fewer tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from alignbench_hf import prompts as module
from alignbench_hf.policy import HFPolicy
from alignbench_hf.prompts import aligned, by_prompt, common_start, distinct_prompts, pieces, reading
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbench import REFERENCE, Sampling, Sequences
from tests import tiny

property_test = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> HFPolicy:
    """Prompts are shared wherever two rows have one."""
    monkeypatch.setattr(module, "WORTHWHILE", 1.0)
    policy = tiny.adapters()
    policy.freeze_reference()
    tiny.move(policy, seed=3)
    return policy


class Tokens:
    """Counts the positions that the policy's trunk computes, padding included."""

    def __init__(self, policy: HFPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, trunk = 0, policy._roles.use("policy").base_model
        honest = trunk.forward

        def counting(input_ids: torch.Tensor, **rest: object) -> object:
            self.count += input_ids.numel()
            return honest(input_ids=input_ids, **rest)

        monkeypatch.setattr(trunk, "forward", counting)

    def of(self, ask: object) -> int:
        before = self.count
        ask()  # type: ignore[operator]
        return self.count - before


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[HFPolicy]:
    """The same policy, each row of which reads its own prompt."""
    policy = tiny.adapters()
    policy.freeze_reference()
    tiny.move(policy, seed=3)
    monkeypatch.setattr(type(policy._roles), "share_prompts", property(lambda roles: roles is not policy._roles))
    yield policy


def test_scores_and_gradients_are_those_of_rows_apart(policy: HFPolicy, apart: HFPolicy) -> None:
    sequences = tiny.sequences(policy, n=4)
    for role in ("policy", REFERENCE):
        with torch.no_grad():
            one = policy.logprobs(sequences, role=role, entropy=True, greedy=True)
            other = apart.logprobs(sequences, role=role, entropy=True, greedy=True)
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=2e-5)
        torch.testing.assert_close(one.entropy, other.entropy, rtol=0, atol=2e-5)
        assert torch.equal(one.greedy, other.greedy)  # type: ignore[arg-type]
    weights = torch.randn(sequences.response_ids.shape, generator=torch.Generator().manual_seed(0))
    for p in (policy, apart):
        (p.logprobs(sequences).logprobs * weights).sum().backward()
    for mine, theirs in zip(policy.trainable(), apart.trainable(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    assert max(float(p.grad.abs().max()) for p in policy.trainable() if p.grad is not None) > 1e-2


def test_a_start_that_all_prompts_have_is_read_once(
    policy: HFPolicy, apart: HFPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of different lengths after it, with one response each and with several; also where a prompt is nothing else."""
    for texts, n, positions in (
        (("a b c", "a b e f g", "a b"), 1, 2 + 3 * 4),
        (("a b c", "a b e f g", "a b"), 4, 2 + 3 * 4),
    ):
        prompts = tuple(map(tiny.prompt, texts))
        rng = torch.Generator().manual_seed(0)
        sequences = policy.generate(prompts, Sampling(), n=n, rng=rng).samples.sequences
        with monkeypatch.context() as patch:
            tokens = Tokens(policy, patch)
            with torch.no_grad():
                asked = tokens.of(lambda sequences=sequences: policy.logprobs(sequences))
        assert asked == positions + sequences.response_ids.numel()
        weights = torch.randn(sequences.response_ids.shape, generator=rng)
        found, grads = [], []
        for p in (policy, apart):
            for parameter in p.trainable():
                parameter.grad = None
            scores = p.logprobs(sequences).logprobs
            (scores * weights).sum().backward()
            found.append(scores.detach())
            grads.append(torch.cat([parameter.grad.flatten() for parameter in p.trainable()]))  # type: ignore[union-attr]
        torch.testing.assert_close(*found, rtol=0, atol=2e-5)
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)
        assert float(grads[0].abs().max()) > 1e-2


@pytest.mark.parametrize("head", ["linear", "evidence"])
def test_values_are_those_of_rows_apart(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORTHWHILE", 1.0)
    policy = tiny.adapters(scalar_head=head)
    role = policy.scalar("value")
    with torch.no_grad():
        for parameter in role.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    sequences = tiny.sequences(policy, n=4)
    tokens = Tokens(policy, monkeypatch)
    with torch.no_grad():
        shared = role.values(sequences)
        first = tokens.count
        monkeypatch.setattr(module, "WORTHWHILE", 0.0)
        apart = role.values(sequences)
    assert 0 < first < tokens.count - first
    defined = torch.nn.functional.pad(sequences.response_mask, (1, 0), value=True)
    torch.testing.assert_close(shared[defined], apart[defined], rtol=0, atol=2e-5)


def test_a_prompt_is_read_once(policy: HFPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the scores and by the sampler, whatever the order of the rows and the padding around them."""
    tokens = Tokens(policy, monkeypatch)
    prompts = int(distinct_prompts(*_prompt_columns(tiny.sequences(policy))).first.numel())
    rollout = lambda n: policy.generate(  # noqa: E731
        tiny.PROMPTS, Sampling(max_new_tokens=1), n=n, rng=torch.Generator().manual_seed(0)
    )
    width = 6  # of the longest of PROMPTS
    assert tokens.of(lambda: rollout(1)) == tokens.of(lambda: rollout(5)) == prompts * width
    sequences = tiny.sequences(policy, n=5)
    shuffled = sequences.select(torch.randperm(len(sequences), generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        for given_ in (sequences, shuffled):
            asked = tokens.of(lambda given_=given_: policy.logprobs(given_))
            assert asked == prompts * width + given_.response_ids.numel()


def _prompt_columns(sequences: Sequences) -> tuple[torch.Tensor, torch.Tensor]:
    return sequences.prompt_ids, sequences.prompt_mask


def test_what_is_scored_does_not_depend_on_order_or_padding(policy: HFPolicy) -> None:
    sequences = tiny.sequences(policy, n=3)
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(2))
    wide = Sequences(
        torch.nn.functional.pad(sequences.prompt_ids.masked_fill(~sequences.prompt_mask, 7), (2, 0), value=5),
        torch.nn.functional.pad(sequences.prompt_mask, (2, 0)),
        torch.nn.functional.pad(sequences.response_ids.masked_fill(~sequences.response_mask, 7), (0, 3), value=5),
        torch.nn.functional.pad(sequences.response_mask, (0, 3)),
    )
    with torch.no_grad():
        expected = policy.logprobs(sequences).logprobs
        mixed = policy.logprobs(sequences.select(order)).logprobs
        padded = policy.logprobs(wide).logprobs
        policy._config.scoring_batch_size = 4
        small = policy.logprobs(sequences).logprobs
    torch.testing.assert_close(mixed, expected[order], rtol=0, atol=2e-5)
    torch.testing.assert_close(padded[:, : expected.shape[1]], expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(small, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [1, 3, 7, 256])
def test_samples_are_those_of_rows_apart(policy: HFPolicy, apart: HFPolicy, size: int) -> None:
    """Also where a piece has a part of a prompt's rows."""
    policy._config.generation_batch_size = size
    one, other = (
        p.generate(tiny.PROMPTS, Sampling(), n=5, rng=torch.Generator().manual_seed(0)) for p in (policy, apart)
    )
    assert torch.equal(one.samples.sequences.response_ids, other.samples.sequences.response_ids)
    torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=2e-4)


def test_a_small_model_that_is_trained_whole_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a prompt costs next to nothing, and published results keep their last bits."""
    policy = tiny.scratch()
    sequences = tiny.sequences(policy, n=4)
    tokens = Tokens(policy, monkeypatch)
    with torch.no_grad():
        policy.logprobs(sequences)
    assert tokens.count == sequences.prompt_ids.numel() + sequences.response_ids.numel()


@st.composite
def batches(draw: st.DrawFn) -> tuple[Sequences, int]:
    """Rows with one of a few prompts, and the size of a piece."""
    asked = draw(st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=6), min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(st.integers(0, len(asked) - 1), st.integers(0, 5)), min_size=1, max_size=20))

    def columns(lists: list[list[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(max(len(row) for row in lists), 1)
        ids = [[0] * (width - len(r)) + r if left else r + [0] * (width - len(r)) for r in lists]
        mask = [[i >= width - len(r) if left else i < len(r) for i in range(width)] for r in lists]
        return torch.tensor(ids), torch.tensor(mask)

    prompts = columns([asked[prompt] for prompt, _ in rows], left=True)
    responses = columns([[5] * length for _, length in rows], left=False)
    return Sequences(*prompts, *responses), draw(st.integers(1, 8))


@given(batches())
@property_test
def test_a_common_start_is_common_and_moved_to_the_front(case: tuple[Sequences, int]) -> None:
    """Every row keeps its tokens in their order, and at least one of them for itself."""
    rows, _ = case
    start = common_start(rows.prompt_ids, rows.prompt_mask)
    read = lambda ids, mask: [row[kept].tolist() for row, kept in zip(ids, mask.bool(), strict=True)]  # noqa: E731
    before = read(rows.prompt_ids, rows.prompt_mask)
    assert all(row[:start] == before[0][:start] and len(row) > start for row in before)
    assert len({tuple(row[: start + 1]) for row in before}) > 1 or min(map(len, before)) == start + 1
    ids, mask = aligned(rows.prompt_ids, rows.prompt_mask, start)
    assert ids.shape == rows.prompt_ids.shape
    assert bool(mask[:, :start].all())
    assert read(ids, mask) == before


@given(batches())
@property_test
def test_a_reading_is_never_dearer_than_none(case: tuple[Sequences, int]) -> None:
    rows, _ = case
    columns = rows.prompt_ids.shape[1] + rows.response_ids.shape[1]
    assert reading(rows.prompt_ids, rows.prompt_mask, rows.response_ids.shape[1]).tokens <= len(rows) * columns


@given(batches())
@property_test
def test_pieces_hold_every_row_once(case: tuple[Sequences, int]) -> None:
    sequences, size = case
    for share in (False, True):
        found = list(pieces(sequences, size, share=share))
        assert all(1 <= len(rows) <= size for rows in found)
        assert sorted(torch.cat(found).tolist()) == list(range(len(sequences)))


@given(batches())
@property_test
def test_rows_of_one_prompt_are_neighbours(case: tuple[Sequences, int]) -> None:
    sequences, _ = case
    prompts = distinct_prompts(sequences.prompt_ids, sequences.prompt_mask)
    for row, which in enumerate(prompts.of_row.tolist()):
        first = int(prompts.first[which])
        assert first <= row
        for column in (sequences.prompt_ids, sequences.prompt_mask):
            assert torch.equal(column[first], column[row])
    order = prompts.of_row[by_prompt(sequences)]
    assert len(torch.unique_consecutive(order)) == len(prompts) == len(order.unique())


def test_grouping_saves_tokens_where_it_can() -> None:
    """Two long prompts with four responses each: 8 x (10 + 2) tokens apart, 2 x 10 + 8 x 2 shared."""
    ids = torch.arange(10)[None].expand(8, -1) + torch.tensor([0, 1] * 4)[:, None]
    sequences = Sequences(ids, torch.ones(8, 10).bool(), torch.ones(8, 2).long(), torch.ones(8, 2).bool())
    grouped = [rows.tolist() for rows in pieces(sequences, 4, share=True)]
    assert grouped == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert [rows.tolist() for rows in pieces(sequences, 4, share=False)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
