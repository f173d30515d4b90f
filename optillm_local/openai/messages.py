"""OpenAI's messages as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from optillm_local.core.errors import RequestRejected, did_you_mean
from optillm_local.core.prompt import Message, Role

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_NO_TOOLS = "calls of tools, and what they gave, are text here: say it in the content"
_REFUSED = {
    "name": "say who speaks in the content: a chat template has no place for names",
    "tool_calls": _NO_TOOLS,
    "tool_call_id": _NO_TOOLS,
    "function_call": _NO_TOOLS,
    "audio": "the model reads text",
}
_OF_AN_ANSWER = {"refusal", "annotations", "reasoning_content", "reasoning"}
"""What an answer has besides its content. A past one may be sent back as it came: no model is shown again what it
thought, and the others are always empty here."""


def conversation(messages: Sequence[Any]) -> tuple[Message, ...]:
    """The turns of a chat; the last one, if it is the assistant's, will be written on.

    Raises:
        RequestRejected: names the message and its field.
    """
    return tuple(_message(f"messages[{place}]", message) for place, message in enumerate(messages))


def _message(where: str, message: Any) -> Message:
    turn = message.model_dump(exclude_none=True) if isinstance(message, BaseModel) else message
    if not isinstance(turn, Mapping):
        raise RequestRejected(where, type(turn).__name__, "a message is an object with a role and a content")
    given = {name: value for name, value in turn.items() if value is not None and value != []}
    role = given.pop("role", None)
    if not isinstance(role, str) or role not in _ROLES:
        remedy = _NO_TOOLS if role in ("tool", "function") else did_you_mean(str(role)[:40], _ROLES)
        raise RequestRejected(f"{where}.role", str(role)[:40], remedy)
    content = given.pop("content", None)
    for name in given:
        if role != "assistant" or name not in _OF_AN_ANSWER:
            remedy = _REFUSED.get(name, did_you_mean(str(name)[:40], ["role", "content"]))
            raise RequestRejected(f"{where}.{str(name)[:40]}", type(given[name]).__name__, remedy)
    return Message(_ROLES[role], _text(f"{where}.content", content))


def _text(where: str, content: Any) -> str:
    """Content is text, or parts that are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple) or not content:
        raise RequestRejected(where, type(content).__name__, "must be text, or a list of parts of type text")
    parts = []
    for place, part in enumerate(content):
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise RequestRejected(
                f"{where}[{place}]", str(kind)[:40], "only parts of type text: the model reads text"
            )
        parts.append(part["text"])
    return "\n".join(parts)
