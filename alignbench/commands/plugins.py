"""`alignbench plugins`: every component that is installed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignbench.plugins import Kind, Place, registry

DESCRIPTION = "Lists every component, command and section of the report: kind, name, distribution, version, summary."


def main(arguments: Sequence[str]) -> int:
    """Prints the table; returns the exit code."""
    argparse.ArgumentParser("alignbench plugins", description=DESCRIPTION).parse_args(arguments)
    table = Table("kind", "name", "distribution", "version", "what it is", box=None, pad_edge=False)
    for kind in Kind:
        for component in registry().of(kind):
            row = (kind.value, component.name, component.distribution, component.version, component.summary)
            table.add_row(*(escape(cell) for cell in row))
    for place in Place:
        for function in registry().functions_of(place):
            row = (place.value, function.name, function.distribution, function.version, function.summary)
            table.add_row(*(escape(cell) for cell in row))
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(table)
    return 0
