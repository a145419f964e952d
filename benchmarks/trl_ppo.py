"""PPO here and in TRL 1.12, the last release with a PPO trainer, on the same model, prompts, lengths, epochs and batch.

    python benchmarks/trl_ppo.py FOLDER_OF_HH_RLHF [--updates 3] [--rounds 1] [--trl VENV] [OVERRIDE ...]

SmolLM2-135M-Instruct in bfloat16 with LoRA of rank 16 on all linear layers, prompts of helpful-base of at most 64 tokens, 48 new tokens,
32 episodes an update in micro-batches of 8, 4 epochs of one step. Each library in processes of its own, in turn; TRL in a virtual
environment (made where VENV is missing). Both score with an unfitted reward model: its passes cost what those of a fitted one cost. The
first update is not counted. OMP_NUM_THREADS gives the threads of both, THP_MEM_ALLOC_ENABLE=1 is what the command line sets for a run. Every
OVERRIDE is a setting of this project's side; `--trl-option` is one of TRL's PPOConfig.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from side_by_side import (
    LORA,
    Measured,
    after_the_first,
    as_messages,
    best_product,
    chat_model,
    clock,
    dialogues,
    environment,
    peak_gib,
    report,
    run,
)

PROMPT_TOKENS, NEW_TOKENS, EPISODES, EPOCHS, MICRO = 64, 48, 32, 4, 8
LEARNING_RATE, KL_COEF, VALUE_COEF = 1e-5, 0.05, 0.1


def ours(work: dict[str, Any], overrides: list[str]) -> Measured:
    """Rollout, scores and update, as a run makes them."""
    import torch

    from alignbench import Message, Prompt, Sampling, ScoredRollout, Seeds
    from alignbench.app.compose import load_config
    from alignbench.pipeline.preparation import pick_device

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
    policy = config.model.build(tokenizer=None, device=device, seeds=Seeds(0))
    policy.freeze_reference()
    reward = config.reward.build(policy=policy, data=None, seeds=Seeds(0))
    optimizer = config.algo.build(policy=policy, updates=work["updates"], seeds=Seeds(0))
    prompts = [Prompt(str(i), tuple(Message(**m) for m in row["messages"])) for i, row in enumerate(work["prompts"])]

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    seconds: list[float] = []
    parts: Counter[str] = Counter()
    operations = 0.0
    for update in range(work["updates"]):
        asked = prompts[update * EPISODES : (update + 1) * EPISODES]
        begun = now()
        rollout = policy.generate(asked, Sampling(), rng=torch.Generator().manual_seed(update))
        sampled = now()
        scores = reward.score(rollout.samples)
        scored = now()
        optimizer.update(ScoredRollout(rollout, scores))
        done = now()
        if update:
            seconds.append(done - begun)
            parts.update({"rollout": sampled - begun, "reward": scored - sampled, "update": done - scored})
            operations += trained(policy, config, rollout.samples.sequences)
    mean = {name: taken / len(seconds) for name, taken in parts.items()}
    share = operations / parts["update"] / best_product()
    return Measured("alignbench", overrides, seconds, mean, EPISODES, peak_gib(), share)


def trained(policy: Any, config: Any, sequences: Any) -> float:
    """Floating-point operations of the matrix products in one update, as it is made: scores of policy, reference and value,
    then the epochs; two for each weight and token forward, two more back through a frozen weight. Positions are those that
    are computed: what rows share counts once. Adapters, attention and whatever is no product of matrices are left out."""
    import torch
    from alignbench_hf.prompts import reading

    from alignbench import POLICY, functional

    model = policy._roles.use(POLICY)
    head = model.get_output_embeddings().weight.numel()
    trunk = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "lora_" not in n and "embed" not in n)
    trunk -= 0 if model.config.tie_word_embeddings else head

    def tokens(size: int) -> int:
        pieces = functional.micro_batches(sequences, torch.arange(EPISODES), size)
        rows = map(sequences.select, pieces)
        return sum(reading(row.prompt_ids, row.prompt_mask, row.response_ids.shape[1]).tokens for row in rows)

    answered = EPISODES * sequences.response_ids.shape[1]
    networks = 1 if config.model.config.value_trunk == "shared" else 2
    scoring = 2 * (tokens(config.model.config.scoring_batch_size) * trunk * (networks + 1) + 2 * answered * head)
    training = 4 * EPOCHS * (tokens(config.algo.config.micro_batch_size) * trunk * networks + answered * head)
    return float(scoring + training)


def theirs(work: dict[str, Any], options: list[str]) -> Measured:
    """As TRL's own example does it: LoRA on the policy, a value and a reward model of their own."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(work["model"], padding_side="left")
    tokenizer.pad_token = work["pad"]

    def scalar() -> object:
        model = AutoModelForSequenceClassification.from_pretrained(work["model"], num_labels=1, dtype=torch.bfloat16)
        model.config.pad_token_id = tokenizer.pad_token_id
        return model

    ticking, stamps = clock()
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
            callbacks=[ticking],
        )
        trainer.train()
    return Measured("TRL 1.12", options, after_the_first(stamps), {}, EPISODES, peak_gib())


def prepare(folder: Path, count: int, name: str) -> dict[str, Any]:
    """A checkpoint folder and the first `count` different prompts that are short enough, as messages and as token ids."""
    model, tokenizer = chat_model(name)
    rows = {}
    for pair in dialogues(folder):
        asked = as_messages(pair.prompt)
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) <= PROMPT_TOKENS:
            rows.setdefault(text, {"messages": asked, "ids": ids})
        if len(rows) == count:
            return {"model": str(model), "pad": tokenizer.pad_token, "prompts": list(rows.values())}
    raise SystemExit(f"{folder} has {len(rows)} prompts of at most {PROMPT_TOKENS} tokens, not {count}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the files of HH-RLHF")
    parser.add_argument("overrides", nargs="*", help="settings of this project's side")
    parser.add_argument("--updates", type=int, default=3, help="of which the first is not counted")
    parser.add_argument("--model", default="", help="hub id or folder of another chat model")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each library, in turn")
    parser.add_argument("--trl", type=Path, default=Path.home() / ".cache" / "alignbench" / "trl-1.12", metavar="VENV")
    parser.add_argument("--trl-option", action="append", default=[], help="NAME=VALUE (JSON) of TRL's PPOConfig")
    parser.add_argument("--alone", action="store_true", help="this project's side alone")
    parser.add_argument("--measure", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    if arguments.measure:
        side, extra = (ours, arguments.overrides) if arguments.measure == "ours" else (theirs, arguments.trl_option)
        side(json.loads(arguments.data.read_text()), extra).say()
        return
    pythons: dict[str, Path | str] = {"ours": sys.executable}
    if not arguments.alone:
        pythons["theirs"] = environment(arguments.trl, "trl==1.12.0", "torch", "peft", "pandas", "rich", without="trl")
    work = {**prepare(arguments.data, EPISODES * arguments.updates, arguments.model), "updates": arguments.updates}
    extra = [*arguments.overrides, *(f"--trl-option={option}" for option in arguments.trl_option)]
    report(run(__file__, work, pythons, extra, arguments.rounds), "episodes")


if __name__ == "__main__":
    main()
