"""A run that is started from the simulator stands beside those that are there: from the same SFT model, measured in the same way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from omegaconf import OmegaConf

from alignbench.app.compose import composed, typed
from alignbench.app.overrides import quoted
from alignbench.results.disk.runs import StoredRun

SHARED = ("pretrain", "sft", "model", "data", "rankings", "reward", "annotator", "judge", "eval")
"""Settings that runs of one table have in common; what is wanted (the algorithm, and an annotator or a reward where one is) is chosen anew."""
GROUPS = {
    "pretrain": "algo@pretrain",
    "sft": "algo@sft",
    "reward": "reward",
    "annotator": "annotator",
    "judge": "reward@judge",
}
"""How the component of such settings is named on the command line."""
OWN = ("eval.every", "eval.points.")
"""How often a run looks at itself tells nothing of what it measures at its end."""


def same_start(run: StoredRun, chosen: Collection[str] = ()) -> list[str]:
    """Overrides: the model, the data and the seed of `run` by name, and of its shared settings, components among them, those that are
    not the defaults. Those of the groups in `chosen` are left to whoever chooses."""
    who = run.record.identity
    named = [f"model={who.model}", f"data={who.data}", f"seed={who.seed}"]
    shared = [name for name in SHARED if name not in chosen]

    # Not ready to run: the path of the data comes with the rest.
    ordinary = OmegaConf.create(typed(*composed(named)).yaml)

    def default(key: str) -> Any:
        found = OmegaConf.select(ordinary, key)
        return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found

    own = {name: run.settings.get(f"{name}.component") for name in shared}
    others = {n: its for n, its in own.items() if n in GROUPS and its and its != default(f"{n}.component")}
    kept = [name for name, its in own.items() if name in others or its == default(f"{name}.component")]
    return [
        *named,
        *(f"{GROUPS[name]}={its}" for name, its in others.items()),
        *(
            f"{key}={_text(value)}"
            for key, value in run.settings.items()
            if (group := key.partition(".")[0]) in kept
            and not key.endswith(".component")
            and not key.startswith(OWN)
            and (group in others or value != default(key))  # another component has other defaults
        ),
    ]


def _text(value: Any) -> str:
    """As Hydra's grammar takes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return quoted(value) if isinstance(value, str) else repr(value)
