"""Forest attention inside the engine: what siblings share is read once per step, and the answers stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import anyio
import pytest

from optillm_local import Prompt
from optillm_local.core.completion import Completion
from optillm_local.core.generation import Generation
from optillm_local.core.streaming import Completed
from optillm_local.engine import VLLMClient

pytestmark = pytest.mark.timeout(600)

SHARED = "Numbers that matter to nobody: " + ", ".join(str(n) for n in range(180)) + ". "
MANY = 46  # with 3 KV heads, the gate wants 24001 tokens saved a step


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough here."""
    return "asyncio"


@pytest.fixture(scope="module")
def forest() -> Iterator[VLLMClient]:
    """The engine in this process, with forest attention."""
    client = VLLMClient(
        handle="inprocess", max_model_len=2048, kv_cache_gib=1, dtype="float32", forest_attention=True
    )
    yield client
    anyio.run(client.close)


def asked(n: int, tokens: int = 12) -> list[Prompt]:
    """Prompts that differ at their ends."""
    sampling = {"temperature": 0.0, "max_tokens": tokens, "logprobs": 0}
    return [Prompt.of(f"{SHARED} Tell a long story about {i * i}.", **sampling) for i in range(n)]


async def answers(
    client: VLLMClient, prompts: Sequence[Prompt], midway: Callable[[Generation], None] | None = None
) -> list[Completion]:
    """All of them, asked at once; `midway` is called when sequence 5 has three tokens."""
    done: dict[int, Completion] = {}
    seen = 0
    async with client.generate(prompts) as group:
        async for index, event in group:
            if isinstance(event, Completed):
                done[index] = event.completion
            elif index == 5 and (seen := seen + 1) == 3 and midway:
                midway(group)
    return [done[index] for index in range(len(prompts))]


def alike(ours: Completion, theirs: Completion) -> bool:
    """Same tokens, and log-probabilities that are the same but for rounding."""
    return ours.token_ids == theirs.token_ids and ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


async def test_siblings_answer_the_same_and_read_far_less(forest: VLLMClient, engine: VLLMClient) -> None:
    from optillm_kernels.vllm_plugin.forest import statistics

    prompts = asked(MANY)
    length = len(forest.render(prompts[0]))
    before = replace(statistics)
    ours = await answers(forest, prompts)
    assert length > 600
    assert statistics.forest_steps - before.forest_steps >= 8
    read, stock = statistics.tokens_read - before.tokens_read, statistics.tokens_stock - before.tokens_stock
    assert read < stock / 5
    theirs = await answers(engine, prompts)
    assert all(map(alike, ours, theirs))


async def test_where_it_does_not_pay_the_step_is_left_to_vllm(forest: VLLMClient) -> None:
    from optillm_kernels.vllm_plugin.forest import statistics

    before = replace(statistics)
    await answers(forest, asked(4))
    assert statistics.forest_steps == before.forest_steps
    assert statistics.stock_steps > before.stock_steps


async def test_a_prompt_that_arrives_meanwhile_and_an_abort_leave_the_others_right(
    forest: VLLMClient, engine: VLLMClient
) -> None:
    from optillm_kernels.vllm_plugin.forest import statistics

    prompts, late = asked(MANY, tokens=16), Prompt.of("Name a colour.", temperature=0.0, max_tokens=4, logprobs=0)
    before = replace(statistics)
    joined: list[Completion] = []
    arrived = anyio.Event()

    async def join() -> None:
        await arrived.wait()
        joined.extend(await answers(forest, [late]))

    def midway(group: Generation) -> None:
        group.stop(5)
        arrived.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(join)
        ours = await answers(forest, prompts, midway)
    assert statistics.plans - before.plans >= 3  # the group, with the late one, without it
    assert statistics.stock_steps - before.stock_steps >= 2  # both prefills
    assert statistics.forest_steps - before.forest_steps >= 10
    theirs = await answers(engine, prompts)
    assert ours[5].finish_reason == "abort"
    assert all(alike(a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if i != 5)
    assert alike(joined[0], (await answers(engine, [late]))[0])
