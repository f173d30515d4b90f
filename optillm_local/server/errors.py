"""What went wrong, as OpenAI's API says it: a status, and a JSON body with message, type, param and code."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optillm_local.core.errors import (
    BudgetExceeded,
    ClientError,
    EngineDead,
    EngineOutOfMemory,
    InvalidConfiguration,
    ModelNotFound,
    OptillmError,
    RequestRejected,
    Timeout,
    Truncated,
    Unsupported,
)

INVALID, SERVER, BUSY = "invalid_request_error", "server_error", "rate_limit_error"
_LONGEST_MESSAGE = 1000
_NO_RETRY = {"x-should-retry": "false"}  # the official client repeats every 5xx unless it is told not to

_KINDS: tuple[tuple[type[OptillmError], int, str, str], ...] = (
    (RequestRejected, 400, INVALID, "invalid_value"),
    (InvalidConfiguration, 400, INVALID, "invalid_value"),
    (Unsupported, 400, INVALID, "unsupported"),
    (ModelNotFound, 404, INVALID, "model_not_found"),
    (EngineDead, 503, SERVER, "engine_dead"),
    (EngineOutOfMemory, 503, SERVER, "engine_out_of_memory"),
    (BudgetExceeded, 422, INVALID, "budget_exceeded"),
    (Timeout, 504, SERVER, "timeout"),
    (Truncated, 422, INVALID, "no_answer"),
    (ClientError, 502, SERVER, "model_failed"),
    (OptillmError, 502, SERVER, "no_answer"),
)


class HttpError(OptillmError):
    """A request that the server itself refuses, with the status and headers of its answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        kind: str = INVALID,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param = status, kind, code, param
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a client is told of it."""

    status: int
    message: str
    kind: str
    code: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of it."""
        about = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": about}


def told(error: Exception) -> Told:
    """How to tell a client of an error. A bug of ours is not explained: it may quote a request."""
    if isinstance(error, HttpError):
        return Told(error.status, str(error), error.kind, error.code, error.param, error.headers)
    for kind, status, api_type, code in _KINDS:
        if isinstance(error, kind):
            headers = _NO_RETRY if status in (502, 504) else {}
            return Told(status, _message(error), api_type, code, getattr(error, "field", None), headers)
    return Told(500, "a bug in optillm-local or its engine", SERVER, "internal_error", headers=_NO_RETRY)


def _message(error: Exception) -> str:
    """The error's own words; a refused value may be as long as the request, so it is cut."""
    if isinstance(error, RequestRejected | InvalidConfiguration):
        text = f"{error.field}={reprlib.repr(error.value)}: {error.remedy}"
    else:
        text = str(error) or type(error).__name__
    return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "..."
