"""codelion's recorded calls and our own in one notation, such as `S U A U, T 0.1, 256`.

It gives the first letters of the roles, temperature, most tokens, and top_p if that cuts anything off. What
codelion does not send is what the server takes instead: temperature 1, and the tokens that the request allows.
A call with n is n sequences. Of a read, which samples nothing, only the roles are given: `S U A U, read`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from optillm_local import Message, Prompt, ScriptedClient, asolve

RECORD = Path(__file__).parent / "codelion-0.4.0.json"
MAX_TOKENS = 4096
QUESTION = Prompt.of(
    [Message("system", "You are helpful."), Message("user", "What is 2 + 2?")], max_tokens=MAX_TOKENS, seed=0
)

Script = Mapping[str, str | Callable[[Prompt], str]]
Calls = Counter[str]


def written(roles: Sequence[str], temperature: float | None, max_tokens: int | None, top_p: float | None) -> str:
    """A sequence in the notation of this module."""
    drawn = f"T {1 if temperature is None else temperature:g}, {MAX_TOKENS if max_tokens is None else max_tokens}"
    cut = "" if top_p in (None, 1) else f", top_p {top_p:g}"
    return f"{initials(roles)}, {drawn}{cut}"


def initials(roles: Sequence[str]) -> str:
    """Roles by their first letters."""
    return " ".join(role[0].upper() for role in roles)


def roles_of(prompt: Prompt) -> list[str]:
    """Who speaks in a conversation, in turn."""
    return [message.role for message in prompt.conversation]


@pytest.fixture(scope="session")
def record() -> Mapping[str, Any]:
    """What benchmarks/conformance.py recorded."""
    found: dict[str, Any] = json.loads(RECORD.read_text())
    return found


@pytest.fixture
def theirs(record: Mapping[str, Any]) -> Callable[[str], Calls]:
    """The sequences of one of codelion's approaches."""

    def calls(approach: str) -> Calls:
        found: Calls = Counter()
        for one in record[approach]["expanded"]:
            drawn = one["temperature"], one["max_tokens"], one["top_p"]
            found[written(one["roles"], *drawn)] += one["sequences"]
        return found

    return calls


@pytest.fixture
def ours() -> Callable[[str, Script], Coroutine[Any, Any, Calls]]:
    """The sequences and reads of one of our optimizers at its defaults.

    The script has the reply to each log tag; "The answer is 4." is the reply to the others. Reads favour the
    first option.
    """

    async def calls(optimizer: str, script: Script) -> Calls:
        found: Calls = Counter()

        def answers(prompt: Prompt) -> str:
            drawn = prompt.sampling.temperature, prompt.sampling.max_tokens, prompt.sampling.top_p
            found[written(roles_of(prompt), *drawn)] += 1
            says = script.get(prompt.log_tag or "", "The answer is 4.")
            return says if isinstance(says, str) else says(prompt)

        def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
            found[f"{initials(roles_of(prompt))}, read"] += 1
            return {option: 0.5**place for place, option in enumerate(options, start=1)}

        client = ScriptedClient(answers, choices=choices)
        await asolve(QUESTION, optimizer, client=client)
        assert found.total() == len(client.prompts), "texts were scored, which codelion cannot"
        return found

    return calls
