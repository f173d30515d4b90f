"""The description of the API says what the API does."""

import json
import re

from optillm_local import ScriptedClient
from optillm_local.openai.request import ChatRequest
from optillm_local.server import create_app

from .conftest import Serving


async def test_every_path_is_described_and_nothing_else(serving: Serving) -> None:
    app = create_app(ScriptedClient([]))
    async with serving(app) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    served = {re.sub(":path", "", route.path) for route in app.routes}
    assert set(paths) | {"/openapi.json"} == served


async def test_every_reference_leads_somewhere(serving: Serving) -> None:
    async with serving() as http:
        page = (await http.get("/openapi.json")).json()
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(page)))
    assert {"ChatRequest", "ChatCompletion", "Error"} <= named <= set(page["components"]["schemas"])


async def test_a_chat_is_described_by_what_checks_it(serving: Serving) -> None:
    async with serving() as http:
        schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    assert set(schemas["ChatRequest"]["properties"]) == set(ChatRequest.model_fields)
