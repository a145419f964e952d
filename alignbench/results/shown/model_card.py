"""The README.md of an exported model: where it comes from, what was measured of it, and how to make it again.

Front matter is the hub's (https://huggingface.co/docs/hub/model-cards). Names, paths and settings are untrusted: in the front matter YAML
quotes them, in the text they are literal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from alignbench.results.compared.table import build_table
from alignbench.results.disk.runs import StoredRun, find_runs
from alignbench.results.shown.grid import markdown_text
from alignbench.results.shown.render import markdown
from alignbench.untrusted import plain, redacted

_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PACKAGES = ("alignbench", "torch", "transformers", "peft", "datasets")


def model_card(path: Path, config: str, command: Sequence[str], *, merged: bool) -> str:
    """Of the finished run at `path`, whose config.yaml reads `config`; `command`: the words of the command that makes it again."""
    import shlex

    import yaml

    runs, broken = find_runs([path])
    run = next(found for found in runs if found.path.resolve() == path.resolve())
    who = run.record.identity
    algo = who.algo_label or who.algo
    front = yaml.safe_dump(_front(run, merged=merged), sort_keys=False, allow_unicode=True).rstrip()
    facts = {
        "Base model": str(run.settings.get("model.path") or f"{who.model}, from scratch"),
        "Data": " ".join([who.data, str(run.settings.get("data.path") or "")]).strip(),
        "Algorithm": f"{algo} ({who.plugin} {who.plugin_version})",
        "Preferences": who.annotator or "none",
        "Reward": who.reward or "none",
        "Seed": str(who.seed),
        "Versions": ", ".join(f"{name} {who.packages[name]}" for name in PACKAGES if name in who.packages),
        "Commit": who.git_commit or "not known",
    }
    rows = [f"| {name} | {markdown_text(' '.join(redacted(value).split()))} |" for name, value in facts.items()]
    return "\n".join(
        [
            *("---", front, "---", ""),
            *(f"# {markdown_text(algo)} on {markdown_text(who.model)}, {markdown_text(who.data)}", ""),
            *(
                "Trained and measured with alignbench. Exported " + ("as one model." if merged else "as an adapter."),
                "",
            ),
            *("| | |", "| --- | --- |", *rows, ""),
            *("## Measured", "", markdown(build_table(runs, broken))),
            *("## Made by", "", *fenced(shlex.join(command)), ""),
            *("## Settings", "", *fenced(config), ""),
        ]
    )


def _front(run: StoredRun, *, merged: bool) -> dict[str, object]:
    """`base_model` and `datasets` where the hub has them: elsewhere it would refuse the names."""
    who, base, data = run.record.identity, run.settings.get("model.path"), run.settings.get("data.path")
    algo = who.algo_label or who.algo
    return {
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        **({"base_model": base} if _on_hub(base) else {}),
        **({"datasets": [data]} if _on_hub(data) else {}),
        "tags": ["alignbench", "alignment", re.sub(r"[^\w.-]+", "-", plain(algo))],
    }


def _on_hub(name: object) -> bool:
    return isinstance(name, str) and bool(_ON_HUB.fullmatch(name)) and not Path(name).exists()


def fenced(text: str) -> list[str]:
    """A block of literal text, in a fence longer than any that is in it; without secrets, and nothing that a terminal obeys."""
    lines = [plain(line) for line in redacted(text).rstrip().split("\n")]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(longest + 1, 3)
    return [fence, *lines, fence]
