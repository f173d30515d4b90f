"""Bodies that nobody honest sends: a status of 4xx with a reason, never a failure of the server."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optillm_local import ScriptedClient
from optillm_local.server import Limits

from .conftest import Asking, Serving

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"a":' * 50_000, "recursion limit"),
        (b'{"model": NaN}', "not valid JSON"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "a\\u0000b"}]}', "U+0000"),
        (b'{"mess\\u001bages": []}', "U+001B"),
        (b'{"messages": [{"role": "user", "content": "\x01"}]}', "control character"),
    ],
)
async def test_what_is_no_request_is_refused_with_a_reason(serving: Serving, raw: bytes, reason: str) -> None:
    async with serving() as http:
        answer = await http.post(CHAT, content=raw, headers=JSON)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert reason in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": "hi"},
        {"messages": []},
        {"messages": [1]},
        {"messages": [{"role": "wizard", "content": "hi"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"n": 0},
        {"n": -1},
        {"n": "two"},
        {"n": 10**30},
        {"temperature": "hot"},
        {"temperature": 9},
        {"max_tokens": 0},
        {"max_tokens": 10**30},
        {"stream": "yes"},
        {"stream_options": []},
        {"stop": [1]},
        {"seed": 1.5},
        {"seed": 2**70},
        {"logit_bias": "x"},
        {"model": 7},
        {"model": {"a": 1}},
        {"no_such_parameter": 1},
        {"optillm_approach": "no_such_optimizer"},
        {"optillm_approach": "best_of_n", "best_of_n.n": 10**9},
        {"optillm_approach": "best_of_n", "best_of_n.n": "1e9"},
        {"optillm_approach": "mars", "temperatures": [0.5] * 5000},
        {"optillm_approach": ["mars"]},
    ],
    ids=lambda wrong: json.dumps(wrong)[:50],
)
async def test_a_value_that_cannot_work_is_refused_with_a_reason(
    serving: Serving, asking: Asking, wrong: dict[str, Any]
) -> None:
    model = ScriptedClient(lambda prompt: "12")
    async with serving(model) as http:
        answer = await http.post(CHAT, json=asking(**wrong))
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["message"]
    assert not model.prompts


@pytest.mark.parametrize(
    ("limits", "body"),
    [
        ({"messages": 2}, {"messages": [{"role": "user", "content": "hi"}] * 3}),
        ({"n": 2}, {"n": 3}),
        ({"tokens": 100}, {"max_tokens": 101}),
        ({"agents": 4}, {"optillm_approach": "mars", "agents": 5}),
    ],
)
async def test_a_request_for_more_than_is_allowed_says_how_much_is(
    serving: Serving, asking: Asking, limits: dict[str, int], body: dict[str, Any]
) -> None:
    async with serving(limits=Limits(**limits)) as http:
        answer = await http.post(CHAT, json=asking(**body))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "limit_exceeded")
    assert f"{next(iter(limits.values()))} at most" in error["message"]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_a_body_too_large_is_413(serving: Serving, asking: Asking, announced: bool) -> None:
    raw = json.dumps(asking("x" * 2000)).encode()

    async def pieces() -> Any:
        for start in range(0, len(raw), 100):
            yield raw[start : start + 100]

    async with serving(limits=Limits(body_bytes=1000)) as http:
        answer = await http.post(CHAT, content=raw if announced else pieces(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_another_type_of_content_is_415(serving: Serving, asking: Asking) -> None:
    async with serving() as http:
        answer = await http.post(CHAT, content=json.dumps(asking()), headers={"content-type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", CHAT, 405), ("POST", "/v1/models", 405), ("GET", "/x", 404)]
)
async def test_an_unknown_path_or_method_is_told_in_the_same_shape(
    serving: Serving, method: str, path: str, status: int
) -> None:
    async with serving() as http:
        answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "unknown_endpoint")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_NAMES = [
    "model",
    "messages",
    "n",
    "stop",
    "seed",
    "stream",
    "temperature",
    "max_tokens",
    "optillm_approach",
    "tools",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=4),
    path=st.sampled_from([CHAT, "/v1/completions"]),
)
async def test_whatever_json_is_sent_the_server_does_not_fail(
    serving: Serving, asking: Asking, body: dict[str, Any], path: str
) -> None:
    base = asking() if path == CHAT else {"model": "scripted", "prompt": "hi"}
    raw = json.dumps({**base, **body})
    async with serving() as http:
        answer = await http.post(path, content=raw, headers=JSON)
    assert answer.status_code in (200, 400, 404), answer.text
