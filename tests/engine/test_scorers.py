"""What verdicts cost: the part that candidates and criteria share is prefilled once."""

from __future__ import annotations

import pytest

from optillm_local import Completion, EngineStats, Prompt, VLLMClient
from optillm_local.confidence import Levels, PCorrect, Scorer, Tournament, scorer

BLOCK = 32  # tokens of a cache block on a CPU; a part of one is computed anew
LONG = "Consider the following facts about the harbour and its ships. " * 40

pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def answers(engine: VLLMClient, tag: str, n: int) -> tuple[Prompt, list[Completion]]:
    question = Prompt.of(f"{tag}. {LONG} How many ships are there?", max_tokens=24, temperature=1.0, seed=1)
    return question, await engine.sample(question, n=n)


async def cost(engine: VLLMClient, how: Scorer, question: Prompt, candidates: list[Completion]) -> EngineStats:
    before = engine.stats()
    scores = await how.score(question, candidates, engine)
    assert len(scores) == len(candidates) and all(0 <= one <= 1 for one in scores)
    return engine.stats() - before


@pytest.mark.parametrize("name", ["verifier", "levels"])
async def test_verdicts_compute_only_what_follows_the_candidates(engine: VLLMClient, name: str) -> None:
    question, candidates = await answers(engine, name, n=8)
    shared = len(engine.render(question))
    how = scorer(name)
    reads = len(candidates) * (len(how.criteria) if isinstance(how, Levels) else 1)
    spent = await cost(engine, how, question, candidates)
    asked = spent.computed_prompt_tokens + spent.cached_prompt_tokens
    assert shared > 400 and asked > reads * shared
    assert spent.cached_prompt_tokens >= reads * (shared - BLOCK)
    assert spent.computed_prompt_tokens < reads * (24 + BLOCK + 100)
    assert spent.steps <= 3


async def test_a_cold_question_is_prefilled_once_for_all_verdicts(engine: VLLMClient) -> None:
    _, candidates = await answers(engine, "warm", n=6)
    cold = Prompt.of(f"cold. {LONG} How many ships are there?", seed=1)
    shared = len(engine.render(cold))
    spent = await cost(engine, PCorrect(), cold, candidates)
    assert shared < spent.computed_prompt_tokens < shared + len(candidates) * (24 + BLOCK + 60)


async def test_a_pivot_tournament_compares_fewer_and_shares_the_question(engine: VLLMClient) -> None:
    question, candidates = await answers(engine, "pivots", n=6)
    shared = len(engine.render(question))
    full = await cost(engine, Tournament(), question, candidates)
    few = await cost(engine, Tournament(pivots=1), question, candidates)
    assert (full.generated_tokens, few.generated_tokens) == (2 * 15, 2 * 5)
    assert full.cached_prompt_tokens > (2 * 15 - 1) * (shared - 2 * BLOCK)
