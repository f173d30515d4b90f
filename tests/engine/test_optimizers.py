"""Every optimizer runs on the real engine, for a few tokens a call, and its account is the engine's own."""

from __future__ import annotations

import pytest

from optillm_local import Message, Prompt, VLLMClient, asolve, registry

COMBINED = ["moa&re2", "best_of_n|mcts|single", "best_of_n@thinkdeeper"]
CHAT = Prompt.of(
    [
        Message("system", "You are brief."),
        Message("user", "What is 3 + 4?"),
        Message("assistant", "3 + 4 is 7."),
        Message("user", "And if you add 5 more?"),
    ],
    max_tokens=16,
    seed=3,
)

pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.mark.parametrize("name", [*registry.names(), *COMBINED])
async def test_it_answers_and_every_token_is_accounted_for(engine: VLLMClient, name: str) -> None:
    result = await asolve(CHAT, name, client=engine)
    spent = result.engine
    assert result.solution.reasoning and result.selection
    assert result.usage.completion == spent.generated_tokens > 0
    assert result.usage.prompt == spent.computed_prompt_tokens + spent.cached_prompt_tokens
    assert result.usage.cached == spent.cached_prompt_tokens
    assert engine.stats().running == 0
