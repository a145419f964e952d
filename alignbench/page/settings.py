"""What a page shows, and where it is served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alignbench.bounds import bounded, check_bounds
from alignbench.errors import UserError

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class PageSettings:
    """`results` is the folder of runs; `token` is asked of every visitor where it is not empty. `projects`: the folder of what people
    rank; None: `rank` beside the results."""

    results: Path
    host: str = "127.0.0.1"
    port: int = bounded(8400, least=0, most=65535)
    token: str = ""
    projects: Path | None = None

    def __post_init__(self) -> None:
        check_bounds(type(self), vars(self), flags=True)
        if not (self.token.isascii() and self.token.isprintable()):
            raise UserError("--token goes into an address and a cookie: letters, digits and signs of ASCII alone.")
        if not self.host.strip():
            raise UserError("--host is empty: name one, or leave it out for this machine alone.")
        if self.host not in LOCAL and len(self.token) < 16:
            raise UserError(
                f"--host {self.host} can be reached from other machines: give --token, a secret of at least 16 characters, "
                "which visitors need."
            )

    @property
    def rankings(self) -> Path:
        """Where the projects are."""
        return self.projects or projects_beside(self.results)


def projects_beside(results: Path) -> Path:
    """What people enter is not kept among runs, which anybody may remove and make again."""
    return results.absolute().parent / "rank"
