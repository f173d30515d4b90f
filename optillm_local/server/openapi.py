"""What the server takes and gives, described for OpenAPI by the types that check requests and make answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai.types import Completion, Model
from openai.types.chat import ChatCompletion
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from optillm_local.openai.request import ChatRequest, CompletionRequest
from optillm_local.run import versions

_REQUESTS: tuple[type[BaseModel], ...] = (ChatRequest, CompletionRequest)
_ANSWERS: tuple[type[BaseModel], ...] = (ChatCompletion, Completion, Model)
_SCHEMAS = "#/components/schemas/"
_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT},
        }
    },
}


def description() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    _, found = models_json_schema(
        [(kind, "validation") for kind in _REQUESTS] + [(kind, "serialization") for kind in _ANSWERS],
        ref_template=_SCHEMAS + "{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "optillm-local", "version": versions().get("optillm-local", "0")},
        "security": [{}, {"key": []}],
        "paths": {
            "/v1/chat/completions": _asking("Answer a conversation", "ChatRequest", "ChatCompletion"),
            "/v1/completions": _asking("Complete a text", "CompletionRequest", "Completion"),
            "/v1/models": _getting("The model by each of its names", _list_of({"$ref": _SCHEMAS + "Model"})),
            "/v1/models/{model}": _getting("One of them", {"$ref": _SCHEMAS + "Model"}, "model"),
            "/v1/optimizers": _getting("The optimizers and their options", _list_of({"type": "object"})),
            "/health": _getting("Whether the engine lives", {"type": "object"}),
            "/metrics": _getting("Counts for Prometheus", _TEXT, media="text/plain"),
        },
        "components": {
            "schemas": {**found["$defs"], "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _asking(summary: str, request: str, answer: str) -> dict[str, Any]:
    whole = {"application/json": {"schema": {"$ref": _SCHEMAS + answer}}}
    told = {"description": "the answer", "content": {**whole, "text/event-stream": {"schema": _TEXT}}}
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": _SCHEMAS + request}}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": _or_error(told)}}


def _getting(
    summary: str, schema: Mapping[str, Any], parameter: str = "", *, media: str = "application/json"
) -> dict[str, Any]:
    told = {"description": summary, "content": {media: {"schema": schema}}}
    about: dict[str, Any] = {"summary": summary, "responses": _or_error(told)}
    if parameter:
        about["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": _TEXT}]
    return {"get": about}


def _or_error(told: Mapping[str, Any]) -> dict[str, Any]:
    error = {
        "description": "what is wrong",
        "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "Error"}}},
    }
    return {"200": told, "default": error}


def _list_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": ["data"], "properties": {"data": {"type": "array", "items": schema}}}
