"""What the reference, the reward and the value cost in memory beside the policy alone.

    OMP_NUM_THREADS=1 python benchmarks/roles.py [model=smollm2] [model.quantization=nf4] ...

Two processes, one after the other: the policy alone, and all four roles. Each samples responses, scores them by every role that it has and
takes optimizer steps on each that is trained. Prints the peak of each process, on a GPU that of the device, and their ratio.
"""

from __future__ import annotations

import resource
import subprocess
import sys

ROWS, NEW_TOKENS, STEPS = 8, 48, 2
TEXT = "Please tell me, in a few plain sentences, how one bakes bread number {} at home without a machine, and what to look out for."


def peak(overrides: list[str], roles: bool) -> tuple[float, float]:
    """GiB after loading the model, and at the peak; of this process."""
    import torch

    from alignbench import REFERENCE, Message, OptimizerConfig, Prompt, Sampling, Seeds, functional
    from alignbench.app.compose import load_config

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")

    def used() -> float:
        return (
            torch.cuda.max_memory_allocated() / 2**30
            if gpu
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        )

    config = load_config([*overrides, "data=hh", "annotator=recorded"]).model
    policy = config.build(tokenizer=None, device=device, seeds=Seeds(0))
    loaded, groups = used(), {"policy": policy.trainable()}
    if roles:
        policy.freeze_reference()
        scalars = {name: policy.scalar(name) for name in ("reward", "value")}
        groups |= {name: role.parameters() for name, role in scalars.items()}
    optimizer = functional.ScheduledAdamW(OptimizerConfig(), groups, STEPS)
    prompts = [Prompt(str(i), (Message("user", TEXT.format(i)),)) for i in range(ROWS)]
    for step in range(STEPS):
        rng = torch.Generator().manual_seed(step)
        rows = policy.generate(prompts, Sampling(max_new_tokens=NEW_TOKENS), rng=rng).samples.sequences
        with torch.no_grad():
            policy.logprobs(rows)
            if roles:
                policy.logprobs(rows, role=REFERENCE)
        optimizer.next_update()
        optimizer.zero_grad()
        policy.logprobs(rows).logprobs.mean().backward()  # type: ignore[no-untyped-call]
        for role in scalars.values() if roles else ():
            with torch.no_grad():
                role.values(rows)
            role.values(rows).mean().backward()
        optimizer.step()
    return loaded, used()


def main(overrides: list[str]) -> None:
    found = {}
    for roles in (False, True):
        command = [sys.executable, __file__, "--roles" if roles else "--alone", *overrides]
        loaded, found[roles] = map(float, subprocess.check_output(command, text=True).splitlines()[-1].split())
        who = "policy, reference, reward, value" if roles else "policy alone"
        print(f"{who:<34} {loaded:6.2f} GiB loaded {found[roles]:6.2f} GiB at the peak", flush=True)
    print(f"{found[True] / found[False]:.3f} times as much")


if __name__ == "__main__":
    if sys.argv[1:2] in (["--roles"], ["--alone"]):
        print(*peak(sys.argv[2:], roles=sys.argv[1] == "--roles"))
    else:
        main(sys.argv[1:] or ["model=smollm2"])
