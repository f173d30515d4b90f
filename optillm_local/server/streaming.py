"""Server-sent events, and noticing that nobody reads them any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from optillm_local.core.concurrency import task_group
from optillm_local.server.errors import Told

DONE = b"data: [DONE]\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class Connection:
    """Whether the client is still there."""

    gone = False


@asynccontextmanager
async def connected(receive: Receive) -> AsyncIterator[Connection]:
    """Cancels the block when the client goes away, and with it all that runs for it."""
    connection = Connection()
    async with task_group() as tasks:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            connection.gone = True
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        yield connection
        tasks.cancel_scope.cancel()


class EventStream:
    """One response of server-sent events.

    Attributes:
        started: its status has been sent, so that an error can only be one more event.
        error: what ended the answer before it was whole.
    """

    def __init__(self, send: Send) -> None:
        self.started = False
        self.error: Told | None = None
        self._held: list[bytes] = []
        self._send = send

    async def chunk(self, chunk: BaseModel) -> None:
        """One chunk of an answer; fields that were never set are left out.

        Chunks that say nothing yet wait for one that does: a request that the model refuses gets a status then.
        """
        data = chunk.model_dump_json(exclude_unset=True).encode()
        if not self.started and _opens(chunk):
            self._held.append(data)
        else:
            await self._event(data)

    async def end(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application that sends the error, if there is one, and `[DONE]`."""
        await self._start()
        if self.error:
            await self._event(to_json(self.error.body))
        await self._send({"type": "http.response.body", "body": DONE})

    async def _event(self, data: bytes) -> None:
        await self._start()
        await self._send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})

    async def _start(self) -> None:
        if not self.started:
            self.started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            for data in self._held:
                await self._event(data)


def _opens(chunk: BaseModel) -> bool:
    """Whether a chunk only says who speaks."""
    if not isinstance(chunk, ChatCompletionChunk) or not chunk.choices:
        return False
    said = [choice.delta.model_dump(exclude_unset=True, exclude={"role"}) for choice in chunk.choices]
    return not any(any(one.values()) for one in said) and not any(c.finish_reason for c in chunk.choices)
