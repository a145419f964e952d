"""Named, seeded generators: the only source of randomness in a run.

Each consumer asks for a generator by name, so that adding one random choice somewhere never shifts the
random numbers of another, and a stage gives the same result whether or not the stages before it ran.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Seeds:
    """A tree of seeds. `Seeds(0).child("ppo").torch("minibatches")` depends on the whole path and on nothing else."""

    root: int
    path: str = ""

    def child(self, name: str) -> Seeds:
        """The seeds of a part, whose generators never move those of another."""
        return Seeds(self.root, f"{self.path}/{name}")

    def integer(self, name: str) -> int:
        """A 63-bit seed for `name`."""
        digest = hashlib.sha256(f"{self.root}:{self.path}/{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def torch(self, name: str) -> torch.Generator:
        """Of the CPU, whatever device its numbers are for: all devices draw the same ones."""
        import torch

        return torch.Generator().manual_seed(self.integer(name))

    def python(self, name: str) -> random.Random:
        """A generator of the standard library: another object each time, at its beginning."""
        return random.Random(self.integer(name))

    @contextlib.contextmanager
    def global_torch(self, name: str) -> Iterator[None]:
        """Seeds torch's global generator for code that takes no generator (weight initialisation), then restores it."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self.integer(name))
            yield
