"""Asking many things at once, and stopping them."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from optillm_local.core.concurrency import UNNEEDED, Stoppable, each, task_group, why_stopped


async def wait_turns(turns: int) -> int:
    for _ in range(turns):
        await checkpoint()
    return turns


async def test_results_come_in_order_of_the_items_not_of_finishing() -> None:
    assert await each(wait_turns, [9, 0, 5]) == [9, 0, 5]
    assert await each(wait_turns, []) == []


async def test_items_run_at_the_same_time() -> None:
    everybody, arrived = anyio.Event(), []

    async def meet(one: str) -> str:
        arrived.append(one)
        if len(arrived) == 3:
            everybody.set()
        await everybody.wait()
        return one

    with anyio.fail_after(1):
        assert await each(meet, iter("abc")) == ["a", "b", "c"]


async def test_of_several_failures_the_earliest_items_is_raised_and_the_others_are_noted() -> None:
    together = anyio.Event()

    async def fail(index: int) -> None:
        with anyio.CancelScope(shield=True):
            if index == 2:
                together.set()
            await together.wait()
        raise ValueError(f"item {index}")

    with pytest.raises(ValueError, match="item 0") as raised:
        await each(fail, range(3))
    assert raised.value.__notes__ == ["also: ValueError: item 1", "also: ValueError: item 2"]


async def test_the_first_failure_cancels_the_rest() -> None:
    ended = []

    async def run(index: int) -> None:
        try:
            await (anyio.sleep_forever() if index != 1 else checkpoint())
        finally:
            ended.append(index)
        raise KeyError(index)

    with pytest.raises(KeyError) as raised:
        await each(run, range(3))
    assert sorted(ended) == [0, 1, 2]
    assert raised.value.args == (1,) and not hasattr(raised.value, "__notes__")


async def test_each_can_be_cancelled_from_outside() -> None:
    with anyio.move_on_after(0.001) as scope:
        await each(lambda _: anyio.sleep_forever(), range(3))
    assert scope.cancelled_caught


async def fails(error: Exception) -> None:
    raise error


async def test_a_task_group_raises_the_failure_itself() -> None:
    with pytest.raises(KeyError, match="task") as raised:
        async with task_group() as outer:
            outer.start_soon(anyio.sleep_forever)
            async with task_group() as inner:
                inner.start_soon(fails, KeyError("task"))
    assert raised.value.__suppress_context__ and not hasattr(raised.value, "__notes__")


async def test_a_failing_body_is_raised_as_it_is_and_ends_the_tasks() -> None:
    with pytest.raises(KeyError, match="body"):
        async with task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            raise KeyError("body")


async def test_further_failures_of_a_task_group_are_notes() -> None:
    with pytest.raises(ValueError, match="one of") as raised:
        async with task_group() as tasks:
            tasks.start_soon(fails, ValueError("one of two"))
            tasks.start_soon(fails, ExceptionGroup("nested", [ValueError("one of two")]))
    assert raised.value.__notes__ == ["also: ValueError: one of two"]


async def test_a_task_group_can_be_cancelled_from_outside() -> None:
    with anyio.move_on_after(0.001) as scope:
        async with task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
    assert scope.cancelled_caught


@pytest.mark.parametrize("outermost", [True, False])
async def test_what_is_stopped_ends_and_its_tasks_know_why(outermost: bool) -> None:
    told: list[str] = []

    async def wait(_: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            told.append(why_stopped())

    with Stoppable() as outer:
        with Stoppable() as inner:
            async with task_group() as tasks:
                tasks.start_soon(each, wait, range(2))
                await anyio.wait_all_tasks_blocked()
                (outer if outermost else inner).stop("decided")
                (outer if outermost else inner).stop("again")
        assert not outermost
    assert told == ["decided"] * 2
    assert (outer.is_stopped, inner.is_stopped) == (outermost, not outermost)


async def test_what_nobody_stopped_has_no_reason() -> None:
    with Stoppable(), Stoppable():
        assert why_stopped() == UNNEEDED
