"""Start, ask and kill the process in which formulas are compared (`_worker.py`)."""

import atexit
import json
import os
import shlex
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

_PROGRAM = Path(__file__).with_name("_worker.py")
_LONGEST_REPLY = 4096


class NoWorker(Exception):
    """The process does not start."""


class NoVerdict(Exception):
    """The process took too long and was killed, or it died of what it was given."""


class Worker:
    """Compares formulas in a process of its own, started when first needed and again after its death.

    Threads and event loops may share it; they take turns. The process lives until the interpreter
    ends, so that a program which asks again and again waits only once for sympy, and it remembers its
    latest verdicts: no cache on this side of the line would save more than the line.
    """

    def __init__(self, start_s: float = 60.0) -> None:
        """`start_s` is what starting and importing sympy may take: 1 s when idle, many when busy."""
        self._start_s = start_s
        self._turn = threading.Lock()
        self._process: _Process | None = None
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._disown)

    def first_equal(self, latex: str, rivals: Sequence[str], timeout_s: float) -> int | None:
        """The index of the first of `rivals` that equals `latex`; None if there is none.

        Blocks for at most `timeout_s`, not counting its turn and the start of a process.

        Raises:
            NoWorker: the process does not start.
            NoVerdict: it did not answer; without rivals, `latex` is to blame.
        """
        with self._turn:
            process = self._running()
            try:
                found: int | None = process.ask([latex, list(rivals), timeout_s], timeout_s)
            except OSError as error:
                self.close()
                raise NoVerdict(f"{latex}: {error}") from error
            return found

    def close(self) -> None:
        """End the process, whatever it is doing; the next request starts another."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _running(self) -> "_Process":
        if self._process is None or not self._process.is_alive():
            self.close()
            self._process = _start(self._start_s)
        return self._process

    def _disown(self) -> None:
        # In a forked child. Two programs that ask one process would read each other's replies.
        self._turn = threading.Lock()
        if self._process is not None:
            self._process.disown()
            self._process = None


class _Process:
    def __init__(self, popen: Popen[bytes], line: socket.socket) -> None:
        self._popen, self._line = popen, line

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def ask(self, request: Any, timeout_s: float) -> Any:
        """Its reply. Raises OSError if there is none in time; only `close` may follow then."""
        self._line.settimeout(timeout_s)
        self._line.sendall(json.dumps(request).encode() + b"\n")
        return self.receive(timeout_s)

    def receive(self, timeout_s: float) -> Any:
        self._line.settimeout(timeout_s)
        line = b""
        while not line.endswith(b"\n"):  # never a second line; an unbuffered writer sends it in pieces
            piece = self._line.recv(_LONGEST_REPLY)
            if not piece:
                raise ConnectionResetError("the process ended")
            line += piece
        return json.loads(line)

    def close(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self._line.close()

    def disown(self) -> None:
        self._popen.returncode = 0  # not this program's to wait for, nor to warn about
        self._line.close()


def _start(start_s: float) -> _Process:
    # By path, with neither its folder nor the working directory to import from. Its own process
    # group keeps Ctrl-C from it: it ends when the socket does.
    command = [sys.executable, "-P", "-W", "ignore", str(_PROGRAM)]
    with ExitStack() as undo:
        try:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                end = theirs.fileno()
                popen = Popen(command, stdin=end, stdout=end, stderr=DEVNULL, process_group=0)  # noqa: S603
            process = _Process(popen, ours)
            undo.callback(process.close)
            process.receive(start_s)
        except OSError as error:
            raise NoWorker(f"{shlex.join(command)}: {error}") from error
        undo.pop_all()
    return process
