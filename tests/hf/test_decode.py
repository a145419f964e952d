"""Decoding with a cache of fixed size and a compiled step: the tokens of the eager loop, and that loop where it cannot be."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator

import pytest
import torch
from alignbench_hf.config import DECODES, PretrainedConfig
from alignbench_hf.decoding import samplers as sampling
from alignbench_hf.decoding.compiled import Compiled
from alignbench_hf.decoding.fixed import FixedLayer
from alignbench_hf.policy import HFPolicy

from alignbench import NonFiniteError, Rollout, Sampling, UserError
from tests import tiny
from tests.hf import architecture_checks, architectures

SAMPLINGS = (Sampling(), Sampling(temperature=1e-5), Sampling(top_k=3, temperature=0.7), Sampling(top_p=0.8))
RUNNING_STATES = {"lfm2", "jamba", "qwen3_next"}
TRACED = ("mistral", "gpt2", "bloom")
honest = torch.compile


def generate(policy: HFPolicy, how: Sampling = SAMPLINGS[0], n: int = 5) -> Rollout:
    """Of prompts of different lengths; rows end early, late and not at all."""
    return policy.generate(tiny.PROMPTS, how, n=n, rng=torch.Generator().manual_seed(1))


def assert_same(found: Rollout, right: Rollout) -> None:
    for name in ("response_ids", "response_mask"):
        assert torch.equal(getattr(found.samples.sequences, name), getattr(right.samples.sequences, name))
    assert torch.equal(found.samples.finished, right.samples.finished)
    torch.testing.assert_close(found.logprobs, right.logprobs, rtol=0, atol=2e-5)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torch sees of a step is taken down and run as it is: seconds less than a compiler takes."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(honest, backend="eager"))
    yield
    torch._dynamo.reset()


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda step: step)


@pytest.mark.parametrize("make", [tiny.scratch, tiny.adapters])
@pytest.mark.parametrize("how", SAMPLINGS, ids=str)
def test_tokens_are_those_of_eager(make, how: Sampling, as_it_is: None) -> None:  # type: ignore[no-untyped-def]
    options = {"max_response_tokens": 20, "suppress_tokens": ["c"]}
    right, found = (make(decode=decode, **options) for decode in ("eager", "compiled"))
    lengths = generate(right, how).samples.sequences.response_mask.sum(1)
    assert int(lengths.min()) < int(lengths.max()), "rows of different lengths should be seen"
    assert_same(generate(found, how), generate(right, how))
    assert found._sampler.compiled.works


@pytest.mark.parametrize("size", [1, 4, 256])
def test_batches_change_nothing(size: int, as_it_is: None) -> None:
    assert_same(generate(tiny.scratch(decode="compiled", generation_batch_size=size)), generate(tiny.scratch()))


def test_all_rows_may_end_before_the_limit(as_it_is: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody goes on to it."""
    steps: list[int] = []
    monkeypatch.setattr(
        FixedLayer, "update", lambda *given, honest=FixedLayer.update: (steps.append(1), honest(*given))[1]
    )
    options = {"max_response_tokens": 200, "seed": 3, "num_layers": 1}
    right, found = tiny.scratch(**options), tiny.scratch(decode="compiled", **options)  # type: ignore[arg-type]
    how = Sampling(temperature=3.0)
    assert_same(generate(found, how), generate(right, how))
    longest = int(generate(right, how).samples.sequences.response_mask.sum(1).max())
    assert longest <= len(steps) + 1 < longest + 2 + sampling.LOOK_EVERY < 200


@pytest.mark.parametrize("name", [name for name in architectures.CONFIGS if name not in architectures.REFUSED])
def test_every_architecture_draws_the_same(name: str, as_it_is: None) -> None:
    policy = architecture_checks.load(name, "float32", decode="eager")
    right = architecture_checks.rollout(policy)
    policy._sampler.compiled = Compiled("compiled", policy.device)
    assert_same(architecture_checks.rollout(policy), right)
    assert policy._sampler.compiled.works == (name not in RUNNING_STATES)


@pytest.mark.parametrize("name", TRACED)
def test_a_traced_step_draws_the_same(name: str, traced: None) -> None:
    policy = architecture_checks.load(name, "float32", decode="eager")
    right = architecture_checks.rollout(policy)
    policy._sampler.compiled = Compiled("compiled", policy.device)
    assert_same(architecture_checks.rollout(policy), right)
    assert policy._sampler.compiled.works


@pytest.mark.slow
def test_a_compiled_step_draws_the_same() -> None:
    options = {"max_response_tokens": 12, "num_layers": 1}
    right, found = tiny.scratch(**options), tiny.scratch(decode="compiled", **options)  # type: ignore[arg-type]
    for how in SAMPLINGS[:2]:
        assert_same(generate(found, how), generate(right, how))
    assert found._sampler.compiled.works


# Where it cannot be


def fails(*_: object, **__: object) -> None:
    raise RuntimeError("no compiler\nis here")


def test_what_cannot_be_compiled_is_decoded_eagerly_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", lambda step: fails)
    policy = tiny.scratch(decode="compiled", generation_batch_size=7)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_same(generate(policy), generate(tiny.scratch()))
    (said,) = caplog.messages
    assert said == (
        "LlamaForCausalLM is decoded step by step, as by model.decode=eager: a compiled step does not work "
        "(RuntimeError: no compiler)."
    )


def test_a_model_that_reads_a_fixed_cache_wrongly_is_decoded_eagerly(
    as_it_is: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FixedLayer, "get_seq_length", lambda layer: layer.column - 1)
    with caplog.at_level(logging.WARNING):
        assert_same(generate(tiny.scratch(decode="compiled")), generate(tiny.scratch()))
    (said,) = caplog.messages
    assert "with a cache of fixed size its logits are" in said


@pytest.mark.parametrize("decode", ["eager", "compiled"])
def test_logits_that_are_nan_end_it(decode: str, as_it_is: None, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.scratch(decode=decode, max_response_tokens=20)
    monkeypatch.setattr("alignbench_hf.decoding.compiled.Compiled._check", lambda *_: None)
    with torch.no_grad():
        policy.trainable()[0][4] = torch.nan
    with pytest.raises(NonFiniteError, match="NaN or infinite. Lower the learning rate"):
        generate(policy)


def test_auto_compiles_nothing_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", fails)
    policy = tiny.scratch()
    generate(policy)
    assert policy._config.decode == "auto"
    assert not policy._sampler.compiled.works


def test_who_watches_is_told_every_token(as_it_is: None) -> None:
    seen: list[int] = []
    policy = tiny.scratch(decode="compiled")
    policy.generate_watched(
        tiny.PROMPTS, Sampling(), lambda rows: seen.append(sum(map(len, rows))), rng=torch.Generator()
    )
    assert len(seen) == policy.max_response_tokens


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(UserError, match=f"Unknown model.decode 'fast'.*{', '.join(sorted(DECODES))}"):
        PretrainedConfig(decode="fast")
