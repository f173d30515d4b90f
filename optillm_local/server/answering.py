"""The endpoints that ask the model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from optillm_local.core.errors import Timeout
from optillm_local.core.events import Sink
from optillm_local.server.body import read_params
from optillm_local.server.log import Conversation
from optillm_local.server.security import check_limits
from optillm_local.server.service import Service
from optillm_local.server.streaming import EventStream, connected

_GRACE = 30.0  # seconds after its limit in which a run that keeps to its budget has long ended


@dataclass(frozen=True, slots=True)
class Call:
    """One of OpenAI's calls: how a body becomes a request, and how that is answered, at once or in pieces."""

    request: Callable[[Mapping[str, Any]], Any]
    whole: Callable[..., Awaitable[BaseModel]]
    pieces: Callable[..., AsyncGenerator[BaseModel, None]]


class Answering:
    """An ASGI application for one call: it checks, waits for a place, runs, and stops if nobody is there."""

    def __init__(self, service: Service, call: Call) -> None:
        self._service, self._call = service, call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        params = await read_params(Request(scope, receive), self._service.limits)
        asked = self._call.request(params)
        check_limits(asked, self._service.limits)
        with self._logged(Conversation(scope["state"]["request_id"], params)) as conversation:
            answer = self._in_pieces if asked.stream else self._whole
            async with connected(receive) as connection, self._service.queue.place(scope["state"]["owner"]):
                last = await answer(asked, conversation, send)
            if connection.gone:
                raise ClientDisconnect
            with anyio.move_on_after(self._service.limits.seconds):  # nobody may be reading it
                await last(scope, receive, send)

    async def _whole(self, asked: Any, conversation: Conversation, send: Send) -> ASGIApp:
        """Answer at once; what is returned sends it."""
        with self._in_time():
            answer = await self._call.whole(asked, budget=self._service.budget, sinks=self._sinks(conversation))
        self._note(conversation, answer)
        return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")

    async def _in_pieces(self, asked: Any, conversation: Conversation, send: Send) -> ASGIApp:
        """Send the answer as it is made; what is returned sends the end of it."""
        events = EventStream(send)
        pieces = self._call.pieces(asked, budget=self._service.budget, sinks=self._sinks(conversation))
        try:
            async with aclosing(pieces):
                with self._in_time():
                    async for piece in pieces:
                        self._note(conversation, piece)
                        await events.chunk(piece)
        except Exception as error:
            if not events.started:  # it can still have a status of its own
                raise
            conversation.failed(error)
            events.error = self._service.tell(error)
        return events.end

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Raises Timeout for what does not end although its budget is spent."""
        seconds = self._service.limits.seconds
        with anyio.move_on_after(seconds + _GRACE) as deadline:
            yield
        if deadline.cancelled_caught:
            raise Timeout(f"the request ran for more than {seconds:g} s")

    @contextmanager
    def _logged(self, conversation: Conversation) -> Iterator[Conversation]:
        try:
            yield conversation
        except BaseException as error:
            conversation.failed(error)
            raise
        finally:
            if self._service.log:
                self._service.log.write(conversation.entry())

    def _sinks(self, conversation: Conversation) -> list[Sink]:
        return [conversation] if self._service.log else []

    def _note(self, conversation: Conversation, part: BaseModel) -> None:
        if self._service.log:
            conversation.answered(part.model_dump(exclude_unset=True))
