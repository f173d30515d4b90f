"""Our optimizers' calls, in the notation of benchmarks/conformance_page.py."""

from __future__ import annotations

import json
import runpy
import tomllib
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from optillm_local import Message, Prompt, ScriptedClient, asolve

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "conformance_page.py"
WRITER = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
CASES = tomllib.loads(WRITER.CASES.read_text())
SECTIONS = WRITER.sections(CASES)
QUESTION = Prompt.of(
    [Message("system", "You are helpful."), Message("user", "What is 2 + 2?")],
    max_tokens=WRITER.MAX_TOKENS,
    seed=0,
)

Calls = Counter[str]


@pytest.fixture(scope="session")
def record() -> Mapping[str, Any]:
    """What benchmarks/conformance.py recorded."""
    found: dict[str, Any] = json.loads(WRITER.RECORD.read_text())
    return found


@pytest.fixture(scope="session")
def writer() -> Any:
    """The program that writes the page."""
    return WRITER


@pytest.fixture(scope="session")
def cases() -> Mapping[str, Any]:
    """What the page is written from."""
    return CASES


@pytest.fixture(params=SECTIONS, ids=lambda one: one.here)
def section(request: pytest.FixtureRequest) -> Any:
    """Each section of the page."""
    return request.param


@pytest.fixture(params=[one for one in SECTIONS if one.theirs], ids=lambda one: one.here)
def compared(request: pytest.FixtureRequest) -> Any:
    """Each section whose calls are compared."""
    return request.param


@pytest.fixture
def ours() -> Callable[[str, Mapping[str, str]], Coroutine[Any, Any, Calls]]:
    """The sequences and reads of one of our optimizers at its defaults.

    The script has the reply to each log tag; "The answer is 4." is the reply to the others. Reads favour the
    first option.
    """

    async def calls(optimizer: str, script: Mapping[str, str]) -> Calls:
        found: Calls = Counter()

        def answers(prompt: Prompt) -> str:
            drawn = prompt.sampling
            found[WRITER.sampled(roles_of(prompt), drawn.temperature, drawn.max_tokens, drawn.top_p)] += 1
            says = script.get(prompt.log_tag or "", "The answer is 4.")
            return says.replace("{seed}", str(drawn.seed))

        def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
            found[WRITER.read(roles_of(prompt))] += 1
            return {option: 0.5**place for place, option in enumerate(options, start=1)}

        client = ScriptedClient(answers, choices=choices)
        await asolve(QUESTION, optimizer, client=client)
        assert found.total() == len(client.prompts), "texts were scored, which codelion cannot"
        return found

    return calls


def roles_of(prompt: Prompt) -> list[str]:
    """Who speaks in a conversation, in turn."""
    return [message.role for message in prompt.conversation]
