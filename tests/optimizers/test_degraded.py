"""Whatever a model says, an optimizer gives a solution or an error of ours."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import cycle

import pytest

from optillm_local import Message, Prompt, ScriptedClient, asolve
from optillm_local.clients import Reply
from optillm_local.clients.scripted import Choices
from optillm_local.core.errors import OptillmError
from optillm_local.registry import names

NAMES = names()
QUESTION = Prompt.of(
    [
        Message("system", "Be brief."),
        Message("user", "What is 3 + 4?"),
        Message("assistant", "It is 7."),
        Message("user", "And doubled? For example, 1 + 1 is 2."),
    ],
    seed=0,
)
SILENT = ["", " ", "\n\n\n\n", "<think>", "<think>never closed"]
VOID = ["None", "null", "{}", "[]", "nonsense", "?!", "\x00\x1b[0m\x07"]
NUMBERS = ["NaN", "-1", "1e999", "99999999999999999999"]
ENDLESS = ["x" * 10_000, "[" * 5_000, "<output>" * 500, "12 " * 99, "- \n1. \n" * 99]
OPEN = ["<output>[1, {}, []", "```python\ndef f(:", "\\boxed{", '{"a": NaN, "answer":', "1. "]
WORDS = [*VOID, *NUMBERS, *ENDLESS, *OPEN]
FITTING = [
    "Thought.\n\nFinal answer: 14",
    "1. Add.\n2. Double.",
    '<output>[{"question": "1 + 1?", "answer": "2"}]</output>',
]
LIMITS = [48, 3, 1]

every_optimizer = pytest.mark.parametrize("name", NAMES)


def first(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    """All probability on one option."""
    return {options[0]: 1.0}


def last(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    """All probability on the other."""
    return {options[-1]: 1.0}


async def answered(name: str, client: ScriptedClient, limit: int) -> None:
    """Have an optimizer answer; an error that it raises says what was asked last."""
    try:
        result = await asolve(QUESTION, name, client=client, sampling={"max_tokens": limit})
    except Exception as error:
        error.add_note(f"at most {limit} tokens; {client.prompts[-1:]}")
        raise
    assert isinstance(result.answer, str)


@every_optimizer
async def test_silence_gives_a_solution_or_an_error_of_ours(name: str) -> None:
    for text, limit in zip(SILENT, cycle(LIMITS)):
        with suppress(OptillmError):
            await answered(name, ScriptedClient(lambda prompt, text=text: text), limit)


@every_optimizer
async def test_words_give_a_solution_whatever_they_are(name: str) -> None:
    for text, limit in zip(WORDS, cycle(LIMITS)):
        client = ScriptedClient(lambda prompt, text=text: text, choices={})  # nor are the labels known
        await answered(name, client, limit)


@every_optimizer
@pytest.mark.parametrize(("choices", "logprob"), [({}, 0.0), (first, -math.inf), (last, -1e4)])
async def test_calls_that_fail_beside_others_that_do_not_are_survived(
    name: str, choices: Choices, logprob: float
) -> None:
    texts = [*SILENT, *WORDS, *FITTING * 7]

    def says(prompt: Prompt) -> Reply:
        drawn = zlib.crc32(f"{prompt.log_tag} {prompt.sampling.seed}".encode())
        return Reply(texts[drawn % len(texts)], logprob)

    with suppress(OptillmError):
        await answered(name, ScriptedClient(says, choices=choices), 64)
