"""Events of work that goes on by itself, read with a plain `async for`.

A task group inside an async generator breaks when its reader walks away: the generator is then closed by another
task than the one that entered the group (PEP 789). So the work runs in a task of its own, which the reader's end
cancels and the generator's end waits for.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

import anyio

from optillm_local.core.mailbox import Mailbox

T = TypeVar("T")

_tasks: set[asyncio.Task[None]] = set()  # asyncio itself keeps only weak references


async def told_by(work: Callable[[Callable[[T], None]], Awaitable[None]]) -> AsyncGenerator[T, None]:
    """What `work` tells while it runs, in order; then its failure, if it fails.

    The work does not wait for the reader. A reader that leaves early cancels it.
    """
    job = _Job(work)
    _spawn(job.run)
    try:
        while not isinstance(item := await job.told.get(), _End):
            yield item
        if item.error:
            raise item.error
    finally:
        job.scope.cancel()
        with anyio.CancelScope(shield=True):
            await job.finished.wait()


class _End:
    def __init__(self, error: Exception | None) -> None:
        self.error = error


class _Job(Generic[T]):
    def __init__(self, work: Callable[[Callable[[T], None]], Awaitable[None]]) -> None:
        self._work = work
        self.told: Mailbox[T | _End] = Mailbox()
        self.scope = anyio.CancelScope()
        self.finished = anyio.Event()

    async def run(self) -> None:
        error: Exception | None = None
        try:
            with self.scope:
                await self._work(self.told.put)
        except Exception as failure:  # the reader's to handle
            error = failure
        finally:
            self.told.put(_End(error))
            self.finished.set()


def _spawn(run: Callable[[], Awaitable[None]]) -> None:
    """A task that belongs to no group, on the running event loop, in the context of the caller."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        trio.lowlevel.spawn_system_task(run, context=contextvars.copy_context())
        return

    async def task() -> None:
        await run()

    _tasks.add(made := asyncio.create_task(task()))
    made.add_done_callback(_tasks.discard)
