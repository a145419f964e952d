"""A chat template is a program that came with a model. Jinja's sandbox holds what it may reach, and nothing holds how long it takes."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

from alignbench.errors import UserError

_SECONDS, _MEMORY = 5, 2**30
_WAIT = 60.0  # by the clock, for a machine that is busy
_SCRIPT = f"""
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({_SECONDS}, {_SECONDS}))
resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
said = json.load(sys.stdin)
try:
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.from_string(said).render(messages=[{{"role": "user", "content": "a"}}], add_generation_prompt=True)
except MemoryError:
    sys.exit(3)
except Exception:
    pass  # as it is written where it is used: only an end is asked for
"""


@functools.lru_cache(maxsize=256)
def ends(template: str) -> bool:
    """Whether a template has written one short message within 5 seconds of CPU and a GiB, in a process of its own: nothing in this
    one could stop it, where it computes inside of C."""
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", _SCRIPT],
            input=json.dumps(template),
            text=True,
            capture_output=True,
            timeout=_WAIT,
        )
    except subprocess.TimeoutExpired:
        return False
    return child.returncode >= 0 and child.returncode != 3


def check_ends(templates: object, where: str) -> None:
    """Raises UserError for a template, or one of several by name, that does not end."""
    listed = templates.values() if isinstance(templates, dict) else [templates]
    for template in listed:
        if isinstance(template, str) and not ends(template):
            raise UserError(
                f"The chat template of {where} has not written one short message in {_SECONDS} seconds and a GiB: choose another model or "
                "template."
            )
