"""A client at the level of ASGI."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio


class Visitor:
    """Asks once, and leaves when it likes.

    Attributes:
        messages: what it was sent.
        more_body: it says that its request goes on, and sends nothing more.
    """

    more_body = False

    def __init__(self, body: dict[str, Any], leave_when: Callable[[Visitor], bool]) -> None:
        self.messages: list[Any] = []
        self._body, self._leave_when = body, leave_when
        self._asked, self._gone = False, anyio.Event()

    async def visit(self, app: Any) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 80),
            "scheme": "http",
        }
        await app(scope, self._receive, self._send)

    def look(self) -> None:
        if self._leave_when(self):
            self._gone.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": json.dumps(self._body).encode(), "more_body": self.more_body}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.messages.append(message)
        self.look()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another task does."""
    while not condition():  # noqa: ASYNC110 - it is not told
        await anyio.sleep(0.001)
