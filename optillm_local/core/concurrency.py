"""Asking many things at once, and stopping them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Self, TypeVar

import anyio
from anyio.abc import TaskGroup

A = TypeVar("A")
R = TypeVar("R")

UNNEEDED = "no longer needed"
"""Why something is stopped, if nobody says more."""


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A task group that raises the first failure itself, with the others as notes, and not a group of them."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except ExceptionGroup as group:
        raise _first(_leaves(group)) from None


async def each(ask: Callable[[A], Awaitable[R]], items: Iterable[A]) -> list[R]:
    """Call `ask` on every item at once; the results in order of the items.

    The first failure cancels the rest. If several fail before that takes effect, the one of the earliest item
    is raised, with the others as notes.
    """
    jobs = list(items)
    results: dict[int, R] = {}
    failures: dict[int, Exception] = {}
    async with anyio.create_task_group() as tasks:

        async def run(index: int, item: A) -> None:
            try:
                results[index] = await ask(item)
            except Exception as error:
                failures[index] = error
                tasks.cancel_scope.cancel()

        for index, item in enumerate(jobs):
            tasks.start_soon(run, index, item)
    if failures:
        raise _first(failures[index] for index in sorted(failures))
    return [results[index] for index in range(len(jobs))]


class Stoppable:
    """Work that can be stopped as a whole, as a `Generation` can, however many calls it is made of.

    What decodes for it ends mid-token, and has the reason on its record.

    Attributes:
        because: why it was stopped; empty if it was not.
        outer: the work that it is part of.
    """

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()
        self.because = ""
        self.outer: Stoppable | None = None

    def __enter__(self) -> Self:
        self.outer = _work.get()
        self._token = _work.set(self)
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        _work.reset(self._token)
        return self._scope.__exit__(kind, error, trace)

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._scope.cancel_called

    def stop(self, because: str) -> None:
        """End it; of several reasons the first counts."""
        self.because = self.because or because
        self._scope.cancel()


_work: ContextVar[Stoppable | None] = ContextVar("optillm_local_work", default=None)


def why_stopped() -> str:
    """Why the work that this task belongs to was stopped, the innermost that was; `UNNEEDED` if none was."""
    work = _work.get()
    while work and not work.because:
        work = work.outer
    return work.because if work else UNNEEDED


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _first(failures: Iterable[Exception]) -> Exception:
    first, *others = failures
    for other in others:
        first.add_note(f"also: {type(other).__name__}: {other}")
    return first
