"""A request's body: read within limits, parsed, and free of what no text may hold."""

from __future__ import annotations

import math
import re
from typing import Any

import anyio
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from optillm_local.server.errors import HttpError
from optillm_local.server.security import Limits

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


async def read_params(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        HttpError: 415 for another type of content, 413 if it is too large, 408 if it does not arrive, 400 if
            it is not a JSON object of readable text and finite numbers.
        ClientDisconnect: the client went away.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # also keeps web pages out: a browser asks before it sends this type
        raise HttpError(415, "send the header 'Content-Type: application/json'", code="unsupported_media_type")
    raw = await _read(request, limits)
    try:
        params = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise HttpError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(params, dict):
        raise HttpError(400, f"the body must be a JSON object, not {type(params).__name__}", code="invalid_json")
    for name, value in params.items():
        _check_text("a name", name)
        _check(name, value)
    return params


async def _read(request: Request, limits: Limits) -> bytes:
    too_large = HttpError(413, f"the body may have {limits.body_bytes} bytes at most", code="request_too_large")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and len(announced) < 20 and int(announced) > limits.body_bytes:
        raise too_large
    parts: list[bytes] = []
    size = 0
    with anyio.move_on_after(limits.body_seconds) as deadline:
        while True:
            event = await request.receive()
            if event["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(event.get("body", b""))
            size += len(parts[-1])
            if size > limits.body_bytes:
                raise too_large
            if not event.get("more_body", False):
                break
    if deadline.cancelled_caught:
        raise HttpError(408, f"the body did not arrive within {limits.body_seconds:g} s", code="request_timeout")
    return b"".join(parts)


def _check(where: str, value: Any) -> None:
    """Raises HttpError (400) for control characters and numbers that are not finite, wherever they are."""
    if isinstance(value, str):
        _check_text(where, value)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(f"{where}.{index}", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(f"a name in {where}", name)
            _check(f"{where}.{name}", item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise HttpError(400, f"{where}: the number is too large", code="invalid_value")


def _check_text(where: str, text: str) -> None:
    found = _CONTROL.search(text)
    if found:
        which = f"the control character U+{ord(found[0]):04X}"
        raise HttpError(400, f"{where}: {which} at {found.start()}; leave it out", code="invalid_value")
