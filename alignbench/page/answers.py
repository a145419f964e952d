"""Questions and answers as JSON, whatever strangers put into them."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from alignbench.errors import UserError


def as_json(value: object) -> Response:
    """ASCII alone: half a surrogate pair, which models do write, is sent as its escape."""
    return Response(json.dumps(value, allow_nan=False), media_type="application/json")


async def asked(request: Request) -> dict[str, Any]:
    """The object in a request's body. Raises UserError for anything else."""
    try:
        given = json.loads(await request.body() or b"{}")
    except (
        ValueError,
        RecursionError,
    ) as error:  # not JSON, not UTF-8, a number of thousands of digits, a tower of brackets
        raise UserError("The request's body is no JSON.") from error
    if not isinstance(given, dict):
        raise UserError("The request's body must be an object.")
    return given
