"""Asking many things at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

A = TypeVar("A")
R = TypeVar("R")


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
