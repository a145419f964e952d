"""What each of two processes does where the main one keeps the other waiting, and where it asks for both.

    torchrun --nproc-per-node 2 tests/distributed/waiting.py FOLDER URL

What each was told is written into FOLDER."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import distributed_c10d

sys.path.insert(0, str(Path(__file__).parents[2]))

from alignbench_rewards.chat import ChatClient
from alignbench_rewards.config import JudgeConfig
from alignbench_rewards.judge import read_rating

from alignbench import Seeds, UserError, distributed
from alignbench.app.compose import load_config
from alignbench.pipeline import lifecycle

SECONDS = 3.0


def told(client: ChatClient, question: str) -> object:
    try:
        return [reply.value for reply in client.ask([(("user", question),)], read_rating)]
    except UserError as error:
        return str(error)


def refusals(folder: Path) -> tuple[str, str]:
    """What is said where a run, or a row of its own, cannot begin: its results folder is a file, which only the main process tries."""
    config = load_config(["algo=sft", f"results_dir={folder / 'file' / 'runs'}"])
    said = []
    (folder / "file").touch()
    who = lifecycle.identity(config, config.algo, config.hash, annotator=False, reward=False)

    for attempt in (
        lifecycle.begun(config, annotator=False, reward=False, say=print),
        lifecycle.new_row(config, "sft", who, config.yaml, reused={}, say=print),
    ):
        try:
            with attempt:
                pass
        except UserError as error:
            said.append(str(error))
    begun, row = said
    return begun, row


def main(folder: str, url: str) -> None:
    torch.set_num_threads(1)
    distributed_c10d.default_pg_timeout = timedelta(
        seconds=SECONDS / 3
    )  # torch's own is half an hour, NCCL's ten minutes
    with distributed.joined("cpu"):
        slept = distributed.agreed(lambda: time.sleep(SECONDS) or "long")
        config = JudgeConfig(url=url, model="referee", key_variable="", cache=False, retries=0, reasks=0)
        client = ChatClient(config, Seeds(0))
        found = {"waited": slept, "answer": told(client, "Rate it"), "refusal": told(client, "refuse")}
        found["requests"] = client.figures()["requests"]
        found["begun"], found["row"] = refusals(Path(folder))
        (Path(folder) / str(distributed.rank())).write_text(json.dumps(found))
        distributed.wait_for_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
