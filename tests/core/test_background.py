"""What a reader of events sees of work that goes on by itself, and what becomes of the work when it leaves."""

import gc
from collections.abc import Callable

import anyio
import pytest

from optillm_local import Prompt, ScriptedClient
from optillm_local.core.background import told_by
from optillm_local.optimizers.single import Single

Tell = Callable[[int], None]


async def test_everything_is_told_in_order_and_nothing_waits_for_the_reader() -> None:
    done = anyio.Event()

    async def work(tell: Tell) -> None:
        for number in range(100):
            tell(number)
        done.set()

    told = told_by(work)
    assert await anext(told) == 0
    await done.wait()
    assert [number async for number in told] == list(range(1, 100))


async def test_a_failure_comes_after_what_was_told() -> None:
    async def work(tell: Tell) -> None:
        tell(1)
        raise ValueError("broken")

    heard = []
    with pytest.raises(ValueError, match="broken"):
        async for number in told_by(work):
            heard.append(number)  # noqa: PERF401 - a comprehension would lose it
    assert heard == [1]


@pytest.mark.parametrize("how", ["closed", "broken off", "cancelled"])
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio wants `aclosing` around it
async def test_a_reader_that_leaves_ends_the_work(how: str) -> None:
    ended = anyio.Event()

    async def work(tell: Tell) -> None:
        tell(1)
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    if how == "closed":
        told = told_by(work)
        await anext(told)
        await told.aclose()
        assert ended.is_set()
    elif how == "broken off":
        async for _ in told_by(work):
            break
        gc.collect()
    else:
        with anyio.move_on_after(0.01):
            async for _ in told_by(work):
                pass
        assert ended.is_set()
    with anyio.fail_after(5):
        await ended.wait()


async def test_an_optimizer_streams_its_events_and_its_failure() -> None:
    client = ScriptedClient(["It is 4."])
    kinds = [event.event async for event in Single().stream(Prompt.of("2 + 2?", seed=0), client)]
    assert kinds[0] == "span_begin" and "sequence_completed" in kinds and kinds[-1] == "solution_generated"
    with pytest.raises(Exception, match="the script has 1 answers"):
        async for _ in Single().stream("again", client):
            pass
