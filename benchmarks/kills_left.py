"""What kills.py looks at: all that a command left in its folder, and what must be equal of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def contents(folder: Path) -> dict[str, object]:
    """What must be equal in a folder of a command's: every file, and every name. Of a record, what neither time nor place decides;
    of settings, all but where they write."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[f"{name}/"] = ""
        elif path.name == "result.json":
            record = json.loads(path.read_text())
            found |= {
                f"{name}: {key}": record.get(key)
                for key in ("status", "metrics", "reports", "counts", "ended", "error")
            }
        elif path.name == "config.yaml":
            lines = path.read_text().splitlines()
            found[name] = [line for line in lines if not line.startswith(("results_dir:", "cache_dir:"))]
        else:
            found[name] = path.read_bytes()
    return found


def outcome(folder: Path) -> Mapping[str, object]:
    """The runs of a folder by seed: a run that was given up, and one made beside it, are not one run."""
    found: dict[str, object] = {}
    for run in sorted((folder / "runs").glob("*")):
        seed = run.name.rpartition("-")[0].rpartition("-")[2] if run.is_dir() else run.name
        while seed in found:
            seed += " again"
        found[seed] = ""
        found |= {f"{seed}/{name}": content for name, content in contents(run).items()} if run.is_dir() else {}
    return found | debris(folder)


def finished(found: Mapping[str, Any], *seeds: str) -> bool:
    """Whether these runs are there, with all that a run holds."""
    files = (
        "examples.parquet",
        "generations.jsonl",
        "train.jsonl",
        "rankings.jsonl",
        "frontier.json",
        "sft/examples.parquet",
    )
    return all(
        found.get(f"{seed}/result.json: status") == "finished"
        and all(found.get(f"{seed}/{name}") for name in files)
        and sum(name.startswith(f"{seed}/") and name.endswith(".safetensors") for name in found) >= 3
        for seed in seeds
    )  # fmt: skip


def only(folder: Path) -> Path:
    """The run in a folder of runs."""
    (run,) = [path for path in folder.iterdir() if path.is_dir()]
    return run


def rows(folder: Path) -> Mapping[str, object]:
    """The finished row of an evaluation: those that were killed say that they are unfinished."""
    whole = [path.parent for path in folder.glob("rows/*/result.json") if not unfinished(path.parent)]
    found = {name: content for row in whole for name, content in contents(row).items()}
    return {"rows": len(whole), **found, **debris(folder)}


def debris(folder: Path) -> Mapping[str, object]:
    """What somebody was in the middle of writing, wherever it lies; a run that is not finished has a lock."""
    found = [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix in (".tmp", ".partial")]
    rightly = (".hydra", ".alignbench-index")
    return {
        "debris": [
            str(path.relative_to(folder))
            for path in sorted(found)
            if path.name not in rightly
            and not (path.suffix == ".lock" or (path.name == ".lock" and unfinished(path.parent)))
        ]
    }


def unfinished(run: Path) -> bool:
    record = run / "result.json"
    return record.exists() and bool(json.loads(record.read_text())["status"] != "finished")


def jobs(folder: Path) -> Mapping[str, object]:
    """Of a sweep: its runs, and how it says that its jobs went, in the folder of the one that was given last."""
    sweeps = sorted((folder / "sweep").glob("jobs-*"), key=lambda path: path.stat().st_mtime)
    reports = [json.loads(path.read_text()) for path in sorted(sweeps[-1].glob("*.json"))] if sweeps else []
    return {"jobs": [(report["job"], report["status"]) for report in reports], **outcome(folder)}


def cache(folder: Path) -> Mapping[str, object]:
    found = contents(folder / "cache") | debris(folder)
    return {name: content for name, content in found.items() if not name.endswith(".lock")}
