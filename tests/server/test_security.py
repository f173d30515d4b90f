"""Who is let in."""

import hmac

import pytest

from optillm_local.core.errors import InvalidConfiguration
from optillm_local.server import Keys, Limits, check_host

from .conftest import Asking, Serving


@pytest.mark.parametrize("path", ["/v1/models", "/v1/optimizers", "/metrics", "/v1/chat/completions", "/nothing"])
@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer", "right", "Basic right", "Bearer r\xefght"])
async def test_without_the_key_nothing_is_answered(serving: Serving, path: str, given: str | None) -> None:
    headers = {"authorization": given.encode("latin-1")} if given else {}
    async with serving(keys=["right", "other"]) as http:
        answer = await http.post(path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "right" not in answer.text


@pytest.mark.parametrize("key", ["right", "other"])
async def test_with_a_key_it_is(serving: Serving, asking: Asking, key: str) -> None:
    async with serving(keys=["right", "other"]) as http:
        headers = {"authorization": f"Bearer {key}", "host": "api.example.com"}
        answer = await http.post("/v1/chat/completions", json=asking(), headers=headers)
    assert answer.status_code == 200


async def test_health_needs_no_key(serving: Serving) -> None:
    async with serving(keys=["right"]) as http:
        answer = await http.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert Keys(["one", "two"]).owner({"authorization": "Bearer one"}, "") == "key 0"
    assert compared == [(b"one", b"one"), (b"one", b"two")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "", "*", "127.0.0.1.example.com"])  # noqa: S104
def test_other_machines_are_not_served_without_a_key(host: str) -> None:
    with pytest.raises(InvalidConfiguration, match="without a key"):
        check_host(host, Keys())
    check_host(host, Keys(["key"]))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_this_machine_is(host: str) -> None:
    check_host(host, Keys())


@pytest.mark.parametrize(
    ("named", "status"),
    [("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("[::1]", 200), ("evil.example.com", 403)],
)
async def test_a_web_page_whose_name_points_here_is_not(serving: Serving, named: str, status: int) -> None:
    async with serving() as http:
        answer = await http.get("/v1/models", headers={"host": named})
    assert answer.status_code == status


@pytest.mark.parametrize("key", ["", "two words", "naïve", "line\nbreak"])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(InvalidConfiguration, match="printable ASCII") as refused:
        Keys([key])
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize("limit", ["running", "seconds", "body_bytes"])
def test_a_limit_of_nothing_is_refused(limit: str) -> None:
    with pytest.raises(InvalidConfiguration, match=limit):
        Limits(**{limit: 0})
