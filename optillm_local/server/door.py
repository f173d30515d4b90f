"""What every request passes: key, request id, errors as OpenAI tells them, one line of log, one count."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from optillm_local.server.security import check_named
from optillm_local.server.service import Service

logger = logging.getLogger("optillm_local.server")

OPEN_PATHS = ("/health",)
"""Answered without a key."""

_GONE = 499  # nginx's number for a client that closed the connection


class Door:
    """ASGI middleware around all endpoints."""

    def __init__(self, app: ASGIApp, service: Service, paths: Collection[str]) -> None:
        self._app, self._service, self._paths = app, service, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, visit = time.monotonic(), _Visit(send)
        scope.setdefault("state", {})["request_id"] = visit.id
        try:
            await self._answer(scope, receive, visit)
        except ClientDisconnect:
            visit.status = _GONE
            self._service.metrics.disconnected += 1
        finally:
            self._note(scope, visit.status, time.monotonic() - began)

    async def _answer(self, scope: Scope, receive: Receive, visit: _Visit) -> None:
        try:
            self._let_in(scope)
            await self._app(scope, receive, visit.send)
        except ClientDisconnect:
            raise
        except Exception as error:
            about = self._service.tell(error)
            if visit.status:  # the answer has begun; the server closes a connection whose answer breaks off
                raise ClientDisconnect from None
            response = JSONResponse(about.body, about.status, dict(about.headers))
            await response(scope, receive, visit.send)

    def _let_in(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        client = scope.get("client")
        check_named(headers, self._service.keys)
        if scope["path"] not in OPEN_PATHS:
            scope["state"]["owner"] = self._service.keys.owner(headers, client[0] if client else "")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """A path that is no endpoint may say anything, so it is neither logged nor counted by name."""
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._service.metrics.count(path, status, seconds)
        logger.info("%s %d %.2f s", path, status, seconds)


class _Visit:
    """One request: its id, and the status that it was answered with; 0 as long as there is none."""

    def __init__(self, send: Send) -> None:
        self.id = f"req_{uuid.uuid4().hex}"
        self.status = 0
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
        await self._send(message)
