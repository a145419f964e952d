"""An engine that samples: the protocol, what is sent when, what its log-probabilities must be, and every way it may fail."""

from __future__ import annotations

import gc
import importlib.util
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from alignbench_group.config import GRPOConfig
from alignbench_group.grpo import GRPO
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.engine.server import KEY, Server
from alignbench_hf.policy import HFPolicy
from alignbench_ppo.config import PPOConfig
from alignbench_ppo.ppo import PPO

from alignbench import REFERENCE, Rollout, Sampling, ScoredRollout, Seeds, UserError
from tests import tiny
from tests.hf.engine_stub import Stub, stub_server

NEAR = 1e-4


@pytest.fixture
def stub() -> Iterator[Stub]:
    with stub_server() as found:
        yield found


def engine(stub: Stub, patience: float = 0.4) -> Server:
    return Server(stub.url, patience=patience, at_once=4)


def policy(stub: Stub, patience: float = 0.4, **changes: object) -> HFPolicy:
    return tiny.adapters(engine=engine(stub, patience), sampler="vllm", sampler_url=stub.url, **changes)


def sampled(
    policy: HFPolicy, seed: int = 0, role: str = "policy", n: int = 2, sampling: Sampling | None = None
) -> Rollout:
    rng = torch.Generator().manual_seed(seed)
    return policy.generate(tiny.PROMPTS, sampling or Sampling(), n=n, role=role, rng=rng)


def gap(policy: HFPolicy, rollout: Rollout, role: str = "policy") -> float:
    with torch.no_grad():
        own = policy.logprobs(rollout.samples.sequences, role=role, temperature=rollout.temperature).logprobs
    return float((own - rollout.logprobs).abs().max())


def refused(text: str) -> pytest.RaisesExc[UserError]:
    """In one line that says this."""
    return pytest.raises(UserError, match=text, check=lambda error: "\n" not in str(error))


def test_what_is_sampled_is_the_policys_as_it_stands(stub: Stub) -> None:
    """Adapters are sent when they have changed, each under a new name, and the old one is let go."""
    made = policy(stub)
    first = sampled(made)
    assert first.off_policy
    assert gap(made, first) < NEAR
    sampled(made, seed=1)
    assert len(stub.loaded) == 1, "not sent twice"
    tiny.move(made, seed=3)
    second = sampled(made)
    assert gap(made, second) < NEAR
    assert gap(made, first) > 0.01, "the adapter did change"
    assert len(stub.loaded) == 2 and stub.unloaded == stub.loaded[:1]
    assert list(stub.adapters) == stub.loaded[1:]
    assert first.samples.sequences.response_mask.sum(1).min() < 6, "a response ends by itself"
    sequences = first.samples.sequences
    last = sequences.response_ids.gather(1, sequences.response_mask.sum(1, keepdim=True) - 1).squeeze(1)
    assert torch.equal(first.samples.finished, last == tiny.EOS)


def test_the_reference_has_an_adapter_of_its_own(stub: Stub) -> None:
    made = policy(stub)
    made.freeze_reference()
    tiny.move(made, seed=3)
    mine, theirs = sampled(made), sampled(made, role=REFERENCE)
    assert gap(made, mine) < NEAR and gap(made, theirs, REFERENCE) < NEAR and gap(made, theirs) > 0.01
    assert len(stub.adapters) == 2


def test_the_same_seed_gives_the_same_tokens_and_every_row_has_its_own(stub: Stub) -> None:
    made = policy(stub)
    one, two, other = sampled(made), sampled(made), sampled(made, seed=1)
    assert torch.equal(one.samples.sequences.response_ids, two.samples.sequences.response_ids)
    assert one.samples.texts != other.samples.texts
    seeds = [body["seed"] for body in stub.asked]
    assert len(set(seeds[:12])) == 12 and sorted(seeds[:12]) == sorted(seeds[12:24])


def test_an_adapters_folder_is_private_and_nothing_stays(stub: Stub) -> None:
    made = policy(stub)
    sampled(made)
    folder = Path(made._engine._folder.name)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in next(folder.iterdir()).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    tiny.move(made)
    sampled(made)
    assert len(list(folder.iterdir())) == 1
    del made
    gc.collect()
    assert not folder.exists() and not stub.adapters


@pytest.mark.parametrize("processed", [True, False])
def test_log_probabilities_are_of_what_is_sampled_from(stub: Stub, processed: bool) -> None:
    """At a temperature, and without suppressed tokens, a server's must be those of the sampled distribution."""
    stub.processed = processed
    made = policy(stub)
    assert gap(made, sampled(made)) < NEAR, "at temperature 1 the two are one"
    for changes, sampling in (({}, Sampling(temperature=0.7)), ({"suppress_tokens": ["c"]}, Sampling())):
        made = policy(stub, **changes)
        if processed:
            rollout = sampled(made, sampling=sampling)
            assert gap(made, rollout) < NEAR
            assert not changes or not any("c" in text for text in rollout.samples.texts)
        else:
            with refused("start it with --logprobs-mode processed_logprobs"):
                sampled(made, sampling=sampling)


def test_greedy_responses_bring_the_models_own_log_probabilities(stub: Stub) -> None:
    made = policy(stub)
    rollout = sampled(made, sampling=Sampling(top_k=1))
    with torch.no_grad():
        scores = made.logprobs(rollout.samples.sequences, greedy=True)
    assert torch.equal(scores.logprobs, rollout.logprobs)
    assert torch.equal(scores.greedy, rollout.samples.sequences.response_mask.bool())


def test_somebody_who_watches_is_told(stub: Stub) -> None:
    told: list[object] = []
    rollout = policy(stub).generate_watched(tiny.PROMPTS, Sampling(), told.append, rng=torch.Generator().manual_seed(0))
    assert len(told) == 1 and len(told[0]) == len(rollout.samples)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", [(PPO, PPOConfig), (GRPO, GRPOConfig)], ids=["ppo", "grpo"])
def test_an_algorithm_trains_through_it(stub: Stub, algorithm: tuple[type, type]) -> None:
    """The figures of each update say how far the engine is away: here, by rounding alone."""
    kind, schema = algorithm
    made = policy(stub)
    made.freeze_reference()
    config = schema(updates=3, batch_size=12, samples_per_prompt=2, learning_rate=1e-2)
    optimizer = kind(config, policy=made, updates=3, seeds=Seeds(0))
    for update in range(3):
        rollout = sampled(made, seed=update)
        scores = torch.randn(12, generator=torch.Generator().manual_seed(update))
        metrics = optimizer.update(ScoredRollout(rollout, scores)).metrics
        assert 0 <= metrics["sampler_gap"] < NEAR and metrics["importance_weight"] == pytest.approx(1, abs=1e-3)
    assert len(stub.loaded) == 3, "sent after every update"


# --- faults ---


def test_it_goes_on_where_a_server_forgets_in_mid_rollout(stub: Stub) -> None:
    """Started anew, it has the base alone: the adapter is sent again, and the same tokens come."""
    made = policy(stub)
    wanted = sampled(made).samples.texts
    stub.forget_after = len(stub.asked) + 5
    assert sampled(made).samples.texts == wanted
    assert len(stub.loaded) == 2
    stub.forget_after = -1
    with mock.patch.object(Stub, "load", lambda *_: (200, "Success")), refused("forgot its adapters 5 times"):
        stub.adapters.clear()
        sampled(made)


def test_it_goes_on_where_a_server_comes_back(stub: Stub) -> None:
    made = policy(stub, patience=20)
    wanted = sampled(made).samples.texts
    port = stub.stop()
    stub.adapters.clear()

    def later() -> None:
        time.sleep(0.3)
        stub.start(port)

    threading.Thread(target=later).start()
    assert sampled(made).samples.texts == wanted


def test_a_server_that_is_gone_ends_the_run_in_one_line(stub: Stub) -> None:
    made = policy(stub)
    sampled(made)
    stub.die_after = len(stub.asked) + 4
    start = time.monotonic()
    with refused(
        r"The engine at http://127.0.0.1:\d+ is gone: .* in \d attempts over .*goes on with: alignbench resume"
    ):
        sampled(made)
    assert time.monotonic() - start < 5, "bounded"
    stub.stop()
    with refused("is gone: .*refused"):
        engine(stub)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"updates": False},
            "takes no adapters while it runs: start it as VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve",
        ),
        ({"lora": False}, "does not take the adapter: .*LoRA is not enabled.* Start it as"),
        ({"max_rank": 2}, "LoRA rank 4 is greater than max_lora_rank 2. Start it with a higher --max-lora-rank"),
        ({"change": {"token_ids": None}}, r"version 0.32.0\) answered without a token id"),
        ({"change": {"token_ids": [5] * 7, "logprobs": {"token_logprobs": [-1.0] * 7}}}, "each token of at most 6"),
        ({"change": {"token_ids": [5], "logprobs": {"token_logprobs": [float("nan")]}}}, "finite log-probability"),
        (
            {"change": {"token_ids": [500], "logprobs": {"token_logprobs": [-1.0]}}},
            "tokens that the model does not have",
        ),
        ({"base_seed": 7}, "nats a token away from the model's own on average: it serves another model"),
    ],
    ids=["no updates", "no lora", "rank", "no ids", "too long", "nan", "vocabulary", "another base"],
)
def test_what_cannot_work_is_said_in_one_line(stub: Stub, changes: dict[str, object], text: str) -> None:
    for name, value in changes.items():
        setattr(stub, name, value)
    made = policy(stub, patience=20)
    start = time.monotonic()
    with refused(text):
        sampled(made)
    assert time.monotonic() - start < 5, "nothing that a server will not change is asked again"


@pytest.mark.parametrize(
    ("version", "text"),
    [("0.6.3", "is version 0.6.3 of vLLM, and model.sampler=vllm needs 0.11 or later"), ("odd", "version odd")],
)
def test_an_older_server_is_refused(stub: Stub, version: str, text: str) -> None:
    stub.version = version
    with refused(text):
        engine(stub)


def test_what_is_no_engine_is_refused(stub: Stub) -> None:
    with mock.patch.object(Stub, "answer", lambda *_: (404, {"detail": "Not Found"})), refused("it is no vLLM server"):
        engine(stub)
    made = policy(stub)
    with mock.patch.object(Stub, "choice", lambda *_: {}), refused("answered without a token id"):
        sampled(made)


def test_a_key_is_sent_and_never_told(stub: Stub) -> None:
    key = "a-key-of-some-length"
    seen: list[str] = []
    with mock.patch.dict(os.environ, {KEY: key}):
        made = policy(stub)
        echo = lambda self, path, body: (400, {"error": {"message": f"bad {key}"}})  # noqa: E731
        with (
            mock.patch("urllib.request.Request", side_effect=_noting(seen)),
            mock.patch.object(Stub, "answer", echo),
            pytest.raises(UserError) as told,
        ):
            sampled(made)
    assert seen == [f"Bearer {key}"]
    assert key not in str(told.value) and "bad" in str(told.value)


def _noting(seen: list[str]):  # type: ignore[no-untyped-def]
    import urllib.request

    real = urllib.request.Request

    def request(url: str, data: bytes | None, headers: dict[str, str]) -> urllib.request.Request:
        seen.append(headers["Authorization"])
        return real(url, data=data, headers=headers)

    return request


def test_settings_that_cannot_work_are_refused() -> None:
    with refused("trained whole"):
        tiny.scratch(sampler="vllm")
    with refused("is no address: write it as http://host:8000"):
        PretrainedConfig(sampler="vllm", sampler_url="localhost:8000")
    with refused("model.sampler_url is of model.sampler=vllm: it is loop"):
        PretrainedConfig(sampler_url="http://localhost:8000")
    with refused("a server .model.sampler_url. has its own"):
        PretrainedConfig(sampler="vllm", sampler_url="http://localhost:8000", sampler_options={"seed": 1})


def test_an_engine_that_is_not_installed_is_refused_before_anything_is_loaded() -> None:
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed here")
    with refused("needs the package vllm, which is not installed here: install it, or give model.sampler_url="):
        PretrainedConfig(sampler="vllm").ready()
    PretrainedConfig(sampler="vllm", sampler_url="http://localhost:1").ready()
