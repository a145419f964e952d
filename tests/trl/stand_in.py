"""The other side of `trl_ppo`'s exchange of files, as docs/trl.md states it, without TRL: its "training" adds learning_rate times the mean
score to every weight."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from safetensors.numpy import load_file, save_file


def main() -> None:
    folder, version, fault = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    settings = json.loads((folder / "settings.json").read_text())
    rate, seen = settings["arguments"]["learning_rate"], load_file(folder / "reference.safetensors")
    assert any((folder / "start").iterdir()), "there is a checkpoint"
    if fault == "prints":
        print("a library's greeting\n42", flush=True)
    print(json.dumps({"trl": version}), flush=True)
    total = 0.0
    for line in sys.stdin:
        what, number = line.split()
        if what == "batch":
            if fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "dies":
                print("some library's last words", file=sys.stderr)
                sys.exit(3)
            batch, weights = load_file(folder / "batch.safetensors"), load_file(folder / "weights.safetensors")
            assert set(weights) == set(seen), "the reference has the policy's names"
            mean = batch["scores"].mean()
            total += float(mean)
            trained = {name: tensor + rate * mean for name, tensor in weights.items()}
            if fault == "renames":
                trained["another"] = trained.pop(next(iter(trained)))
            save_file(trained, folder / "trained.safetensors")
            told = {
                "objective/scores": float(mean),
                "objective/kl": 0.25,
                "eps": 9,
                "val/ratio": total,
                "lr": rate,
                "x": float("nan"),
            }
            (folder / "figures.json").write_text(json.dumps(told))
        elif what == "state":
            save_file({"value.total": batch["scores"][:1] * 0 + total}, folder / "state.safetensors")
        elif what == "restore":
            total = float(load_file(folder / "state.safetensors")["value.total"][0]) + 100 * int(number)
        print(json.dumps({"done": what}), flush=True)


if __name__ == "__main__":
    main()
