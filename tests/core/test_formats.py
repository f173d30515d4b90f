"""The form of an answer, and JSON that cannot be changed."""

import json
import math
from dataclasses import FrozenInstanceError
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optillm_local.core.errors import RequestRejected
from optillm_local.core.formats import DEEPEST, JsonObject, ResponseFormat

SCHEMA = {"type": "object", "properties": {"b": {"type": "number"}, "a": {"type": "string"}}}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def nested(levels: int) -> Any:
    made: Any = 0
    for _ in range(levels):
        made = {"in": made}
    return made


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_json_comes_out_as_it_went_in(value: dict[str, Any]) -> None:
    frozen = JsonObject.of("tools", value)
    assert (
        frozen == value and frozen.plain() == value and list(frozen) == list(value) and len(frozen) == len(value)
    )
    assert JsonObject.of("tools", frozen) is frozen
    assert hash(frozen) == hash(JsonObject.of("tools", json.loads(json.dumps(value))))


def test_mappings_inside_are_objects() -> None:
    inner = MappingProxyType({"a": JsonObject.of("tools", SCHEMA)})
    assert JsonObject.of("tools", {"in": inner}) == {"in": {"a": SCHEMA}}


def test_the_order_of_keys_counts() -> None:
    one, other = JsonObject.of("tools", {"a": 1, "b": 2}), JsonObject.of("tools", {"b": 2, "a": 1})
    assert one != other and list(other) == ["b", "a"]


def test_what_is_read_can_be_changed_without_effect() -> None:
    schema = JsonObject.of("tools", SCHEMA)
    schema["properties"].clear()
    schema.plain().clear()
    assert schema == SCHEMA
    with pytest.raises(FrozenInstanceError):
        schema.text = "{}"  # type: ignore[misc]


def test_nesting_has_an_end() -> None:
    assert JsonObject.of("tools", nested(DEEPEST)) == nested(DEEPEST)
    endless: dict[str, Any] = {}
    endless["in"] = [endless]
    for deep in (nested(DEEPEST + 1), nested(10_000), endless):
        with pytest.raises(RequestRejected, match=r"^tools='dict': nested deeper than 64 levels"):
            JsonObject.of("tools", deep)


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        ("json_schema", SCHEMA, SCHEMA),
        ("json_schema", {}, {}),
        ("json_object", None, None),
        ("regex", r"\d+", r"\d+"),
        ("choice", ["yes", "no", "yes"], ("yes", "no")),
    ],
)
def test_a_format_is_frozen_and_hashable(kind: Any, value: Any, kept: Any) -> None:
    form = ResponseFormat(kind, value)
    assert form.value == kept
    assert {form} == {ResponseFormat(kind, value)}


@pytest.mark.parametrize(
    ("kind", "value", "remedy"),
    [
        ("json", None, "unknown. Known: choice"),
        ("json_schem", None, "Did you mean 'json_schema'"),
        (None, None, "unknown"),
        *(("json_schema", bad, "a JSON object") for bad in (None, "{}", [SCHEMA], True)),
        *(("json_schema", {"const": bad}, "must be JSON") for bad in (math.nan, math.inf, {1}, b"", "\ud800")),
        ("json_schema", nested(65), "flatten it"),
        ("json_object", SCHEMA, "use json_schema"),
        *(("regex", bad, "non-empty text") for bad in (None, "", 7, ["a"])),
        *(("regex", bad, "no NUL") for bad in ("a\0", "\udfff")),
        *(("choice", bad, "at least one") for bad in (None, "yes", (), {"yes"}, 7)),
        *(("choice", bad, "non-empty text") for bad in (["yes", ""], [1, 2])),
        ("choice", ["\ud800"], "no lone surrogate|no NUL"),
    ],
)
def test_a_format_that_cannot_work_is_refused_with_a_remedy(kind: Any, value: Any, remedy: str) -> None:
    with pytest.raises(RequestRejected, match=f"^response_format=(?s:.*){remedy}"):
        ResponseFormat(kind, value)
