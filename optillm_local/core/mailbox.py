"""Hands items to one waiting task, from its own event loop or from another thread."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

T = TypeVar("T")


class Mailbox(Generic[T]):
    """An unbounded queue for one reader. `get` may be cancelled: no item is lost.

    Must be created on the reader's event loop (asyncio or trio).
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._filled = anyio.Event()
        self._waking = False
        native: Any = current_token().native_token
        self._call_soon: Callable[..., Any] = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon

    def put(self, item: T) -> None:
        """Add an item, on the reader's loop."""
        self._items.append(item)
        self._filled.set()

    def put_from_thread(self, item: T) -> None:
        """Add an item from any thread. Does nothing once the reader's loop is gone."""
        self._items.append(item)
        if self._waking:  # the wake-up that is under way will find this item too
            return
        self._waking = True
        with contextlib.suppress(RuntimeError):  # asyncio: the loop is closed; trio's RunFinishedError is one too
            self._call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        self._filled.set()

    async def get(self) -> T:
        """The oldest item; waits for one."""
        while not self._items:
            self._filled = anyio.Event()
            await self._filled.wait()
        return self._items.popleft()
