"""A run's directory: complete, and never edited after the run. Every write is whole or absent."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignbench import distributed
from alignbench.errors import AlignbenchError, UserError
from alignbench.records import ExampleScore, Generation, Ranking
from alignbench.results.disk.record import RunRecord

CONFIG = "config.yaml"
RESULT = "result.json"
EXAMPLES = "examples.parquet"
GENERATIONS = "generations.jsonl"
TRAINING = "train.jsonl"
RANKINGS = "rankings.jsonl"
FRONTIER = "frontier.json"
INPUTS = "inputs.json"
"""What the files that the settings name held when the run began."""
BASELINE = "sft"
"""Sub-folder with the same files for the SFT model that the run started from."""
CHECKPOINTS = "checkpoint"
LAST_GOOD = "last_good"
"""The policy as the last good update left it, where a number became NaN or infinite."""
LOCK = ".lock"
"""What only an unfinished run has."""


@dataclass(frozen=True)
class RunDirectory:
    """Writes the files of one run. Errors of the file system are raised as one line for the user."""

    path: Path

    @classmethod
    def create(
        cls,
        results_dir: Path,
        *,
        algo: str,
        model: str,
        data: str,
        seed: int,
        config_hash: str,
        now: datetime | None = None,
    ) -> RunDirectory:
        """Makes `<date>-<algo>-<model>-<data>-s<seed>-<hash>`, the date in UTC; a name that is taken gets -2, -3..."""
        date = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%d-%H%M%S")
        name = f"{date}-{cls.name_of(algo, model, data, seed, config_hash)}"
        with file_errors(results_dir):
            results_dir.mkdir(parents=True, exist_ok=True)
            for attempt in itertools.count(1):
                path = results_dir / (name if attempt == 1 else f"{name}-{attempt}")
                with contextlib.suppress(FileExistsError):  # mkdir is atomic: two runs never share a folder
                    path.mkdir()
                    return cls(path)
        raise AssertionError("unreachable")

    @staticmethod
    def name_of(algo: str, model: str, data: str, seed: int, config_hash: str) -> str:
        """What follows the date in a directory's name."""
        return "-".join([_safe(algo), _safe(model), _safe(data), f"s{seed}", _safe(config_hash[:8])])

    @property
    def run_id(self) -> str:
        return self.path.name

    def baseline(self) -> RunDirectory:
        """The nested directory of the SFT model."""
        path = self.path / BASELINE
        with file_errors(path):
            path.mkdir(exist_ok=True)
        return RunDirectory(path)

    def write_record(self, record: RunRecord) -> None:
        """result.json. First written with status `running`, so that nothing unfinished ever looks finished."""
        self._write(RESULT, record.to_json())

    def write_config(self, yaml: str) -> None:
        self._write(CONFIG, yaml)

    def keep_config(self, yaml: str) -> None:
        """A second copy beside the checkpoints: a resume is refused where config.yaml is no longer the same."""
        path = self.path / CHECKPOINTS
        with file_errors(path):
            path.mkdir(exist_ok=True)
        RunDirectory(path).write_config(yaml)

    def write_inputs(self, digests: Mapping[str, str]) -> None:
        """inputs.json: a digest of each file or folder that the settings name."""
        self._write(INPUTS, json.dumps(digests, indent=2, ensure_ascii=False) + "\n")

    def inputs(self) -> dict[str, str]:
        """What inputs.json says; nothing where there is none, or none that can be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads((self.path / INPUTS).read_bytes())
            if isinstance(found, dict):
                return {str(name): str(digest) for name, digest in found.items()}
        return {}

    def append_training(self, stage: str, update: int, metrics: Mapping[str, float | None]) -> dict[str, Any]:
        """One line of train.jsonl, which is returned. Opened for each line: what is written survives whatever ends the run."""
        numbers = {name: finite(None if value is None else float(value)) for name, value in metrics.items()}
        line = {"stage": stage, "update": update, **numbers}
        if not distributed.is_main():
            return line
        path = self.path / TRAINING
        with file_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return line

    def training(self) -> list[dict[str, Any]]:
        """The lines of train.jsonl. The last one may be torn, where the run was killed while it was written: left out."""
        path = self.path / TRAINING
        try:
            whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            lines: list[dict[str, Any]] = [json.loads(line) for line in whole]
            if not all(isinstance(line["stage"], str) and isinstance(line["update"], int) for line in lines):
                raise TypeError
        except FileNotFoundError:
            return []
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else "a line of it is no line of training"
            raise UserError(f"{path} cannot be read: {why}. It was damaged: start a new run.") from error
        return lines

    def rewrite_training(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """train.jsonl anew, where a resumed run repeats what was written after its checkpoint."""
        self._write(TRAINING, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def copy(self, source: Path, name: str) -> None:
        """A file or folder that a stage has written elsewhere."""
        target = self.path / name
        if not distributed.is_main():
            return
        with file_errors(target):
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                self._write(name, source.read_bytes())

    def lock(self) -> FileLock:
        """Held by the process that runs here: the operating system drops it, however that process ends."""
        return FileLock(self.path / LOCK)

    def is_blank(self) -> bool:
        """Whether nothing is there but what a run writes before its record: its lock and its configuration."""
        begun = {LOCK, CONFIG, INPUTS, CHECKPOINTS, f"{CHECKPOINTS}/{CONFIG}"}
        found = [file.relative_to(self.path) for file in self.path.rglob("*")]
        return self.path.is_dir() and all(
            file.as_posix() in begun or (file.name.startswith(".") and file.suffix == ".tmp") for file in found
        )

    def sweep(self) -> None:
        """Removes what a killed process was in the middle of writing. The run's lock must be held."""
        for folder in (self.path, self.path / BASELINE, self.path / CHECKPOINTS):
            for file in folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    file.unlink()

    def tidy(self) -> None:
        """Removes what only an unfinished run needs."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
            (self.path / LOCK).unlink(missing_ok=True)

    def write_examples(self, scores: Sequence[ExampleScore]) -> None:
        """examples.parquet with the columns metric, example, cluster and value: what paired tests use."""
        import polars  # a third of a second to import, and only runs write

        frame = polars.DataFrame(
            {
                "metric": [s.metric for s in scores],
                "example": [s.example for s in scores],
                "cluster": [s.cluster for s in scores],
                "value": [s.value for s in scores],
            },
            schema={
                "metric": polars.String, "example": polars.String, "cluster": polars.String, "value": polars.Float64,
            },
        )  # fmt: skip
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        self._write(EXAMPLES, buffer.getvalue())

    def write_generations(self, generations: Iterable[Generation]) -> None:
        """generations.jsonl: what every generation metric was computed from, one line each."""
        lines = (json.dumps(generation_line(g), ensure_ascii=False) + "\n" for g in generations)
        self._write(GENERATIONS, "".join(lines))

    def write_rankings(self, train: Iterable[Ranking], held_out: Iterable[Ranking], *, annotator: str) -> None:
        """rankings.jsonl: one ranking a line, as a person could have written it and as `Annotator.recorded` gives it."""
        lines = [
            json.dumps(
                {
                    "id": ranking.prompt.id,
                    "messages": [{"role": m.role, "content": m.content} for m in ranking.prompt.messages],
                    "responses": list(ranking.responses),
                    "ranks": list(ranking.ranks),
                    "finished": list(ranking.finished or (True,) * len(ranking.ranks)),
                    "annotator": ranking.annotator or annotator,
                    "split": split,
                },
                ensure_ascii=False,
            )
            for split, rankings in (("train", train), ("held_out", held_out))
            for ranking in rankings
        ]
        self._write(RANKINGS, "".join(line + "\n" for line in lines))

    def write_frontier(self, text: str) -> None:
        """frontier.json: the best that any policy could do with this run's reward, for the plots."""
        self._write(FRONTIER, text)

    def writing(self, name: str = "") -> contextlib.AbstractContextManager[None]:
        """Around whatever else is written into this directory, such as a model: its errors as one line for the user."""
        return file_errors(self.path / name)

    def _write(self, name: str, content: str | bytes) -> None:
        """backslashreplace: a lone surrogate in a response becomes its JSON escape, not an error."""
        if not distributed.is_main():
            return
        path = self.path / name
        encoded = content.encode(errors="backslashreplace") if isinstance(content, str) else content
        with file_errors(path):
            write_whole(path, encoded)


def write_whole(path: Path, content: bytes) -> None:
    """Through a temporary file: whoever reads finds the old content or the new, whatever ends this process meanwhile."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def generation_line(generation: Generation) -> dict[str, Any]:
    """A line of generations.jsonl."""
    prompt, verdict = generation.prompt, generation.verdict
    return {
        "prompt": prompt.id,
        "cluster": prompt.cluster,
        "opinion": prompt.opinion.value if prompt.opinion else None,
        "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "index": generation.index,
        "response": generation.response,
        "tokens": generation.tokens,
        "finished": generation.finished,
        "logprob": finite(generation.logprob),
        "ref_logprob": finite(generation.ref_logprob),
        "entropy": finite(generation.entropy),
        "proxy_reward": finite(generation.proxy_reward),
        "gold_reward": finite(verdict.gold_reward) if verdict else None,
        "correct": verdict.correct if verdict else None,
        "agrees": verdict.agrees if verdict else None,
    }


def finite(value: float | None) -> float | None:
    """JSON has no NaN: null."""
    return value if value is not None and math.isfinite(value) else None


def _safe(name: str) -> str:
    """A part of a file name, from a name that may hold anything (a model can be a path)."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("._")[:40] or "unnamed"


_REASONS = {
    errno.ENOSPC: "the disk is full: free some space, or {}",
    errno.EDQUOT: "your disk quota is used up: free some space, or {}",
    errno.EACCES: "no permission: {}",
    errno.EPERM: "no permission: {}",
    errno.EROFS: "the file system is read-only: {}",
    errno.ENOTDIR: "a part of the path is a file, not a folder: {}",
    errno.EEXIST: "it is a file, not a folder: {}",
    errno.ENAMETOOLONG: "the name is too long: {}",
}
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def file_errors(path: Path, advice: str = "choose another folder with results_dir=") -> Iterator[None]:
    """Errors of the file system as one line for the user; `advice` says how to write elsewhere."""
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        kind = AlignbenchError if number in _OUT_OF_SPACE else UserError
        text = _REASONS.get(number)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise kind(f"Cannot write {path}: {text.format(advice) if text else f'{reason}.'}") from error


def _error_number(error: Exception) -> int | None:
    """The errno of a file-system error. safetensors has an exception of its own, and tokenizers raises the base of all, each with the
    number in its text."""
    if isinstance(error, OSError):
        return error.errno or 0
    rust = type(error) is Exception or type(error).__name__ == "SafetensorError"
    found = re.search(r"\(os error (\d+)\)", str(error)) if rust else None
    return int(found.group(1)) if found else None
