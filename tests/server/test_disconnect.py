"""A client that goes away ends what runs for it, wherever its request is by then."""

import re

import anyio
import pytest

from optillm_local import ScriptedClient
from optillm_local.server import Limits, create_app

from .conftest import Asking
from .visitor import Visitor, until

ENDLESS = 20_000


@pytest.mark.parametrize("approach", ["none", "self_consistency", "mars", "bon|moa"])
async def test_leaving_a_stream_aborts_every_agent(asking: Asking, approach: str) -> None:
    model = ScriptedClient(lambda prompt: "so " * ENDLESS)
    app = create_app(model)
    body = asking(stream=True, optillm_approach=approach, max_tokens=ENDLESS)
    visitor = Visitor(body, lambda one: len(one.messages) > 20)
    await visitor.visit(app)
    assert model.peak_concurrency >= (1 if approach == "none" else 3)
    assert (model.stats().running, model.stats().generated_tokens < ENDLESS) == (0, True)
    steps = model.stats().steps
    await anyio.sleep(0.02)
    assert model.stats().steps == steps, "something runs on"
    service = app.state.service
    assert (service.queue.running, service.queue.waiting, service.metrics.disconnected) == (0, 0, 1)
    assert not any(b"[DONE]" in message.get("body", b"") for message in visitor.messages)


async def test_leaving_before_there_is_an_answer_aborts_it(asking: Asking) -> None:
    model = ScriptedClient(lambda prompt: "so " * ENDLESS)
    visitor = Visitor(asking(n=4, max_tokens=ENDLESS), lambda one: True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visitor.visit, app := create_app(model))
        await until(lambda: model.stats().generated_tokens >= 100)
        visitor.look()
    assert (model.peak_concurrency, model.stats().running, visitor.messages) == (4, 0, [])
    assert app.state.service.metrics.requests["/v1/chat/completions", 499] == 1


async def test_leaving_the_queue_leaves_the_model_alone(asking: Asking) -> None:
    model = ScriptedClient(lambda prompt: "so " * (ENDLESS if prompt.question == "first" else 1))
    app = create_app(model, limits=Limits(running=1))
    first = Visitor(asking("first", max_tokens=ENDLESS), lambda one: True)
    second = Visitor(asking("second"), lambda one: True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.visit, app)
        await until(lambda: model.prompts)
        tasks.start_soon(second.visit, app)
        await until(lambda: app.state.service.queue.waiting)
        second.look()
        await until(lambda: not app.state.service.queue.waiting)
        first.look()
    assert [prompt.question for prompt in model.prompts] == ["first"]
    assert app.state.service.queue.running == 0


async def test_others_are_served_while_one_in_five_leaves(asking: Asking) -> None:
    model = ScriptedClient(lambda prompt: f"{prompt.question} is answered")
    app = create_app(model, limits=Limits(running=16))
    visitors = []
    for i in range(100):
        body = asking(f"number-{i}", stream=bool(i % 2), n=1 + i % 3)
        visitors.append(Visitor(body, lambda one, leaves=i % 5 == 0: leaves and len(one.messages) > 1))
    async with anyio.create_task_group() as tasks:
        for visitor in visitors:
            tasks.start_soon(visitor.visit, app)
    for i, visitor in enumerate(visitors):
        said = b"".join(message.get("body", b"") for message in visitor.messages).decode()
        assert set(re.findall(r"number-\d+", said)) == {f"number-{i}"}
    assert (model.stats().running, app.state.service.queue.running) == (0, 0)
