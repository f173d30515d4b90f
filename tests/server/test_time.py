"""What takes too long ends, with a reason."""

import json
from typing import Any

import anyio
import pytest

from optillm_local import ScriptedClient
from optillm_local.server import Limits, answering, create_app

from .conftest import Asking, Serving
from .visitor import Visitor

CHAT = "/v1/chat/completions"


class Stuck(ScriptedClient):
    """Begins an answer and never goes on."""

    async def _decode(self, prompt: Any, reply: Any) -> Any:
        inner = super()._decode(prompt, reply)
        try:
            yield await anext(inner)
            await anyio.sleep_forever()
        finally:
            await inner.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_that_keeps_to_no_budget_is_ended(
    serving: Serving, asking: Asking, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(answering, "_GRACE", 0.01)
    model = Stuck(lambda prompt: "It is 12", seconds_per_token=0.0)
    async with serving(model, limits=Limits(seconds=0.01)) as http:
        answer = await http.post(CHAT, json=asking(stream=stream))
    if stream:
        *_, last, _ = answer.text.removesuffix("\n\n").split("\n\n")
        error = json.loads(last.removeprefix("data: "))["error"]
    else:
        assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
        error = answer.json()["error"]
    assert error["code"] == "timeout"
    assert model.stats().running == 0


async def test_a_body_that_does_not_arrive_is_408(asking: Asking) -> None:
    visitor = Visitor(asking(), lambda one: False)
    visitor.more_body = True
    await visitor.visit(create_app(ScriptedClient(lambda prompt: "12"), limits=Limits(body_seconds=0.01)))
    assert visitor.messages[0]["status"] == 408
    assert b"did not arrive" in visitor.messages[1]["body"]
