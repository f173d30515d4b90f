"""A run's events as JSON lines: written as they happen, read back even after a crash."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from optillm_local.core.errors import InvalidConfiguration, ParsingError
from optillm_local.core.events import EVENT, Event


class JsonlRecord:
    """An event sink that writes one JSON line per event; an older file of that name is replaced.

    Each line is handed to the operating system before the run goes on, so whatever ends the program, the
    events so far are in the file.

    Raises:
        InvalidConfiguration: the file cannot be created there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            # Without a buffer there is nothing to lose, and a full disk cannot fail a second time in `close`.
            self._file = io.FileIO(self.path, "w")
        except OSError as error:
            raise InvalidConfiguration("events", str(self.path), _remedy(self.path, error)) from None

    def __call__(self, event: Event) -> None:
        """Append one event.

        Raises:
            OSError: it could not be written, for instance because the disk is full.
        """
        left = memoryview(event.model_dump_json().encode() + b"\n")
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_events(path: str | os.PathLike[str]) -> list[Event]:
    """The events of a record, in order.

    A last line without its end is what a crash leaves behind; it is left out unless it is whole.

    Raises:
        InvalidConfiguration: the file cannot be read.
        ParsingError: a line is not an event; the message names file and line.
    """
    try:
        lines = Path(path).read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InvalidConfiguration("events", os.fspath(path), f"cannot be read: {error.strerror}") from None
    events = []
    for number, line in enumerate(lines, start=1):
        event = _read(line, f"{os.fspath(path)}, line {number}")
        if event is not None:
            events.append(event)
    return events


def _read(line: bytes, where: str) -> Event | None:
    """One event; None for a line that was never finished."""
    try:
        return EVENT.validate_json(line)
    except ValidationError as error:
        if not line.endswith(b"\n"):
            return None
        reason = error.errors(include_url=False)[0]["msg"]
        raise ParsingError(f"{where}: not an event: {reason}", line.decode(errors="replace")) from None


def _remedy(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "is a directory; name a file"
    if not path.parent.is_dir():
        return f"the directory {path.parent} does not exist; create it first"
    return f"cannot be written: {error.strerror}"
