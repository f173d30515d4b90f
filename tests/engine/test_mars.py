"""MARS on the real engine: what it shares, what it counts, and that it ends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from optillm_local import Choice, ModelClient, Prompt, TokenUsage, asolve
from optillm_local.core.generation import Generation
from optillm_local.core.usage import EngineStats
from optillm_local.engine import VLLMClient
from optillm_local.optimizers.mars import Mars

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough here: the runs on virtual time use both."""
    return "asyncio"


class Noting(ModelClient):
    """The engine, with a note of the token ids of every prompt that reaches it."""

    def __init__(self, engine: VLLMClient) -> None:
        self._engine, self.model = engine, engine.model
        self.prompts: list[list[int]] = []

    def _open(self, prompts: Sequence[Prompt], report_every: int) -> AbstractAsyncContextManager[Generation]:
        self.prompts += [self._engine.render(prompt) for prompt in prompts]
        return self._engine._open(prompts, report_every)

    async def _choose(self, prompt: Prompt, options: Sequence[str]) -> Choice:
        self.prompts.append(self._engine.render(prompt))
        return await self._engine._choose(prompt, options)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def distinct_tokens(self) -> int:
        """Tokens of all prompts, each block of each distinct prefix counted once."""
        size = self._engine._handle.config.cache_config.block_size
        blocks = {
            tuple(ids[: end + size]): len(ids[end : end + size])
            for ids in self.prompts
            for end in range(0, len(ids), size)
        }
        return sum(blocks.values())


def question(tokens: int, engine: VLLMClient) -> Prompt:
    """A question of about so many tokens that the engine has not seen before."""
    fresh = f"Shop number {random.randrange(10**9)} sells "
    text = fresh
    while len(engine.render(Prompt.of(text))) < tokens:
        text += f"pens for {random.randrange(100)} cents, "
    return Prompt.of(f"{text}. How much are 12 pens for 3 cents each?", seed=1, max_tokens=48)


OPTIONS: dict[str, Any] = {"agents": 5, "verifiers": 2, "auto_lightweight_mode": False, "max_iterations": 1}


@pytest.mark.parametrize("verification", ["review", "read"])
async def test_each_distinct_prefix_is_computed_once(engine: VLLMClient, verification: str) -> None:
    client = Noting(engine)
    before = client.stats()
    mars = Mars(**OPTIONS, verification=verification, review_tokens=32)
    await mars.run(question(500, engine), client)
    computed = (client.stats() - before).computed_prompt_tokens
    assert computed <= 1.1 * client.distinct_tokens()
    assert computed <= 0.2 * sum(map(len, client.prompts))


async def test_a_run_counts_what_the_engine_counts(engine: VLLMClient) -> None:
    mars = Mars(
        **OPTIONS, enable_aggregation=True, aggregation_loops=1, enable_strategy_network=True, review_tokens=24
    )
    before = engine.stats()
    result = await asolve(question(60, engine), mars, client=engine)
    spent = engine.stats() - before
    assert result.answer and result.solution.metadata["selection"]
    assert result.usage.completion == spent.generated_tokens
    assert result.usage.cached == spent.cached_prompt_tokens
    assert result.usage.prompt == spent.computed_prompt_tokens + spent.cached_prompt_tokens
    by_agent = result.solution.metadata["mars"]["usage"]["agent"].values()
    assert sum(part["completion"] for part in by_agent) == result.usage.completion
    assert spent.mean_batch > 3


async def test_greedy_agents_repeat(engine: VLLMClient) -> None:
    asked = question(60, engine)
    mars = Mars(temperatures=(0.0, 0.0), verification="read", max_iterations=0, verifiers=1, consensus_threshold=1)
    first, second = await mars.run(asked, engine), await mars.run(asked, engine)
    assert [one.answer for one in first.all_solutions] == [one.answer for one in second.all_solutions]
    assert first.usage.total == second.usage.total != TokenUsage().total
