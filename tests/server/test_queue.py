"""Who runs, who waits, who is told to come back."""

from collections.abc import Sequence

import anyio
import pytest
from anyio.lowlevel import checkpoint

from optillm_local.server.errors import HttpError
from optillm_local.server.queue import Queue


async def settle() -> None:
    for _ in range(20):
        await checkpoint()


async def served(queue: Queue, owners: Sequence[str]) -> list[str]:
    """The order in which requests get a place while one that came before them holds the only one."""
    order: list[str] = []

    async def ask(owner: str) -> None:
        async with queue.place(owner):
            order.append(owner)

    async with anyio.create_task_group() as tasks, queue.place("first"):
        for owner in owners:
            tasks.start_soon(ask, owner)
            await settle()
    return order


async def test_keys_take_turns_however_many_requests_one_of_them_has() -> None:
    assert await served(Queue(1, 10), ["a", "a", "a", "b", "c"]) == ["a", "b", "c", "a", "a"]


async def test_at_most_so_many_run_at_once() -> None:
    queue, peak = Queue(3, 100), 0

    async def ask() -> None:
        nonlocal peak
        async with queue.place("a"):
            peak = max(peak, queue.running)
            await settle()

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
    assert (peak, queue.running, queue.waiting) == (3, 0, 0)


async def test_without_room_a_request_is_told_when_to_come_back() -> None:
    queue = Queue(1, 1)
    async with anyio.create_task_group() as tasks, queue.place("a"):

        async def wait() -> None:
            async with queue.place("a"):
                pass

        tasks.start_soon(wait)
        await settle()
        with pytest.raises(HttpError, match="try again in") as refused:
            async with queue.place("a"):
                pytest.fail("there was room")
    assert (refused.value.status, int(refused.value.headers["retry-after"])) == (429, 2)
    assert (queue.running, queue.waiting, queue.refused) == (0, 0, 1)


async def test_a_key_that_fills_the_room_makes_way_for_another() -> None:
    queue, outcomes = Queue(1, 3), list[str]()

    async def ask(owner: str) -> None:
        try:
            async with queue.place(owner):
                outcomes.append(owner)
        except HttpError:
            outcomes.append(f"{owner} refused")

    async with anyio.create_task_group() as tasks, queue.place("first"):
        for owner in ("greedy", "greedy", "greedy", "modest"):
            tasks.start_soon(ask, owner)
            await settle()
    assert outcomes == ["greedy refused", "greedy", "modest", "greedy"]


async def test_who_leaves_the_line_leaves_no_gap_in_it() -> None:
    queue = Queue(1, 10)
    async with queue.place("a"):
        with anyio.move_on_after(0.01):
            async with queue.place("b"):
                pytest.fail("the place was taken")
        assert queue.waiting == 0
    assert await served(queue, ["b", "a"]) == ["b", "a"]
    assert queue.running == 0


async def test_a_place_that_is_handed_to_someone_who_just_left_goes_on_to_the_next() -> None:
    queue, served_ = Queue(1, 10), list[str]()

    async def ask(owner: str, scope: anyio.CancelScope) -> None:
        with scope:
            async with queue.place(owner):
                await checkpoint()
                served_.append(owner)

    gone, here = anyio.CancelScope(), anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        async with queue.place("first"):
            tasks.start_soon(ask, "gone", gone)
            await settle()
            tasks.start_soon(ask, "here", here)
            await settle()
        gone.cancel()
    assert (served_, queue.running, queue.waiting) == (["here"], 0, 0)
