"""What `alignbench plan` says a PPO update takes, beside what it took.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [--one] [model=smollm2] [override ...]

Three settings (`--one`: the first alone), each in a process of its own: all four roles on one base, a rollout, scores of an unfitted reward, one update. Prints
for the rollout and for the update what was planned, the highest resident memory (on a GPU: allocated, without CUDA's context), and
their ratio.
"""

from __future__ import annotations

import subprocess
import sys

TEXT = "Please tell me, in a few plain sentences, how one bakes bread number {} at home without a machine, and what to look out for."
COMMON = [
    "model=smollm2", "data=hh", "annotator=recorded", "algo=ppo", "algo.epochs=1", "model.dtype=float32",
    "model.max_prompt_tokens=64", "model.max_response_tokens=48",
]  # fmt: skip
SETTINGS = (
    ["algo.batch_size=4", "algo.micro_batch_size=4"],
    ["algo.batch_size=4", "algo.micro_batch_size=4", "model.quantization=nf4"],
    ["algo.batch_size=8", "algo.micro_batch_size=8", "model.gradient_checkpointing=true"],
)


def planned(overrides: list[str]) -> list[float]:
    """GiB of each stage, by the plan."""
    from alignbench.app.compose import load_config
    from alignbench.commands.plan import CUDA_CONTEXT, this_machine
    from alignbench.pipeline.memory import GIB, estimate

    config = load_config(overrides)
    config.model.load()
    machine = this_machine(config.device, None)
    context = CUDA_CONTEXT if machine.device == "cuda" else 0
    sizes = {stage.name: (stage.total - context) / GIB for stage in estimate(config, machine)}
    return [sizes["rollouts"], max(sizes["scoring"], sizes["ppo"])]  # one update scores, then trains


def measured(overrides: list[str]) -> list[float]:
    """GiB of each stage, carried out."""
    import torch

    from alignbench import Message, Prompt, Sampling, ScoredRollout, Seeds
    from alignbench.app.compose import load_config
    from alignbench.pipeline.preparation import pick_device
    from alignbench.results.disk.environment import peak_memory_bytes, reset_peak_memory

    config = load_config(overrides)
    device, rows = pick_device(config.device), config.algo.config.batch_size

    def peak() -> float:
        if device.type == "cuda":
            found = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        else:
            found = peak_memory_bytes() or 0
            reset_peak_memory()
        return found / 2**30

    policy = config.model.build(tokenizer=None, device=device, seeds=Seeds(0))
    policy.freeze_reference()
    reward = config.reward.build(policy=policy, data=None, seeds=Seeds(0))
    optimizer = config.algo.build(policy=policy, updates=1, seeds=Seeds(0))
    prompts = [Prompt(str(i), (Message("user", TEXT.format(i)),)) for i in range(rows)]
    peak()
    rollout = policy.generate(prompts, Sampling(), rng=torch.Generator().manual_seed(0))
    found = [peak()]
    optimizer.update(ScoredRollout(rollout, reward.score(rollout.samples)))
    return [*found, peak()]


def main(arguments: list[str]) -> None:
    overrides = [argument for argument in arguments if argument != "--one"]
    print(f"{'setting':<76} {'stage':<9} {'plan':>9} {'measured':>12} {'plan / measured':>16}")
    for setting in SETTINGS[: 1 if "--one" in arguments else None]:
        found = []
        for part in ("--plan", "--measure"):
            command = [sys.executable, __file__, part, *COMMON, *setting, *overrides]
            found.append(map(float, subprocess.check_output(command, text=True).splitlines()[-1].split()))
        for stage, plan, real in zip(("rollouts", "update"), *found, strict=True):
            print(f"{' '.join(setting):<76} {stage:<9} {plan:5.2f} GiB {real:8.2f} GiB {plan / real:16.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] in (["--plan"], ["--measure"]):
        print(*(planned if sys.argv[1] == "--plan" else measured)(sys.argv[2:]))
    else:
        main(sys.argv[1:])
