"""PPO of TRL 1.12 in an environment of its own: run by path, with nothing of this project importable. docs/trl.md states the files and lines
that go to and fro.

The training loop, the rewards, advantages, losses, optimizer and schedule are TRL's. In place of its sampling, its reward model and its data
stand the responses, scores and prompts of the batch that it is given.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PrinterCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

ADAPTER = ".default"  # in a parameter's name, where peft keeps the adapter that it loaded


class Closed(BaseException):
    """Nothing more will come. Not an Exception, which a library might take for a fault of its own."""


class Scores(nn.Module):
    """A reward model to TRL, which asks it of the rows of a batch in their order: it gives the scores that came with them."""

    base_model_prefix = "rows"

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.zeros(0)

    def rows(self, input_ids: Tensor, **_: Any) -> Any:
        """TRL reads the last state of each row's response: here every state of a row is its score."""
        count, width = input_ids.shape
        now, self.left = self.left[:count], self.left[count:]
        return SimpleNamespace(hidden_states=(now.to(input_ids.device)[:, None, None].expand(count, width, 1),))

    def score(self, states: Tensor) -> Tensor:
        return states


class Trainer(PPOTrainer):
    """What it logs of an update is kept in `told`."""

    told: dict[str, Any]

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        self.told = dict(logs)


class Exchange:
    """TRL's data loader: when TRL asks for a batch, the one before is answered, and the next is waited for."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.given: dict[str, Tensor] = {}
        self.open = False  # a batch is not answered yet
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer
        policy, reference = start(folder, settings)
        torch.manual_seed(settings["seed"])
        self.tokens = SimpleNamespace(pad_token_id=0, eos_token_id=settings["eos"])
        self.scores = Scores()
        self.trainer = Trainer(
            args=PPOConfig(output_dir=str(folder / "output"), **settings["arguments"]),
            processing_class=self.tokens,
            model=policy,
            ref_model=reference,
            reward_model=self.scores,
            value_model=value(reference, settings["seed"]),
            train_dataset=[{"input_ids": [0]}] * 2,
            eval_dataset=[{"input_ids": [0]}] * 2,
            data_collator=dict,
        )
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.dataloader = self
        self.weights = own(policy)
        ppo_trainer.batch_generation = self.responses

    def answer(self, **said: Any) -> None:
        print(json.dumps(said), file=self.answers, flush=True)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield self.next()

    def next(self) -> dict[str, Tensor]:
        """Raises Closed at the end of the lines."""
        self.finish()
        for line in sys.stdin:
            what, number = line.split()
            if what == "batch":
                return self.batch(int(number))
            getattr(self, what)(int(number))
            self.answer(done=what)
        raise Closed

    def finish(self) -> None:
        """Answers the batch that was trained on."""
        if self.open:
            save(self.weights, self.folder / "trained.safetensors")
            (self.folder / "figures.json").write_text(json.dumps(self.trainer.told))
            self.open = False
            self.answer(done="batch")

    def batch(self, number: int) -> dict[str, Tensor]:
        with torch.no_grad():
            for name, tensor in load_file(self.folder / "weights.safetensors").items():
                self.weights[name].copy_(tensor)
        device = self.trainer.accelerator.device
        self.given = {name: t.to(device) for name, t in load_file(self.folder / "batch.safetensors").items()}
        self.scores.left = self.given["scores"].float()
        seed = (self.settings["seed"] + number) % 2**32  # chances by the update: a process that goes on has the same
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        self.open = True
        self.tokens.pad_token_id = self.unused()  # TRL takes every token of this id for padding, wherever it stands
        return {"input_ids": self.padded("prompt")}

    def unused(self) -> int:
        """A token that the batch has not."""
        taken = {i for side in ("prompt", "response") for i in self.given[f"{side}_ids"][self.mask(side)].tolist()}
        size = self.trainer.policy_model.get_output_embeddings().weight.shape[0]
        if (found := next((i for i in range(size) if i not in taken), None)) is None:
            sys.exit("TRL pads with a token that no row has, and this batch has all: model.suppress_tokens=[<pad>].")
        return found

    def mask(self, side: str) -> Tensor:
        return self.given[f"{side}_mask"].bool()

    def padded(self, side: str) -> Tensor:
        return self.given[f"{side}_ids"].long().masked_fill(~self.mask(side), self.tokens.pad_token_id)

    def responses(self, model: nn.Module, queries: Tensor, size: int, pad: int, config: Any) -> tuple[Tensor, Tensor]:
        """In the place of TRL's sampling: prompts with the responses that were given, and the logits that they are drawn from."""
        rows, logits = torch.cat([queries, self.padded("response")], 1), []
        for first in range(0, len(rows), size):
            found = ppo_trainer.forward(model, rows[first : first + size], pad).logits
            logits.append(found[:, queries.shape[1] - 1 : -1].float() / config.temperature)
        return rows, torch.cat(logits)

    def state(self, _: int) -> None:
        """Moments of the optimizer by parameter number and name, weights of the value network by their names."""
        held = self.trainer.optimizer.state_dict()["state"]
        tensors = {f"optimizer.{i}.{name}": t for i, state in held.items() for name, t in state.items()}
        save(tensors | {f"value.{name}": t for name, t in self.values().items()}, self.folder / "state.safetensors")

    def restore(self, updates: int) -> None:
        """Goes on after so many updates."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in load_file(self.folder / "state.safetensors").items():
            of, _, rest = name.partition(".")
            if of == "value":
                with torch.no_grad():
                    self.values()[rest].copy_(tensor)
            else:
                number, _, moment = rest.partition(".")
                state.setdefault(int(number), {})[moment] = tensor
        groups = self.trainer.optimizer.state_dict()["param_groups"]
        self.trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})
        for _ in range(updates):
            self.trainer.lr_scheduler.step()

    def values(self) -> dict[str, Tensor]:
        return dict(self.trainer.value_model.named_parameters())


def start(folder: Path, settings: dict[str, Any]) -> tuple[Any, Any]:
    """The policy and the reference: the same checkpoint with weights of its own."""
    there, dtype = folder / "start", getattr(torch, settings["dtype"])
    adapted = (there / "adapter").is_dir()
    policy: Any = AutoModelForCausalLM.from_pretrained(
        settings["base"] if adapted else there / "model", dtype=dtype, use_safetensors=True
    )
    if adapted:
        from peft import PeftModel

        policy = PeftModel.from_pretrained(policy, there / "adapter", is_trainable=True)
    reference = copy.deepcopy(policy)
    held = own(reference)
    with torch.no_grad():
        for name, tensor in load_file(folder / "reference.safetensors").items():
            held[name].copy_(tensor)
    reference = reference.requires_grad_(False).eval()
    if (bias := folder / "output_bias.safetensors").exists():
        for model in (policy, reference):
            head = model.get_output_embeddings()
            head.bias = nn.Parameter(load_file(bias)["bias"].to(head.weight), requires_grad=False)
    return policy, reference


def own(policy: Any) -> dict[str, nn.Parameter]:
    """What is trained of the policy: all of it, or its adapter, by the names that these parameters have without peft's."""
    model = policy.get_base_model() if hasattr(policy, "peft_config") else policy
    return {name.replace(ADAPTER, ""): p for name, p in model.named_parameters() if p.requires_grad}


def value(reference: Any, seed: int) -> Any:
    """A value network that starts from the reference, with a head that says 0. In float32: it is trained in full."""
    plain = copy.deepcopy(reference).float()
    plain = plain.merge_and_unload() if hasattr(plain, "peft_config") else plain
    plain.config.num_labels = 1
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(plain.config, dtype=torch.float32)
    trunk = getattr(plain, plain.base_model_prefix)
    getattr(model, model.base_model_prefix).load_state_dict(trunk.state_dict())
    nn.init.zeros_(model.score.weight)
    return model


def save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def main() -> None:
    folder = Path(sys.argv[1])
    exchange = Exchange(folder, json.loads((folder / "settings.json").read_text()))
    exchange.answer(trl=version("trl"))
    try:
        exchange.trainer.train()
        exchange.next()
    except Closed:
        return
    raise SystemExit("a batch after the last update")


if __name__ == "__main__":
    main()
