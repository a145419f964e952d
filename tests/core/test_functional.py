"""The shared mathematics against float64 references, closed forms and enumeration."""

from __future__ import annotations

import gc
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignbench import NonFiniteError, OptimizerConfig, Prompt, Ranking, Sequences, UserError, functional

property_test = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def masked(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Values [B, R] and a mask of any pattern; what lies outside the mask is NaN or infinite."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    mask = torch.rand(rows, columns, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    values = torch.randn(rows, columns, generator=generator) * draw(st.sampled_from([0.01, 1.0, 50.0]))
    values[~mask] = draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    return values, mask


# Masked reductions


@given(masked())
@property_test
def test_masked_sum_and_mean(sample: tuple[Tensor, Tensor]) -> None:
    values, mask = sample
    exact = np.ma.masked_array(values.double().numpy(), ~mask.numpy())
    for dim in (None, 0, 1):
        total = np.ma.filled(exact.sum(dim), 0.0)
        mean = np.ma.filled(exact.mean(dim), 0.0)
        np.testing.assert_allclose(functional.masked_sum(values, mask, dim).numpy(), total, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(functional.masked_mean(values, mask, dim).numpy(), mean, rtol=1e-5, atol=1e-4)
        assert torch.equal(functional.masked_sum(values, mask.long(), dim), functional.masked_sum(values, mask, dim))


def test_masked_sum_lets_no_gradient_out_of_the_mask() -> None:
    values = torch.tensor([[1.0, math.nan], [2.0, math.inf]], requires_grad=True)
    functional.masked_sum(values, torch.tensor([[True, False], [True, False]])).backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1, 0], [1, 0]]


@given(masked(), st.booleans())
@property_test
def test_masked_whiten(sample: tuple[Tensor, Tensor], shift_mean: bool) -> None:
    values, mask = sample
    inside = values[mask].double()
    assume(len(inside) > 1 and inside.std() > 1e-3)
    white = functional.masked_whiten(values, mask, shift_mean=shift_mean)
    expected = (inside - inside.mean()) / (inside.var(correction=0) + 1e-8).sqrt() + (
        0 if shift_mean else inside.mean()
    )
    torch.testing.assert_close(white[mask].double(), expected, rtol=1e-3, atol=1e-3)
    assert (white[~mask] == 0).all()


def test_masked_whiten_of_equal_values_is_zero() -> None:
    assert (functional.masked_whiten(torch.full((2, 3), 7.0), torch.ones(2, 3).bool()) == 0).all()


# Log-probabilities


@given(
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(2, 7),
    st.integers(1, 12),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.booleans(),
)
@property_test
def test_token_logprobs_in_chunks(
    rows: int, columns: int, vocabulary: int, chunk: int, temperature: float, trained: bool
) -> None:
    """Values, gradients (of states and of a head that is trained) and entropy agree with float64, in one piece or many."""
    generator = torch.Generator().manual_seed(rows * columns + vocabulary)
    states = torch.randn(rows, columns, 3, generator=generator)
    weight = torch.randn(vocabulary, 3, generator=generator)
    targets = torch.randint(vocabulary, (rows, columns), generator=generator)
    upstream = torch.randn(rows, columns, generator=generator)

    exact_states, exact_weight = states.double().requires_grad_(), weight.double().requires_grad_()
    exact = torch.log_softmax(exact_states @ exact_weight.T / temperature, -1)
    exact_logprobs = exact.gather(-1, targets[..., None]).squeeze(-1)
    (exact_logprobs * upstream).sum().backward()

    for max_logits in (chunk * vocabulary, 10_000):
        head = torch.nn.Linear(3, vocabulary, bias=False).requires_grad_(trained)
        head.weight.data.copy_(weight)
        hidden = states.clone().requires_grad_()
        found = functional.token_logprobs(
            hidden, head, targets, temperature=temperature, entropy=True, greedy=True, max_logits=max_logits
        )
        logprobs, entropy = found.logprobs, found.entropy
        (logprobs * upstream).sum().backward()
        assert entropy is not None
        assert not entropy.requires_grad
        torch.testing.assert_close(logprobs.double(), exact_logprobs, rtol=1e-4, atol=1e-5)
        assert found.greedy is not None
        assert torch.equal(found.greedy, exact.argmax(-1) == targets)
        torch.testing.assert_close(entropy.double(), -(exact.exp() * exact).sum(-1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(hidden.grad.double(), exact_states.grad, rtol=1e-3, atol=1e-5)
        if trained:
            torch.testing.assert_close(head.weight.grad.double(), exact_weight.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("trained", [True, False])
def test_token_logprobs_never_holds_all_logits(trained: bool) -> None:
    """The head gives `max_logits` numbers at a time, and nothing that large is kept for the backward pass; one that is not
    trained gives each once."""
    seen: list[int] = []
    head = torch.nn.Linear(4, 1000).requires_grad_(trained)
    head.register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    hidden = torch.randn(64, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logprobs = functional.token_logprobs(hidden, head, torch.zeros(64, dtype=torch.long), max_logits=8000).logprobs
    assert max(seen) == 8000
    assert max(saved, default=0) < 8000
    logprobs.sum().backward()
    assert hidden.grad is not None
    assert sum(seen) == (2 if trained else 1) * 64 * 1000


def test_token_logprobs_without_entropy() -> None:
    found = functional.token_logprobs(torch.randn(2, 3), torch.nn.Linear(3, 5), torch.tensor([0, 1]))
    assert found.entropy is None
    assert found.greedy is None


def test_stacked_rows_are_those_of_both() -> None:
    """Prompts stay left-padded and responses right-padded."""

    def some(rows: int, prompt: int, response: int) -> Sequences:
        ids = lambda width: torch.arange(rows * width).view(rows, width) + 1  # noqa: E731
        return Sequences(ids(prompt), ids(prompt) > 1, ids(response), ids(response) % 2 == 0)

    first, second = some(2, 3, 1), some(3, 1, 4)
    both = functional.stacked(first, second)
    assert both.prompt_ids.shape == (5, 3)
    assert both.response_mask.shape == (5, 4)
    for part, rows in ((first, slice(0, 2)), (second, slice(2, 5))):
        assert torch.equal(both.prompt_ids[rows, 3 - part.prompt_ids.shape[1] :], part.prompt_ids)
        assert torch.equal(both.response_ids[rows, : part.response_ids.shape[1]], part.response_ids)
    assert not both.prompt_mask[2:, :2].any()
    assert not both.response_mask[:2, 1:].any()


# KL


def distributions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_p = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0)
    log_q = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(0)
    return log_p, log_q


def test_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    """The expectation over the whole of a small categorical is the KL itself."""
    log_p, log_q = distributions()
    kl = (log_p.exp() * (log_p - log_q)).sum()
    assert kl > 0.3

    def expectation(estimator: Tensor) -> Tensor:
        return (log_p.exp() * estimator).sum()

    torch.testing.assert_close(expectation(functional.kl_k1(log_p, log_q)), kl)
    torch.testing.assert_close(expectation(functional.kl_k3(log_p, log_q)), kl)
    assert abs(expectation(functional.kl_k2(log_p, log_q)) - kl) > 0.01
    assert functional.kl_k1(log_p, log_q).min() < 0
    assert functional.kl_k3(log_p, log_q).min() >= 0


@given(st.floats(-8, 0), st.floats(-8, 0))
@property_test
def test_kl_estimators_by_their_formulas(log_p: float, log_q: float) -> None:
    p, q = torch.tensor(log_p, dtype=torch.float64), torch.tensor(log_q, dtype=torch.float64)
    difference = log_p - log_q
    assert functional.kl_k1(p, q).item() == pytest.approx(difference)
    assert functional.kl_k2(p, q).item() == pytest.approx(difference**2 / 2)
    assert functional.kl_k3(p, q).item() == pytest.approx(math.exp(-difference) - 1 + difference, abs=1e-12)


def test_k3_of_close_distributions_does_not_cancel() -> None:
    """exp(x) - 1 - x in float32 would be noise here: expm1 keeps it."""
    difference = torch.tensor(1e-3)
    assert functional.kl_k3(torch.zeros(()), difference).item() == pytest.approx(1e-6 / 2 + 1e-9 / 6, rel=1e-3)


def test_sequence_kl_is_the_sum_over_response_tokens() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, 9.0], [-0.5, 9.0, 9.0]])
    reference = torch.tensor([[-1.5, -2.5, math.nan], [-0.25, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert functional.sequence_kl(logprobs, reference, mask).tolist() == [1.0, -0.25]


def test_sequence_kl_is_the_kl_of_whole_responses() -> None:
    """Its expectation over every response of three tokens is the sum of the per-token KLs."""
    log_p, log_q = distributions()
    ids = torch.tensor(list(itertools.product(range(6), repeat=3)))
    chosen_p, chosen_q = log_p[ids], log_q[ids]
    kl = functional.sequence_kl(chosen_p, chosen_q, torch.ones_like(ids))
    expected = 3 * (log_p.exp() * (log_p - log_q)).sum()
    torch.testing.assert_close((chosen_p.sum(1).exp() * kl).sum(), expected)


# The optimizer


def factors(schedule: str, updates: int, warmup: int) -> list[float]:
    return [functional.learning_rate_at(u, updates=updates, schedule=schedule, warmup=warmup) for u in range(updates)]


def test_learning_rate_schedules() -> None:
    assert factors("constant", 3, 0) == [1, 1, 1]
    assert factors("linear", 4, 0) == [1, 0.75, 0.5, 0.25]
    assert factors("cosine", 4, 0) == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    assert factors("linear", 6, 3) == pytest.approx([0.25, 0.5, 0.75, 1, 2 / 3, 1 / 3])
    with pytest.raises(UserError, match=r"Unknown schedule 'step'.*constant, cosine, linear"):
        factors("step", 1, 0)


@given(st.sampled_from(["constant", "linear", "cosine"]), st.integers(1, 40), st.integers(0, 50))
@property_test
def test_learning_rate_rises_then_falls_and_is_never_zero(schedule: str, updates: int, warmup: int) -> None:
    values = factors(schedule, updates, warmup)
    assert all(0 < value <= 1 for value in values), "an update with learning rate 0 would be wasted"
    assert values[: warmup + 1] == sorted(values[: warmup + 1])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 6), st.integers(0, 99))
@property_test
def test_shuffled_batches_show_every_row_once_before_any_again(rows: int, size: int, count: int, seed: int) -> None:
    batches = functional.shuffled_batches(rows, size, torch.Generator().manual_seed(seed))
    seen = torch.cat(list(itertools.islice(batches, count)))
    assert len(seen) == size * count
    for start in range(0, len(seen) - rows + 1, rows):
        assert sorted(seen[start : start + rows].tolist()) == list(range(rows))


def optimizer(max_grad_norm: float, **groups: torch.nn.Parameter) -> functional.ScheduledAdamW:
    config = OptimizerConfig(learning_rate=0.1, lr_schedule="linear", max_grad_norm=max_grad_norm, weight_decay=0.02)
    return functional.ScheduledAdamW(config, {name: [parameter] for name, parameter in groups.items()}, updates=4)


def parameter(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


@pytest.mark.parametrize("gradient, share", [(1e-5, 0.5), (1e-7, 1 / 101), (1e-2, 1.0)])
def test_a_gradient_of_the_size_of_adam_eps_takes_half_a_step(gradient: float, share: float) -> None:
    """As the docstring of adam_eps says; at the first step no bias correction hides it."""
    weight = parameter(0.0)
    weight.grad = torch.tensor([gradient])
    made = optimizer(0.0, policy=weight)
    rate = made.next_update()
    made.step()
    assert float(weight.detach()) == pytest.approx(-rate * share, rel=2e-3)


def test_a_group_may_have_a_learning_rate_of_its_own() -> None:
    policy, value = parameter(0.0), parameter(0.0)
    groups = {"policy": [policy], "value": [value]}
    config = OptimizerConfig(learning_rate=0.1, lr_schedule="linear", max_grad_norm=0.0, adam_eps=1e-12)
    made = functional.ScheduledAdamW(config, groups, 2, learning_rates={"value": 0.01})
    moved = []
    for update in range(2):
        assert made.next_update() == pytest.approx(0.1 * (1 - update / 2))
        before = float(policy.detach()), float(value.detach())
        policy.grad, value.grad = torch.ones(1), torch.ones(1)
        made.step()
        moved.append((before[0] - float(policy.detach()), before[1] - float(value.detach())))
    assert moved == [pytest.approx((0.1, 0.01), rel=1e-4), pytest.approx((0.05, 0.005), rel=1e-4)]


def test_gradients_beside_are_held_no_longer_than_from_a_loss_to_its_step() -> None:
    """They are as large as the policy: of 9973 weights there are then itself, AdamW's two moments and its own gradient."""

    def held() -> int:
        gc.collect()
        return sum(isinstance(one, torch.Tensor) and one.shape == (9973,) for one in gc.get_objects())

    policy, value = torch.nn.Parameter(torch.ones(9973)), parameter(1.0)
    config = OptimizerConfig(max_grad_norm=0.0)
    made = functional.ScheduledAdamW(config, {"policy": [policy], "value": [value]}, 3, reaches={"value": "policy"})
    assert held() == 1
    for _ in range(2):
        made.next_update()
        made.zero_grad()
        for _ in range(2):
            made.backward_of("value", (policy.sum() * value).sum())
        policy.sum().backward()
        made.step()
        assert policy.grad is not None
        assert policy.grad[0].item() == pytest.approx(1 + 2 * float(value.detach()), abs=1e-2)
        assert held() <= 4
    made.step()
    assert policy.grad[0].item() == pytest.approx(1 + 2 * float(value.detach()), abs=1e-2), "added once"


def test_each_group_is_clipped_on_its_own() -> None:
    policy, value = parameter(0.0, 0.0), parameter(0.0)
    policy.grad, value.grad = torch.tensor([0.3, 0.4]), torch.tensor([100.0])
    norms = optimizer(1.0, policy=policy, value=value).step()
    assert norms == pytest.approx({"policy": 0.5, "value": 100.0})
    assert policy.grad.tolist() == pytest.approx([0.3, 0.4]), "a large value gradient must not shrink the policy's"
    assert value.grad.tolist() == pytest.approx([1.0], rel=1e-4)


def test_no_limit_means_no_clipping() -> None:
    policy = parameter(0.0)
    policy.grad = torch.tensor([100.0])
    assert optimizer(0.0, policy=policy).step() == {"policy": 100.0}
    assert policy.grad.item() == 100.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused_before_any_group_steps(bad: float) -> None:
    policy, value = parameter(1.0), parameter(2.0, 3.0)
    policy.grad, value.grad = torch.tensor([0.5]), torch.tensor([0.1, bad])
    scheduled = optimizer(1.0, policy=policy, value=value)
    with pytest.raises(NonFiniteError, match=r"the value gradient norm .*Lower the learning rate"):
        scheduled.step()
    assert (policy.tolist(), value.tolist(), scheduled.steps) == ([1.0], [2.0, 3.0], 0)


def test_scheduled_adamw_is_adamw_with_the_schedule() -> None:
    ours, theirs = parameter(1.0, -2.0), parameter(1.0, -2.0)
    scheduled = optimizer(0.0, policy=ours)
    plain = torch.optim.AdamW([theirs], lr=0.1, eps=1e-5, weight_decay=0.02)
    for update, factor in enumerate((1.0, 0.75, 0.5)):
        assert scheduled.next_update() == pytest.approx(0.1 * factor)
        plain.param_groups[0]["lr"] = 0.1 * factor
        for one in (ours, theirs):
            one.grad = torch.tensor([0.5 + update, -1.0])
        scheduled.step()
        plain.step()
        assert torch.equal(ours, theirs)
    assert scheduled.steps == 3


def test_scheduled_adamw_goes_on_from_its_state() -> None:
    def run(resume: bool) -> list[float]:
        weights = parameter(1.0)
        scheduled = optimizer(1.0, policy=weights)
        for update in range(4):
            if resume and update == 2:
                state, scheduled = scheduled.state_dict(), optimizer(1.0, policy=weights)
                scheduled.load_state_dict(state)
            scheduled.next_update()
            weights.grad = torch.tensor([0.1 * (update + 1)])
            scheduled.step()
        return [weights.item(), scheduled.steps]

    assert run(resume=True) == run(resume=False)


def test_require_finite_counts_and_hints() -> None:
    good = torch.tensor([1.0, 2.0])
    assert functional.require_finite("the loss", good) is good
    bad = torch.tensor([1.0, math.nan, math.inf, -math.inf])
    with pytest.raises(NonFiniteError, match=r"^the loss is NaN or infinite \(3 of 4 values\)\. Look\.$"):
        functional.require_finite("the loss", bad, hint="Look.")


# Rankings


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcde")), max_size=6))
@property_test
def test_ranking_to_pairs(answers: list[tuple[int, str]]) -> None:
    """Every two responses that differ in rank and in text give one pair, better first; ties give none."""
    ranks, responses = [rank for rank, _ in answers], [text for _, text in answers]
    finished = tuple(index % 2 == 0 for index in range(len(answers)))
    ranking = Ranking(Prompt("p", ()), tuple(responses), tuple(ranks), finished)
    pairs = functional.ranking_to_pairs(ranking)
    expected = [
        (responses[a], responses[b], (finished[a], finished[b]))
        for a, b in itertools.permutations(range(len(answers)), 2)
        if ranks[a] < ranks[b] and responses[a] != responses[b]
    ]
    assert sorted((pair.chosen, pair.rejected, pair.finished) for pair in pairs) == sorted(expected)
    assert all(pair.prompt is ranking.prompt for pair in pairs)


def test_ranks_of_values() -> None:
    assert functional.ranks_of([1.5, 3.0, 1.5, 0.0]) == (1, 0, 1, 2)
    assert functional.ranks_of([]) == ()


def test_ranking_to_pairs_counts() -> None:
    def count(*ranks: int) -> int:
        texts = tuple(f"response {index}" for index in range(len(ranks)))
        return len(functional.ranking_to_pairs(Ranking(Prompt("p", ()), texts, ranks)))

    assert count(0, 1, 2, 3) == 6
    assert count(3, 0, 2, 1) == 6
    assert count(0, 0, 1, 2) == 5
    assert count(0, 0, 1, 1) == 4
    assert count(1, 1, 1) == 0
    assert count(0) == 0


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_one_line(error: Exception) -> None:
    with (
        pytest.raises(UserError, match=r"^Out of memory in the pass over 64 rows. It takes less with a=32 or b=true.$"),
        functional.within_memory("the pass over 64 rows", "a=32", "b=true"),
    ):
        raise error


def test_a_real_allocation_that_cannot_be() -> None:
    with pytest.raises(UserError, match="Out of memory in a pass"), functional.within_memory("a pass", "less"):
        torch.empty(2**60)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"), functional.within_memory("a pass", "less"):
        torch.ones(2) + torch.ones(3)


def test_paged_adamw_wants_a_gpu() -> None:
    with pytest.raises(UserError, match=r"Unknown optimizer 'adam'.*adamw.*paged_adamw_8bit"):
        OptimizerConfig(optimizer="adam")
    with pytest.raises(UserError, match="optimizer=paged_adamw_8bit needs a CUDA device, not cpu: use optimizer=adamw"):
        functional.ScheduledAdamW(
            OptimizerConfig(optimizer="paged_adamw_8bit"), {"policy": [torch.nn.Parameter(torch.ones(2))]}, 1
        )
