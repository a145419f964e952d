"""What is done on the CPU and again on the pretended GPU: all that a run does with a device. Each returns figures to compare."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from alignbench_hf.build import build_pretrained
from alignbench_hf.config import PretrainedConfig
from alignbench_hf.policy import HFPolicy
from alignbench_rewards.config import LearnedConfig
from alignbench_rewards.learned import LearnedReward
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    PhiConfig,
    PreTrainedModel,
    StableLmConfig,
)
from transformers import (
    PretrainedConfig as AnyConfig,
)

from alignbench import Annotator, OptimizerConfig, Ranking, Sampling, Seeds
from alignbench.commands.cli import run_command
from alignbench.evaluation.respond import likelihoods
from alignbench.pipeline.training import train
from alignbench.plugins import Component, Kind, registry
from alignbench.records import Consumes
from alignbench.store.checkpoints import Checkpoints
from tests import tiny
from tests.core.harness import SMALL
from tests.distributed.processes import batches
from tests.distributed.processes import configured as as_in_processes
from tests.hf import architectures
from tests.suite import ordinary

Figures = Mapping[str, float]
Work = Callable[[torch.device], Figures]
TWO_UPDATES = 2


def algorithms() -> list[Component]:
    """All that are registered, learn from something, and do it in this environment."""
    own = [c for c in registry().of(Kind.ALGORITHM) if c.distribution == "alignbench"]
    elsewhere = {c.name for c in own if hasattr(c.config, "environment")}
    return [c for c in own if c.config.consumes is not Consumes.NOTHING and c.name not in elsewhere]


def configured(component: Component) -> OptimizerConfig:
    """As short as an update can be with two steps, or a step of two micro-batches."""
    config = as_in_processes(component)
    short = {"epochs": 1, "minibatches": 2, "micro_batch_size": 6}
    return replace(config, **{name: value for name, value in short.items() if hasattr(config, name)})


class _Stopped(Exception):
    """A run is killed."""


def trained(component: Component, make: Callable[[], HFPolicy]) -> Figures:
    """Two updates; between them the run is killed, and another goes on from its checkpoint."""
    config, metrics = configured(component), {}
    with tempfile.TemporaryDirectory() as folder:

        def go_on(*, killed: bool) -> HFPolicy:
            policy = make()
            policy.freeze_reference()
            optimizer = component.load()(config, policy=policy, updates=TWO_UPDATES, seeds=Seeds(1))

            def fed(start: int) -> Iterator[object]:
                for number, batch in enumerate(batches(policy, config)):
                    if number >= start:
                        yield batch
                    if killed:
                        raise _Stopped

            def step(stage: str, update: int, updates: int, found: Mapping[str, float], *_: object) -> None:
                metrics.update({f"{update}/{k}": v for k, v in found.items()})

            train(
                component.name, optimizer, fed, policy=policy, updates=TWO_UPDATES, step=step,
                checkpoints=Checkpoints(Path(folder) / "checkpoints", "key"),
            )  # fmt: skip
            return policy

        with contextlib.suppress(_Stopped):
            go_on(killed=True)
        policy = go_on(killed=False)
    assert {name.partition("/")[0] for name in metrics} == {"1", "2"}, "the second went on from the first"
    return metrics | {
        "weights": sum(float(parameter.detach().double().abs().sum()) for parameter in policy.trainable())
    }


def updated(component: Component, make: Callable[[], HFPolicy], *, figures: bool = True) -> Figures:
    """One update. Without `figures` there is nothing to compare: numbers in bfloat16 are rounded elsewhere on a GPU, and what
    eight-bit layers read is rounded there alone."""
    policy, config = make(), configured(component)
    policy.freeze_reference()
    optimizer = component.load()(config, policy=policy, updates=TWO_UPDATES, seeds=Seeds(1))
    report = optimizer.update(next(iter(batches(policy, config))))
    return report.metrics if figures else {}


class _NoOpinion(Annotator):
    pass


def fitted(make: Callable[[], HFPolicy]) -> Figures:
    """A reward model, saved and loaded."""
    policy = make()
    config = LearnedConfig(batch_size=3, micro_batch_size=2, updates=2)
    reward = LearnedReward(config, policy=policy, data=None, seeds=Seeds(0))  # type: ignore[arg-type]
    rankings = [Ranking(prompt, ("a", "b c", "d"), (0, 1, 2)) for prompt in tiny.PROMPTS]
    baseline = policy.generate(tiny.PROMPTS, Sampling(), rng=Seeds(0).torch("sampling")).samples
    report = reward.fit(rankings[:4], rankings[4:], baseline, annotator=_NoOpinion(), progress=lambda *_: None)
    with tempfile.TemporaryDirectory() as folder:
        reward.save(Path(folder))
        reward.load(Path(folder))
    return {**report.metrics, "score": float(reward.score(baseline).sum())}


def asked(make: Callable[[], HFPolicy]) -> Figures:
    """Sampling in all its ways, likelihoods, saving and loading."""
    policy, found = make(), {}
    for sampling in (Sampling(), Sampling(top_k=1), Sampling(top_p=0.9, temperature=0.7)):
        samples = policy.generate(tiny.PROMPTS, sampling, n=2, rng=Seeds(0).torch("sampling")).samples
        found[f"tokens of {sampling}"] = float(samples.sequences.response_ids.sum())
    likely = likelihoods(policy, tiny.PROMPTS, [[4, 5, 1]] * 6, [2] * 6)
    found["likelihood"] = sum(one.logprob for one in likely)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        before = policy.logprobs(samples.sequences, entropy=True, greedy=True).logprobs
        path = policy.save(Path(folder))
        tiny.move(policy)
        policy.load(path)
        assert torch.equal(policy.logprobs(samples.sequences).logprobs, before)
    return found


def captured(make: Callable[..., HFPolicy]) -> Figures:
    """Captured decoding, which on a CPU there is none of: the tokens of an eager policy, in batches that are captured anew when half
    of their rows have ended."""
    found = {}
    eager = make(decode="eager", max_response_tokens=20)
    device = eager.device
    other = eager if device.type == "cpu" else make(decode="auto", max_response_tokens=20)
    for sampling in (Sampling(), Sampling(top_k=3), Sampling(temperature=1e-5), Sampling(top_p=0.9, temperature=0.7)):
        right, ours = (p.generate(tiny.PROMPTS, sampling, n=4, rng=Seeds(0).torch("sampling")) for p in (eager, other))
        assert other is eager or other._sampler.compiled.works, "a compiled step does not work"
        same = torch.equal(ours.samples.sequences.response_ids, right.samples.sequences.response_ids)
        assert same, f"tokens of {sampling} are not those of eager"
        torch.testing.assert_close(ours.logprobs, right.logprobs, rtol=0, atol=1e-4)
        found[f"tokens of {sampling}"] = float(ours.samples.sequences.response_ids.sum())
    return found


# Models whose last norm is LayerNorm: autocast for CUDA computes it in float32

LAYER_NORMS: Mapping[str, Callable[..., AnyConfig]] = {
    "gpt_neox": GPTNeoXConfig,
    "phi": partial(PhiConfig, partial_rotary_factor=0.5),
    "stablelm": partial(StableLmConfig, num_key_value_heads=2),
}


def layer_norm(name: str) -> PreTrainedModel:
    shape = LAYER_NORMS[name](
        vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=32, initializer_range=0.4, pad_token_id=tiny.PAD, eos_token_id=tiny.EOS, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(shape).to(torch.bfloat16)


# Whole commands


def pretrained(device: torch.device, folder: Path, **options: object) -> HFPolicy:
    if not (folder / "config.json").exists():
        tiny.base_model(hidden=64).save_pretrained(folder)
        tiny.letters().save_pretrained(folder)
    settings = {
        "dtype": "float32",
        "attention": "eager",
        "max_prompt_tokens": 8,
        "max_response_tokens": 6,
        "lora_rank": 4,
    }
    config = PretrainedConfig(path=str(folder), **(settings | options))  # type: ignore[arg-type]
    return build_pretrained(config, tokenizer=None, device=device, seeds=Seeds(0))


def without_sdpa(device: torch.device) -> Figures:
    """An architecture that has its own attention alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = architectures.build("gptj", Path(folder))
        config = PretrainedConfig(path=str(path), dtype="float32", max_prompt_tokens=8, max_response_tokens=6)
        policy = build_pretrained(config, tokenizer=None, device=device, seeds=Seeds(0))
        samples = policy.generate(tiny.PROMPTS, Sampling(), n=2, rng=Seeds(0).torch("sampling")).samples
        return {"tokens": float(samples.sequences.response_ids.sum())}


def loaded(device: torch.device, *, figures: bool = True, **options: object) -> Figures:
    """`build_pretrained`, an update, and exports; `figures` as in `updated`."""
    ppo = registry().get(Kind.ALGORITHM, "ppo")
    with tempfile.TemporaryDirectory() as folder:
        policy = pretrained(device, Path(folder) / "base", **options)
        found = updated(ppo, lambda: policy)
        prompts = list(tiny.PROMPTS[:2])
        for kind in ("merged", "adapter"):
            exported = policy.export(Path(folder) / kind, merged=kind == "merged", prompts=prompts)
            assert exported.mean <= exported.tolerance, f"{kind}: {exported.mean} over {exported.tolerance}"
    return found if figures else {}


def command(*arguments: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run_command(arguments)
    assert code == 0, said.getvalue()[-2000:]
    return said.getvalue()


def metrics_of(folder: Path) -> dict[str, float]:
    (run,) = folder.iterdir()
    record = json.loads((run / "result.json").read_text())
    return {name: metric["value"] for name, metric in record["metrics"].items()}


def small_run(device: torch.device) -> Figures:
    """Every stage of the main job. Its numbers are not compared: the first steps of Adam make much of gradients that are 0 but
    for rounding."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = ("algo.updates=1", "reward.updates=2", "eval.questions=6", "cache=false")
        command(*SMALL, *sizes, f"device={device.type}", f"results_dir={folder}/runs")
        found = metrics_of(Path(folder) / "runs")
        (record,) = (Path(folder) / "runs").glob("*/result.json")
        assert device.type == "cpu" or json.loads(record.read_text())["cost"]["peak_gpu_memory_bytes"] > 0
    assert "optimization/gold_reward" in found and "optimization/proxy_reward" in found
    return {}


def questionnaires(device: torch.device) -> Figures:
    """A model that was trained elsewhere, asked all questionnaires."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ordinary.model().save_pretrained(folder / "base")
        ordinary.tokenizer().save_pretrained(folder / "base")
        row = "\\n\\nHuman: What is {}?\\n\\nAssistant:"
        text = "".join(f'{{"chosen": "{row.format(q)} a", "rejected": "{row.format(q)} b"}}\n' for q in "abcdef")
        (folder / "hh.jsonl").write_text(text)
        families = ("helpfulness", "sycophancy", "diversity", "capability")
        limits = [f"eval.options.{family}.limit=1" for family in families]
        command(
            "evaluate", str(folder / "base"), "eval=quick", *limits, "eval.samples=1",
            f"eval.families=[{','.join(families)}]", "data=hh", f"data.path={folder / 'hh.jsonl'}", "data.held_out_rows=2",
            "model.dtype=float32", "model.attention=eager", "model.max_prompt_tokens=400", "model.max_response_tokens=8",
            f"device={device.type}", f"results_dir={folder}/runs",
        )  # fmt: skip
        return metrics_of(folder / "runs")


def every_work() -> dict[str, Work]:
    found: dict[str, Work] = {}
    for component in algorithms():
        found[f"{component.name}, adapters"] = partial(_with, partial(trained, component), tiny.adapters)
        found[f"{component.name}, copies"] = partial(
            _with, partial(updated, component), partial(tiny.scratch, scalar_head="evidence")
        )
    ppo = registry().get(Kind.ALGORITHM, "ppo")
    kinds: Mapping[str, Mapping[str, object]] = {
        "bfloat16, checkpointing": {"dtype": torch.bfloat16, "gradient_checkpointing": True},
        "shared trunk, not merged": {"value_trunk": "shared", "merge_adapters": False},
        "transformers' own sampler": {"sampler": "generate"},
    }
    for name, options in kinds.items():
        rounded = options.get("dtype") is torch.bfloat16
        found[f"ppo, {name}"] = partial(
            _with, partial(updated, ppo, figures=not rounded), partial(_adapters, dict(options))
        )
    for name in LAYER_NORMS:
        make = lambda device, name=name: tiny.adapters(layer_norm(name), device=device)  # noqa: E731
        found[f"ppo, {name} in bfloat16"] = partial(_with, partial(updated, ppo, figures=False), make)
    found |= {
        "reward model": partial(_with, fitted, tiny.adapters),
        "sampling and likelihoods": partial(_with, asked, tiny.adapters),
        "sampling and likelihoods, copies": partial(_with, asked, tiny.scratch),
        "sampling, captured": lambda device: captured(partial(tiny.adapters, device=device)),
        "sampling, captured, copies": lambda device: captured(partial(tiny.scratch, device=device)),
        "pretrained": loaded,
        "pretrained, an architecture without sdpa": without_sdpa,
        "pretrained, nf4": partial(loaded, quantization="nf4"),
        "pretrained, int8": partial(loaded, quantization="int8", figures=False),
        "a whole run": small_run,
        "questionnaires": questionnaires,
    }
    return found


def _adapters(options: dict[str, object], *, device: torch.device) -> HFPolicy:
    base = tiny.base_model(dtype=options.pop("dtype", torch.float32))  # type: ignore[arg-type]
    return tiny.adapters(base, device=device, **options)


def _with(
    work: Callable[[Callable[[], HFPolicy]], Figures], make: Callable[..., HFPolicy], device: torch.device
) -> Figures:
    return work(lambda: make(device=device))
