"""What every search keeps: conversations, seeds, budgets, and its temper with a model that fails it."""

from importlib.util import find_spec

import pytest

from optillm_local import Budget, Message, Prompt, ScriptedClient, asolve
from optillm_local.core.errors import OptillmError
from optillm_local.registry import create

NAMES = ["mcts", "rstar", "tot", "beam_search", "particle_filtering"]
if find_spec("treequest"):
    NAMES.append("ab_mcts")

CONVERSATION = [
    Message("system", "Be brief."),
    Message("user", "What is 3 + 4?"),
    Message("assistant", "It is 7."),
    Message("user", "And doubled?"),
]
QUESTION = Prompt.of(CONVERSATION, seed=0)


def says(prompt: Prompt) -> str:
    """Two steps, something else for each seed."""
    last = f"Final answer: {(prompt.sampling.seed or 0) % 3}"
    return last if prompt.messages[-1].role == "assistant" else f"Thought {prompt.sampling.seed}.\n\n{last}"


@pytest.mark.parametrize("name", NAMES)
async def test_the_conversation_stands_before_every_call(name: str) -> None:
    client = ScriptedClient(says)
    await create(name).optimize(QUESTION, client)
    for prompt in client.prompts:
        assert prompt.messages[:3] == QUESTION.messages[:3]
        assert prompt.messages[3].role == "user" and prompt.messages[3].content.startswith("And doubled?")


@pytest.mark.parametrize("name", NAMES)
async def test_a_seed_repeats_the_run(name: str) -> None:
    first, second = [await asolve(QUESTION, name, client=ScriptedClient(says)) for _ in range(2)]
    assert (first.answer, first.selection, first.usage) == (second.answer, second.selection, second.usage)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "reply", ["", " \n\n ", "?!", "nonsense " * 50, "\n\n\n\n", "<think>never closed", "\\boxed{"]
)
@pytest.mark.parametrize("max_tokens", [1, 3, 1024])
async def test_a_model_that_fails_gives_an_answer_or_one_of_our_errors(
    name: str, reply: str, max_tokens: int
) -> None:
    client = ScriptedClient(lambda prompt: reply, choices={})
    try:
        result = await asolve(QUESTION, name, client=client, sampling={"max_tokens": max_tokens})
    except OptillmError:
        assert not reply.strip()
    else:
        assert result.selection


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tokens", [2, 9, 30, 100, 300])
async def test_a_spent_budget_gives_the_best_so_far(name: str, tokens: int) -> None:
    result = await asolve(QUESTION, name, client=ScriptedClient(says), budget=Budget(tokens=tokens))
    assert result.answer and result.selection
    assert result.usage.completion <= tokens + 64


@pytest.mark.parametrize("name", NAMES)
async def test_every_sample_may_be_drawn_by_another_optimizer(name: str) -> None:
    result = await asolve(QUESTION, f"{name}@best_of_n", client=ScriptedClient(says))
    assert result.answer
