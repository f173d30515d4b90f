"""`optillm-local serve` as a process: a real socket, the official client, and how it ends."""

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from optillm_local.cli import main

PROGRAM = """
import sys
from optillm_local import ScriptedClient
from optillm_local.cli import main

def answer(prompt):
    long = "so " * 3000 if "long" in prompt.question else ""
    return long + f"The answer to {prompt.question} is 12"

sys.exit(main(sys.argv[1:], client_factory=lambda settings, progress: ScriptedClient(answer)))
"""


class Server:
    """A server in a process of its own."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", *args]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self.url = next(found[1] for line in self._lines() if (found := re.search(r"listening on (\S+)", line)))
        self._rest = threading.Thread(target=lambda: [None for _ in self._lines()], daemon=True)
        self._rest.start()

    def _lines(self) -> Iterator[str]:
        for line in self.process.stderr or ():
            self.said.append(line)
            yield line

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._rest.join()
        return code


@contextmanager
def started(*args: str) -> Iterator[Server]:
    server = Server(*args)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)
        if server.process.stderr:
            server.process.stderr.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started("--api-key", "key") as one:
        yield one


def ask(**more: Any) -> Any:
    return {"model": "scripted", "messages": [{"role": "user", "content": "3 * 4"}], **more}


def test_the_official_client_asks(server: Server) -> None:
    with openai.OpenAI(base_url=server.url, api_key="key") as client:
        assert client.models.list().data[0].id == "scripted"
        answer = client.chat.completions.create(**ask(n=2))
        text = client.completions.create(model="scripted", prompt="3 * 4")
    assert [choice.message.content for choice in answer.choices] == ["The answer to 3 * 4 is 12"] * 2
    assert (answer.usage.completion_tokens, answer._request_id[:4]) == (16, "req_")
    assert text.choices[0].text == "The answer to 3 * 4 is 12"


@pytest.mark.parametrize("model", ["scripted", "self_consistency-scripted"])
def test_the_official_client_streams(server: Server, model: str) -> None:
    with openai.OpenAI(base_url=server.url, api_key="key") as client:
        chunks = list(
            client.chat.completions.create(**ask(model=model, stream=True, stream_options={"include_usage": True}))
        )
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said in ("The answer to 3 * 4 is 12", "12")
    assert chunks[-1].usage.completion_tokens >= 8


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # on trio the client leaves generators of its own open
async def test_the_official_asynchronous_client_asks_and_streams(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=server.url, api_key="key") as client:
        answer = await client.chat.completions.create(**ask(extra_body={"optillm_approach": "moa"}))
        stream = await client.chat.completions.create(**ask(stream=True))
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "12" in answer.choices[0].message.content
    assert "".join(said) == "The answer to 3 * 4 is 12"


@pytest.mark.parametrize(
    ("key", "change", "error"),
    [
        ("wrong", {}, openai.AuthenticationError),
        ("key", {"n": 1000}, openai.BadRequestError),
        ("key", {"temperature": 9}, openai.BadRequestError),
        ("key", {"model": "no-such-model"}, openai.NotFoundError),
    ],
)
def test_the_official_client_raises_its_own_errors(
    server: Server, key: str, change: dict[str, Any], error: type[Exception]
) -> None:
    with openai.OpenAI(base_url=server.url, api_key=key) as client, pytest.raises(error) as raised:
        client.chat.completions.create(**ask(**change))
    assert raised.value.body["message"]


def test_leaving_a_stream_is_noticed_through_a_socket(server: Server) -> None:
    def page() -> str:
        request = urllib.request.Request(  # noqa: S310 - our own server
            server.url.replace("/v1", "/metrics"), headers={"authorization": "Bearer key"}
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return answer.read().decode()

    with openai.OpenAI(base_url=server.url, api_key="key") as client:
        stream = client.chat.completions.create(
            **ask(messages=[{"role": "user", "content": "long"}], stream=True, max_tokens=3000)
        )
        next(iter(stream))
        stream.close()
    while "optillm_local_disconnected_total 1\n" not in (now := page()):
        pass
    assert "optillm_local_engine_running 0\n" in now
    assert "optillm_local_queue_running 0\n" in now


def test_sigterm_lets_what_runs_end_and_takes_no_more() -> None:
    with started() as server, openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        stream = client.chat.completions.create(
            **ask(messages=[{"role": "user", "content": "long"}], stream=True, max_tokens=3000)
        )
        chunks = iter(stream)
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        *_, last = chunks
        assert last.choices[0].finish_reason == "length"
        assert server.process.wait(60) == 0
        with pytest.raises(openai.APIConnectionError):
            client.models.list()
    assert any(re.search(r"/v1/chat/completions 200 ", line) for line in server.said)
    assert not any("long" in line for line in server.said)


def test_what_does_not_end_in_time_is_ended() -> None:
    with started("--drain-seconds", "0") as server, openai.OpenAI(base_url=server.url, api_key="x") as client:
        stream = client.chat.completions.create(
            **ask(messages=[{"role": "user", "content": "long"}], stream=True, max_tokens=3000)
        )
        next(iter(stream))
        assert server.end() == 0
        stream.close()


def test_ctrl_c_ends_it_too() -> None:
    with started() as server:
        assert server.end(signal.SIGINT) == 130


def test_conversations_go_to_the_folder_that_is_named(tmp_path: Path) -> None:
    with started("--log-conversations", str(tmp_path)) as server:
        with openai.OpenAI(base_url=server.url, api_key="x") as client:
            client.chat.completions.create(**ask())
        server.end()
    [file] = tmp_path.iterdir()
    assert json.loads(file.read_text())["client_request"] == ask()


# -- what is refused before anything starts --------------------------------------------------------------------


def no_engine(settings: Any, progress: Callable[[str], None]) -> Any:
    pytest.fail("the engine was started for a command that cannot work")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--host", "0.0.0.0"], "without a key; set --api-key"),  # noqa: S104
        (["--host", "no.such.host.invalid", "--api-key", "k"], "cannot be listened on"),
        (["--api-key", "two words"], "printable ASCII"),
        (["--max-running", "0"], "must be above 0"),
        (["--port", "70000"], "port"),
        (["--approach", "no_such"], "no_such"),
    ],
)
def test_what_cannot_work_is_refused_before_the_engine_starts(
    capsys: pytest.CaptureFixture[str], args: list[str], reason: str
) -> None:
    assert main(["serve", *args], client_factory=no_engine) == 2
    assert reason in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    port = re.search(r":(\d+)/", server.url)
    assert port
    assert main(["serve", "--port", port[1]], client_factory=no_engine) == 2
    assert "in use" in capsys.readouterr().err


def test_the_help_tells_what_matters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["serve", "--help"]) == 0
    page = capsys.readouterr().out
    assert all(
        word in page for word in ("curl", "OPTILLM_API_KEY", "SIGTERM", "--log-conversations", "mars-MODEL")
    )
