"""A server in this process, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from optillm_local import ModelClient, ScriptedClient
from optillm_local.server import create_app

Serving = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
Asking = Callable[..., dict[str, Any]]


@pytest.fixture
def serving() -> Serving:
    """Opens an HTTP client of an application that answers with a model; 12 to everything without one."""

    @asynccontextmanager
    async def opened(
        client: ModelClient | Starlette | None = None, **how: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        client = client or ScriptedClient(lambda prompt: "It is 12")
        app = client if isinstance(client, Starlette) else create_app(client, **how)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http

    return opened


@pytest.fixture
def asking() -> Asking:
    """The body of a chat."""

    def body(question: str = "What is 3 * 4?", **more: Any) -> dict[str, Any]:
        return {"model": "scripted", "messages": [{"role": "user", "content": question}], **more}

    return body
