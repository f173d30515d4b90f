"""Our errors as the `openai` package raises them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import openai

from optillm_local.core.errors import (
    ClientError,
    EngineDead,
    EngineOutOfMemory,
    InvalidConfiguration,
    ModelNotFound,
    OptillmError,
    RequestRejected,
    Truncated,
    Unsupported,
)

_STATUSES: tuple[tuple[type[OptillmError], type[openai.APIStatusError], int], ...] = (
    (RequestRejected, openai.BadRequestError, 400),
    (InvalidConfiguration, openai.BadRequestError, 400),
    (Unsupported, openai.BadRequestError, 400),
    (ModelNotFound, openai.NotFoundError, 404),
    (Truncated, openai.UnprocessableEntityError, 422),
    (EngineDead, openai.InternalServerError, 503),
    (EngineOutOfMemory, openai.InternalServerError, 503),
    (ClientError, openai.InternalServerError, 502),
    (OptillmError, openai.UnprocessableEntityError, 422),
)
"""The first that fits counts; 422 is a request that was fine and brought no answer."""

_NOWHERE = httpx2.Request("POST", "https://in.this.program/")


@contextmanager
def raised_as_openai() -> Iterator[None]:
    """Raise what the `openai` package would: the error it comes from is its cause, and says the same."""
    try:
        yield
    except TimeoutError as error:  # our own is one too
        raise openai.APITimeoutError(_NOWHERE) from error
    except OptillmError as error:
        raise as_openai(error) from error


def as_openai(error: OptillmError) -> openai.APIStatusError:
    """The exception of the `openai` package that says the same; `param` is the field that was refused."""
    kind, status = next((theirs, status) for ours, theirs, status in _STATUSES if isinstance(error, ours))
    body = {
        "message": str(error),
        "type": type(error).__name__,
        "param": getattr(error, "field", None),
        "code": None,
    }
    response = httpx2.Response(status, request=_NOWHERE)
    return kind(str(error), response=response, body=body)
