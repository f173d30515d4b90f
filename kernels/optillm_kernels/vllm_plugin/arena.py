"""Memory that the engine writes statistics of tokens into and a client reads them from: no message, no object."""

from __future__ import annotations

import mmap
import os
import threading
from bisect import insort
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = 9
"""Numbers per token: those of `recorder`, and whether the sequence was ended at this token."""

SPARE = 0
"""The row that takes what belongs to no token: it is nobody's, and nobody reads it."""

# 256 sequences of 16 thousand tokens. Only rows that are written take memory; where a GPU maps it, all 150 MB do.
_ROWS = 1 << 22
_ROW_BYTES = COLUMNS * 4


class Arena:
    """Rows of float32, one per token; a request owns as many successive rows as it may have tokens.

    Shared memory without a name in the file system: it goes when the last process that maps it does. The owner
    hands out rows; the process of the engine, if it is another one, attaches by `path`.
    """

    def __init__(self, rows: int = _ROWS) -> None:
        self._fd = os.memfd_create("optillm-statistics")
        os.ftruncate(self._fd, rows * _ROW_BYTES)
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.values = _mapped(self._fd, rows)
        self._lock = threading.Lock()
        self._free = [(SPARE + 1, rows - 1)]  # (first row, rows), in order

    def take(self, rows: int) -> int | None:
        """The first of so many successive rows; None if there is no room."""
        with self._lock:
            for index, (first, free) in enumerate(self._free):
                if free >= rows:
                    self._free[index : index + 1] = [(first + rows, free - rows)] if free > rows else []
                    return first
        return None

    def give_back(self, first: int, rows: int) -> None:
        """Rows that nobody writes any more, and nobody reads."""
        with self._lock:
            insort(self._free, (first, rows))
            joined: list[tuple[int, int]] = []
            for start, free in self._free:
                if joined and sum(joined[-1]) == start:
                    joined[-1] = (joined[-1][0], joined[-1][1] + free)
                else:
                    joined.append((start, free))
            self._free = joined

    def close(self) -> None:
        """Let go of the memory; what maps it still keeps it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def attached(path: str) -> NDArray[np.float32]:
    """The rows of an arena of this or another process: [rows, COLUMNS].

    Raises:
        OSError: its owner is gone.
    """
    fd = os.open(path, os.O_RDWR)
    try:
        return _mapped(fd, os.fstat(fd).st_size // _ROW_BYTES)
    finally:
        os.close(fd)


def _mapped(fd: int, rows: int) -> NDArray[np.float32]:
    return np.frombuffer(mmap.mmap(fd, rows * _ROW_BYTES), dtype=np.float32).reshape(rows, COLUMNS)
