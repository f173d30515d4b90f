"""The form an answer must have, and JSON that cannot be changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from optillm_local.core.errors import RequestRejected, did_you_mean

FormatKind = Literal["json_schema", "json_object", "regex", "choice"]

DEEPEST = 64
"""Levels of nesting in a schema or a tool; vLLM takes no deeper schema either."""

_FIELD = "response_format"


@dataclass(frozen=True, slots=True, eq=False)
class JsonObject(Mapping[str, Any]):
    """A JSON object that cannot be changed, so that whatever holds it can be hashed.

    It is kept as its text. The order of keys counts, as properties are generated in the order of their schema.
    """

    text: str

    @classmethod
    def of(cls, field: str, value: Mapping[str, Any]) -> Self:
        """From a mapping; `field` is what an error calls it.

        Raises:
            RequestRejected: it is no mapping, not JSON, or nested deeper than `DEEPEST`.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise RequestRejected(field, value, "must be a JSON object")
        if not _is_nested_within(value, DEEPEST):
            raise RequestRejected(field, type(value).__name__, f"nested deeper than {DEEPEST} levels; flatten it")
        try:
            text = json.dumps(value, default=_as_dict, ensure_ascii=False, allow_nan=False)
            text.encode()  # a lone surrogate is text to Python alone
        except (TypeError, ValueError) as error:
            raise RequestRejected(field, value, f"must be JSON: {error}") from None
        return cls(text)

    def plain(self) -> dict[str, Any]:
        """The object as a dict of the caller's own."""
        made: dict[str, Any] = json.loads(self.text)
        return made

    def __getitem__(self, key: str) -> Any:
        return self.plain()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain())

    def __len__(self) -> int:
        return len(self.plain())

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, JsonObject) else self.plain() == other

    def __hash__(self) -> int:
        return hash(self.text)


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form an answer must have: the engine offers the model only tokens that lead to it.

    Attributes:
        kind: `json_schema`, `json_object` (any), `regex` or `choice`.
        value: the schema, nothing, the expression, or the texts to choose from. Which features of a schema or an
            expression there are is up to the engine, which refuses the request otherwise.
    """

    kind: FormatKind
    value: Mapping[str, Any] | Sequence[str] | str | None = None

    def __post_init__(self) -> None:
        match self.kind:
            case "json_schema":
                value: Any = JsonObject.of(_FIELD, self.value)  # type: ignore[arg-type]
            case "json_object" if self.value is None:
                value = None
            case "json_object":
                raise RequestRejected(
                    _FIELD, self.value, "json_object takes no value; for a schema use json_schema"
                )
            case "regex":
                value = _text(self.value)
            case "choice":
                value = _texts(self.value)
            case _:
                raise RequestRejected(_FIELD, self.kind, did_you_mean(str(self.kind), get_args(FormatKind)))
        object.__setattr__(self, "value", value)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise RequestRejected(_FIELD, value, "must be a non-empty text")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise RequestRejected(_FIELD, value, "must hold no NUL and no lone surrogate")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise RequestRejected(_FIELD, value, "pass the texts to choose from, at least one")
    return tuple(dict.fromkeys(map(_text, value)))


def _is_nested_within(value: object, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return True
    return levels > 0 and all(_is_nested_within(one, levels - 1) for one in value)


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
