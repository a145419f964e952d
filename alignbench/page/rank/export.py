"""Rankings out of a project, as a file that `annotator=recorded` reads: one line for each person's ranking of each prompt."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

from alignbench.errors import UserError
from alignbench.page.rank.store import Project
from alignbench.results.disk.directory import file_errors, write_whole

EXPORTS = "exports"


def rankings(project: Project, *, hashed: bool = False) -> str:
    """JSONL. Gold questions check people and teach no model; what could not be judged has no ranks: both are left out. `hashed`:
    names become keyed hashes, the same one for the same person."""
    items, key = project.items(), project.secret()
    lines = []
    for answer in project.answers():
        item = items[answer.item]
        if item.gold or not answer.judgement.ranks:
            continue
        row = {
            "id": item.prompt,
            "messages": [{"role": message.role, "content": message.content} for message in item.messages],
            "responses": item.responses,
            "ranks": answer.judgement.ranks,
            "finished": item.finished or (True,) * len(item.responses),
            "annotator": hashed_name(answer.annotator, key) if hashed else answer.annotator,
            "at": answer.at,
            "seconds": round(answer.judgement.seconds, 1),
            "shown": answer.shown,
            "project": project.name,
        }
        if answer.judgement.scales:
            row["scales"] = answer.judgement.scales
        if answer.judgement.note:
            row["note"] = answer.judgement.note
        lines.append(json.dumps(row) + "\n")  # ASCII: a lone surrogate stays the escape that it came as
    return "".join(lines)


def hashed_name(name: str, key: bytes) -> str:
    """HMAC-SHA256 under the project's secret: without it nobody finds a name by trying names."""
    return hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:16]


def write(project: Project, path: Path, *, hashed: bool = False) -> int:
    """Writes the file whole and returns how many rankings are in it. Raises UserError where there is none."""
    text = rankings(project, hashed=hashed)
    if not text:
        raise UserError(f"Nobody has ranked anything in the project {project.name} yet.")
    with file_errors(path, "choose another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    return text.count("\n")


def for_training(project: Project) -> Path:
    """The file that a run started now learns from: named by what is in it, so that a run's path always means the same rankings."""
    text = rankings(project)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = (project.folder / EXPORTS / f"rankings-{digest}.jsonl").absolute()
    write(project, path)
    return path
