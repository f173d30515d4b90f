"""One reader, writers on any thread, and nothing lost."""

import math
from typing import Any

import anyio
import anyio.to_thread
import pytest

from optillm_local.core.mailbox import Mailbox


async def test_items_come_in_order() -> None:
    box: Mailbox[int] = Mailbox()
    for item in range(3):
        box.put(item)
    assert [await box.get() for _ in range(3)] == [0, 1, 2]


async def test_a_thousand_items_from_another_thread_arrive_in_order() -> None:
    box: Mailbox[int] = Mailbox()

    def write() -> None:
        for item in range(1000):
            box.put_from_thread(item)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, write)
            assert [await box.get() for _ in range(1000)] == list(range(1000))


async def test_a_reader_that_waits_is_woken_from_another_thread_every_time() -> None:
    box: Mailbox[int] = Mailbox()
    with anyio.fail_after(5):
        for item in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, box.put_from_thread, item)
                assert await box.get() == item


async def test_a_cancelled_get_loses_nothing() -> None:
    box: Mailbox[str] = Mailbox()
    with anyio.move_on_after(0.001):
        await box.get()
    box.put("kept")
    assert await box.get() == "kept"


@pytest.mark.parametrize("put_first", [True, False])
async def test_an_item_put_while_get_is_cancelled_is_delivered_once(put_first: bool) -> None:
    box: Mailbox[str] = Mailbox()
    got: list[str] = []

    async def read() -> None:
        got.append(await box.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        for act in (lambda: box.put("item"), tasks.cancel_scope.cancel)[:: 1 if put_first else -1]:
            act()
    with anyio.move_on_after(0.001 if got else math.inf):
        got.append(await box.get())
    assert got == ["item"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_put_after_the_readers_loop_is_gone_does_nothing(backend: str) -> None:
    async def make() -> Mailbox[Any]:
        return Mailbox()

    anyio.run(make, backend=backend).put_from_thread("late")
