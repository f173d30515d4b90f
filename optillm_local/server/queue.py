"""Who runs now, who waits, and who is told to come back: bounded, and fair between keys."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from optillm_local.server.errors import BUSY, HttpError

_LONGEST_RETRY = 60
_FIRST_GUESS = 1.0  # seconds that a request takes, as long as none has ended


class Queue:
    """At most `limit` requests run; at most `room` wait, in one line per owner, and the lines take turns.

    Attributes:
        running, waiting: how many requests do now.
        refused: how many were told to come back.
    """

    def __init__(self, limit: int, room: int) -> None:
        self.running = self.waiting = self.refused = 0
        self._limit, self._room = limit, room
        self._lines: OrderedDict[str, deque[_Turn]] = OrderedDict()
        self._seconds = _FIRST_GUESS

    @asynccontextmanager
    async def place(self, owner: str) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Raises:
            HttpError: 429 with Retry-After: there is no room to wait, or it was needed for an owner with
                fewer requests.
        """
        await self._enter(owner)
        began = anyio.current_time()
        try:
            yield
        finally:
            self._seconds += 0.1 * (anyio.current_time() - began - self._seconds)
            self._leave()

    async def _enter(self, owner: str) -> None:
        if self.running < self._limit:  # then nobody waits: a place that becomes free is handed on
            self.running += 1
            return
        if self.waiting >= self._room:
            self._make_room(owner)
        turn = _Turn()
        self._lines.setdefault(owner, deque()).append(turn)
        self.waiting += 1
        try:
            await turn.decided.wait()
        except BaseException:  # cancelled: the client has gone
            if turn.has_place:
                self._leave()
            elif not turn.decided.is_set():
                self._take(owner, turn)
            raise
        if not turn.has_place:
            raise self._busy()

    def _make_room(self, owner: str) -> None:
        """The newest of the longest line goes, unless the newcomer's line would be as long."""
        longest = max(self._lines, key=lambda name: len(self._lines[name]))
        if len(self._lines[longest]) <= len(self._lines.get(owner, ())) + 1:
            raise self._busy()
        last = self._lines[longest][-1]
        self._take(longest, last)
        last.decided.set()

    def _take(self, owner: str, turn: _Turn) -> None:
        line = self._lines[owner]
        line.remove(turn)
        self.waiting -= 1
        if not line:
            del self._lines[owner]

    def _leave(self) -> None:
        """Hand the place to the first of the next line; that line is then the last."""
        if not self._lines:
            self.running -= 1
            return
        owner = next(iter(self._lines))
        turn = self._lines[owner][0]
        self._lines.move_to_end(owner)
        self._take(owner, turn)
        turn.has_place = True
        turn.decided.set()

    def _busy(self) -> HttpError:
        self.refused += 1
        seconds = math.ceil(self._seconds * (self.waiting + 1) / self._limit)
        after = str(min(max(1, seconds), _LONGEST_RETRY))
        message = f"{self.running} requests run and {self.waiting} wait; try again in {after} s"
        return HttpError(429, message, kind=BUSY, code="too_many_requests", headers={"retry-after": after})


class _Turn:
    def __init__(self) -> None:
        self.decided = anyio.Event()
        self.has_place = False
