"""What the endpoints say, in this process and without a socket."""

import json
from typing import Any

import anyio
import httpx
import pytest

from optillm_local import Prompt, ScriptedClient, registry
from optillm_local.core import errors
from optillm_local.server import Limits, create_app

from .conftest import Asking, Serving

CHAT = "/v1/chat/completions"


def events(answer: httpx.Response) -> list[Any]:
    """What a stream holds; its last event is the word DONE."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    lines = answer.text.removesuffix("data: [DONE]\n\n").split("\n\n")[:-1]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_a_chat_is_answered_in_openais_shape(serving: Serving, asking: Asking) -> None:
    async with serving() as http:
        answer = await http.post(CHAT, json=asking())
    assert answer.status_code == 200
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == "It is 12"
    assert (body["object"], body["choices"][0]["finish_reason"]) == ("chat.completion", "stop")
    assert body["usage"]["completion_tokens"] == 3
    assert answer.headers["x-request-id"].startswith("req_")


async def test_the_name_of_the_model_chooses_the_optimizer(serving: Serving, asking: Asking) -> None:
    model = ScriptedClient(lambda prompt: "It is 12")
    async with serving(model) as http:
        answer = await http.post(CHAT, json=asking() | {"model": "self_consistency-scripted"})
    assert answer.json()["optillm"]["optimizer"] == "self_consistency"
    assert len(model.prompts) == 5


async def test_requests_of_all_clients_decode_in_one_batch(serving: Serving, asking: Asking) -> None:
    model = ScriptedClient(lambda prompt: prompt.question)
    answers: dict[int, str] = {}
    async with serving(model) as http, anyio.create_task_group() as tasks:

        async def ask(number: int) -> None:
            body = asking(f"This is number {number}")
            answers[number] = (await http.post(CHAT, json=body)).json()["choices"][0]["message"]["content"]

        for number in range(20):
            tasks.start_soon(ask, number)
    assert answers == {number: f"This is number {number}" for number in range(20)}
    assert model.peak_concurrency == 20


async def test_a_stream_is_tokens_then_usage_then_done(serving: Serving, asking: Asking) -> None:
    async with serving() as http:
        body = asking(stream=True, stream_options={"include_usage": True})
        *chunks, last = events(await http.post(CHAT, json=body))
    deltas = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert [delta for delta in deltas if delta] == ["It", " is", " 12"]
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_is_completed(serving: Serving, stream: bool) -> None:
    async with serving() as http:
        answer = await http.post(
            "/v1/completions", json={"model": "scripted", "prompt": "3 * 4?", "stream": stream}
        )
    bodies = events(answer) if stream else [answer.json()]
    assert "".join(choice["text"] for body in bodies for choice in body["choices"]) == "It is 12"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_the_model_refuses_is_400_streamed_or_not(
    serving: Serving, asking: Asking, stream: bool
) -> None:
    def refuse(prompt: Prompt) -> str:
        raise errors.RequestRejected("max_tokens", 9999, "the context ends at 2048")

    async with serving(ScriptedClient(refuse)) as http:
        answer = await http.post(CHAT, json=asking(stream=stream))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "max_tokens"
    assert "the context ends at 2048" in answer.json()["error"]["message"]


class Breaks(ScriptedClient):
    """Dies after its first token, with an error that quotes the question."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__(lambda prompt: "It is 12")
        self.error = error

    async def _decode(self, prompt: Any, reply: Any) -> Any:
        inner = super()._decode(prompt, reply)
        yield await anext(inner)
        await inner.aclose()
        raise self.error(f"about {prompt.question}")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(errors.EngineDead, 503, "engine_dead"), (ZeroDivisionError, 500, "internal_error")],
)
async def test_a_failure_has_a_status_or_ends_a_stream_and_is_logged_without_content(
    serving: Serving, asking: Asking, caplog: Any, error: type[Exception], status: int, code: str
) -> None:
    async with serving(Breaks(error)) as http:
        whole = await http.post(CHAT, json=asking("the secret"))
        *_, last = events(await http.post(CHAT, json=asking("the secret", stream=True)))
        health = await http.get("/health")
    assert (whole.status_code, whole.json()["error"]["code"]) == (status, code)
    assert last["error"]["code"] == code
    assert health.status_code == (503 if code == "engine_dead" else 200)
    assert code in caplog.text
    assert "the secret" not in caplog.text


async def test_a_spent_limit_gives_what_there_is(serving: Serving, asking: Asking) -> None:
    model = ScriptedClient(lambda prompt: "so " * 50 + "It is 12", seconds_per_token=1.0)
    async with serving(model, limits=Limits(seconds=20)) as http:
        body = (await http.post(CHAT, json=asking())).json()
    assert (body["choices"][0]["finish_reason"], body["optillm"]["budget_exhausted"]) == ("length", True)
    assert model.clock() <= 30


async def test_models_and_optimizers_are_listed(serving: Serving) -> None:
    async with serving(names=["small", "org/small"], adapters=["tuned"]) as http:
        models = (await http.get("/v1/models")).json()
        one = await http.get("/v1/models/org/small")
        none = await http.get("/v1/models/large")
        optimizers = (await http.get("/v1/optimizers")).json()
    assert [model["id"] for model in models["data"]] == ["small", "org/small", "tuned"]
    assert (one.json()["id"], none.status_code) == ("org/small", 404)
    assert [about["id"] for about in optimizers["data"]] == registry.names()
    assert all({"description", "options"} <= set(about) for about in optimizers["data"])


async def test_metrics_count_requests_and_what_the_engine_did(serving: Serving, asking: Asking) -> None:
    async with serving() as http:
        await http.post(CHAT, json=asking())
        await http.post(CHAT, json={})
        await http.get("/a path that nobody has")
        page = (await http.get("/metrics")).text
    assert f'optillm_local_requests_total{{path="{CHAT}",status="200"}} 1' in page
    assert f'optillm_local_requests_total{{path="{CHAT}",status="400"}} 1' in page
    assert 'optillm_local_requests_total{path="other",status="404"} 1' in page
    assert "optillm_local_engine_generated_tokens_total 3\n" in page
    assert "optillm_local_request_seconds_count 3\n" in page
    assert "nobody" not in page


async def test_the_page_of_metrics_is_what_prometheus_reads(serving: Serving, asking: Asking) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    async with serving() as http:
        await http.post(CHAT, json=asking())
        page = (await http.get("/metrics")).text
    families = {family.name: family.type for family in parser.text_string_to_metric_families(page)}
    assert families["optillm_local_request_seconds"] == "histogram"
    assert families["optillm_local_requests"] == "counter"


async def test_a_full_queue_is_429_with_retry_after(serving: Serving, asking: Asking) -> None:
    app = create_app(ScriptedClient(lambda prompt: "12"), limits=Limits(running=1, waiting=1))
    queue = app.state.service.queue
    queue.running, queue.waiting = 1, 1
    queue._lines["key 0"] = [None]
    async with serving(app) as http:
        answer = await http.post(CHAT, json=asking())
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_limit_below_the_usual_length_refuses_nobody_who_asked_for_no_length(
    serving: Serving, asking: Asking
) -> None:
    model = ScriptedClient(lambda prompt: "so " * 50)
    async with serving(model, limits=Limits(tokens=20)) as http:
        answer = (await http.post(CHAT, json=asking())).json()
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 20)
