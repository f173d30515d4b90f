"""The drop-in: OpenAI's clients, their types and their exceptions."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from optillm_local import AsyncOpenAI, OpenAI, Prompt, ScriptedClient
from optillm_local.core import errors
from optillm_local.openai.failures import as_openai

ASKED: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Which?"}]}


def echo(prompt: Prompt) -> str:
    return f"you said {prompt.question}"


@pytest.fixture
def sync() -> Iterator[OpenAI]:
    with OpenAI(ScriptedClient(echo), api_key="none is asked for") as client:
        yield client


async def test_one_import_is_all_that_changes() -> None:
    async with AsyncOpenAI(ScriptedClient(echo)) as client:
        answer = await client.chat.completions.create(**ASKED, tools=openai.NOT_GIVEN)
        assert isinstance(answer, ChatCompletion)
        assert answer.choices[0].message.content == "you said Which?"
        assert [model.id async for model in await client.models.list()] == ["scripted"]


async def test_an_approach_and_its_options_go_into_the_extra_body() -> None:
    client = AsyncOpenAI(ScriptedClient(echo))
    body = {"optillm_approach": "bon", "best_of_n.n": 2}
    answer = await client.chat.completions.create(**ASKED, extra_body=body)
    assert answer.optillm["options"]["n"] == 2


async def test_a_stream_that_is_left_early_ends_the_run() -> None:
    model = ScriptedClient(["word " * 1000])
    async with await AsyncOpenAI(model).chat.completions.create(**ASKED, stream=True) as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    assert model.stats().running == 0


async def test_a_model_that_was_given_stays_open() -> None:
    model = ScriptedClient(echo)
    client = AsyncOpenAI(model)
    await client.close()
    assert await model.sample(Prompt.of("x"))
    with pytest.raises(openai.InternalServerError, match="closed"):
        await client.models.list()


@pytest.mark.parametrize(
    ("params", "kind", "param"),
    [
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"reasoning_effort": "low"}, openai.BadRequestError, "reasoning_effort"),
        ({"extra_headers": {"a": "b"}}, openai.BadRequestError, "extra_headers"),
        ({"timeout": "soon"}, openai.BadRequestError, "timeout"),
        ({"extra_body": {"optillm_approach": "moa", "layers": 0}}, openai.BadRequestError, "moa option layers"),
        ({"model": "gpt"}, openai.NotFoundError, None),
        ({"stream": True, "n": 0}, openai.BadRequestError, "n"),
    ],
)
async def test_errors_are_openais_and_say_what_ours_say(params: dict[str, Any], kind: Any, param: str) -> None:
    with pytest.raises(kind) as raised:
        await AsyncOpenAI(ScriptedClient(echo)).chat.completions.create(**ASKED | params)
    assert raised.value.param == param
    assert isinstance(raised.value.__cause__, errors.OptillmError)
    assert str(raised.value.__cause__) == raised.value.message


@pytest.mark.parametrize(
    ("ours", "status"),
    [
        (errors.EngineDead("gone"), 503),
        (errors.ClientError("no"), 502),
        (errors.NoSolutions("none"), 422),
        (errors.BudgetExceeded("tokens", 1, 1), 422),
    ],
)
def test_every_error_has_a_status(ours: errors.OptillmError, status: int) -> None:
    assert as_openai(ours).status_code == status


async def test_an_answer_that_takes_too_long_is_a_timeout() -> None:
    client = AsyncOpenAI(ScriptedClient(["word " * 100_000]), timeout=0.05)
    with pytest.raises(openai.APITimeoutError):
        await client.chat.completions.create(**ASKED, max_tokens=100_000)


def test_settings_do_not_go_with_a_client() -> None:
    with pytest.raises(errors.InvalidConfiguration, match="base_url"):
        AsyncOpenAI(ScriptedClient(echo), base_url="http://localhost")


async def test_a_setting_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(openai.BadRequestError, match="setting base_url"):
        await AsyncOpenAI(base_url="http://localhost").models.list()


def test_without_an_event_loop_it_is_the_same(sync: OpenAI) -> None:
    assert sync.chat.completions.create(**ASKED).choices[0].message.content == "you said Which?"
    assert sync.completions.create(model="scripted", prompt="Well?").choices[0].text == "you said Well?"
    assert [model.id for model in sync.models.list()] == ["scripted"]


def test_without_an_event_loop_streams_are_iterators(sync: OpenAI) -> None:
    chunks: list[ChatCompletionChunk] = list(sync.chat.completions.create(**ASKED, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "you said Which?"
    with sync.chat.completions.create(**ASKED, stream=True) as stream:
        next(stream)


def test_a_client_need_not_be_kept() -> None:
    created = OpenAI(ScriptedClient(echo)).chat.completions.create(**ASKED, stream=True)
    gc.collect()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in created) == "you said Which?"


def test_threads_share_the_batch() -> None:
    def ask(client: OpenAI) -> str:
        said: str = client.chat.completions.create(**ASKED).choices[0].message.content
        return said

    with OpenAI(ScriptedClient(echo)) as client, ThreadPoolExecutor(4) as threads:
        assert set(threads.map(ask, [client] * 4)) == {"you said Which?"}


def test_a_program_that_closes_nothing_ends() -> None:
    program = """
        from optillm_local import OpenAI, ScriptedClient
        client = OpenAI(ScriptedClient(["a b c"] * 2))
        asked = {"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
        stream = client.chat.completions.create(**asked, stream=True)
        print(next(stream).choices[0].delta.role)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "assistant", "")
