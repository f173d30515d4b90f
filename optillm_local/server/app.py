"""The ASGI application: OpenAI's endpoints over one model, and a few of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from optillm_local import registry
from optillm_local.core.client import ModelClient
from optillm_local.openai.approach import NONE, Known
from optillm_local.openai.calls import Completions
from optillm_local.openai.request import ChatRequest, CompletionRequest
from optillm_local.server.answering import Answering, Call
from optillm_local.server.door import Door
from optillm_local.server.errors import HttpError, told
from optillm_local.server.log import ConversationLog
from optillm_local.server.metrics import CONTENT_TYPE
from optillm_local.server.openapi import description
from optillm_local.server.queue import Queue
from optillm_local.server.security import Keys, Limits
from optillm_local.server.service import Service

_UNKNOWN = {404: "there is nothing at this path", 405: "this path does not take this method"}


def create_app(
    client: ModelClient,
    *,
    keys: Sequence[str] = (),
    limits: Limits | None = None,
    names: Sequence[str] = (),
    adapters: Sequence[str] = (),
    approach: str = NONE,
    log: ConversationLog | None = None,
) -> Starlette:
    """An application that answers OpenAI's calls with a model. The client stays the caller's to close.

    Args:
        client: answers every request, so that agents of all of them decode in one batch.
        keys: bearer keys; without any, only requests to a loopback name are answered.
        limits: None takes the defaults.
        names, adapters, approach: see `Completions`.
        log: takes every conversation; None writes nothing of them anywhere.

    Raises:
        InvalidConfiguration: a key that no header can carry.
    """
    limits = limits or Limits()
    calls = Completions(client, names=names, adapters=adapters, approach=approach)
    service = Service(client, calls, Keys(keys), limits, Queue(limits.running, limits.waiting), log)
    chat = Call(ChatRequest.of, calls.chat, calls.stream_chat)
    text = Call(CompletionRequest.of, calls.complete, calls.stream_complete)
    routes = [
        Route("/v1/chat/completions", Answering(service, chat), methods=["POST"]),
        Route("/v1/completions", Answering(service, text), methods=["POST"]),
        Route("/v1/models", _models),
        Route("/v1/models/{model:path}", _model),
        Route("/v1/optimizers", _optimizers),
        Route("/health", _health),
        Route("/openapi.json", _openapi),
        Route("/metrics", _metrics),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Door, service, [route.path for route in routes])],
        exception_handlers={HTTPException: _refuse},
    )
    app.state.service = service
    return app


def check_approach(approach: str) -> None:
    """Raises InvalidConfiguration if there is no such optimizer, before there is a model to ask."""
    anything = ChatRequest.of({"messages": [{"role": "user", "content": "?"}]})
    Known(("",), approach=approach).approach_of(anything, "")


async def _models(request: Request) -> Response:
    calls: Completions = request.app.state.service.calls
    return JSONResponse({"object": "list", "data": [model.model_dump() for model in calls.models()]})


async def _model(request: Request) -> Response:
    name = request.path_params["model"]
    for model in request.app.state.service.calls.models():
        if model.id == name:
            return JSONResponse(model.model_dump())
    raise HttpError(404, "there is no model of that name; /v1/models lists them", code="model_not_found")


def _optimizers(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_describe(name) for name in registry.names()]})


def _describe(name: str) -> dict[str, Any]:
    """An optimizer and its options; of another package's that cannot be imported, only the name."""
    about: dict[str, Any] = {"id": name, "object": "optimizer"}
    try:
        kind = registry.find(name)
    except Exception:
        return about
    return about | registry.described(kind)


async def _health(request: Request) -> Response:
    dead = request.app.state.service.engine_dead
    return JSONResponse({"status": "engine dead" if dead else "ok"}, 503 if dead else 200)


def _openapi(request: Request) -> Response:
    return JSONResponse(description())


async def _metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    page = service.metrics.render(service.queue, service.client.stats())
    return PlainTextResponse(page, media_type=CONTENT_TYPE)


async def _refuse(request: Request, error: Exception) -> Response:
    """Of a path or a method that there is none of."""
    status = getattr(error, "status_code", 400)
    about = told(HttpError(status, _UNKNOWN.get(status, "refused"), code="unknown_endpoint"))
    return JSONResponse(about.body, about.status, dict(getattr(error, "headers", None) or {}))
