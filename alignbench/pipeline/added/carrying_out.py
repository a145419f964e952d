"""One stage of the user's own: carried out, or read back; its result held to what a result may be."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from alignbench import distributed
from alignbench.contracts.stage import Stage, StageView
from alignbench.errors import AlignbenchError, UserError
from alignbench.pipeline.added import kept
from alignbench.pipeline.workbench import Made, Note, Workbench
from alignbench.records import Split
from alignbench.records.stages import StagePlace, StageResult
from alignbench.selection import Selected

FILES, DEMONSTRATIONS = "files", "demonstrations.json"
FOLDER = "stages"
"""In a run's directory: what each stage has written, in a folder of its name."""
_SHOWN = 3


def result_of(bench: Workbench, chosen: Selected, view: StageView, key: str) -> StageResult:
    """What the stage gives where it is given this; made once under the key. Its files are put into the run's directory."""
    name = chosen.component.name
    shown = f"stage {name}"

    with tempfile.TemporaryDirectory(prefix="alignbench-") as own:
        folder = Path(own)

        def make() -> Made:
            with bench.display.stage(shown) as line, _blame(chosen):
                stage: Stage = chosen.build(seeds=bench.seeds.child(shown))
                found = stage.run(dataclasses.replace(view, folder=folder))
                _check(chosen, view, found)
                content = None if found.demonstrations is None else kept.as_json(found.demonstrations, kept.known(view))
                line.text = found.summary or ", ".join(f"{k} {v:.4g}" for k, v in list(found.figures.items())[:_SHOWN])

            def write(into: Path) -> None:
                shutil.copytree(folder, into / FILES)
                if content is not None:
                    (into / DEMONSTRATIONS).write_bytes(content)

            return Made(write, line.text, {figure: float(value) for figure, value in found.figures.items()})

        def load(made: Path, note: Note) -> StageResult:
            with bench.directory.writing(FOLDER):
                if any((made / FILES).glob("*")):
                    bench.directory.copy(made / FILES, f"{FOLDER}/{name}")
            file = made / DEMONSTRATIONS
            demonstrations = kept.read(file.read_bytes(), kept.known(view)) if file.exists() else None
            return StageResult(note.figures, note.text, demonstrations)

        return bench.once(f"stage_{name}", key, stages=(shown,), make=make, load=load)


@contextlib.contextmanager
def _blame(chosen: Selected) -> Iterator[None]:
    """Whatever goes wrong inside is a fault of this stage: says whose it is."""
    try:
        yield
    except Exception as error:  # a plugin may fail in any way
        if distributed.peer_was_lost(error):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        if not isinstance(error, AlignbenchError):
            reason = f"{type(error).__name__}: {reason}"
        component = chosen.component
        raise UserError(
            f"The stage {component.name!r} of {component.distribution} failed: {reason}. Repair it, or leave it out of stages."
        ) from error


def _check(chosen: Selected, view: StageView, found: object) -> None:
    if not isinstance(found, StageResult):
        raise TypeError(f"it gives a {type(found).__name__}, not a StageResult")
    if odd := [f"{name} is {value}" for name, value in found.figures.items() if not math.isfinite(value)]:
        raise ValueError(f"its figure {odd[0]}: leave out what is not known")
    if found.demonstrations is None:
        return
    if chosen.component.config.place is not StagePlace.BEFORE_SFT:  # type: ignore[attr-defined]
        raise ValueError("it gives demonstrations, which nobody reads after SFT")
    if not found.demonstrations:
        raise ValueError(f"of {len(view.demonstrations)} demonstrations it leaves none")
    asked = {prompt.id for prompt in view.data.prompts(Split.EVALUATION)}
    if leaked := sum(one.prompt.id in asked for one in found.demonstrations):
        raise ValueError(f"{leaked} of the demonstrations that it gives are of evaluation prompts")
