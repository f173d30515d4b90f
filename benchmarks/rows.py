"""Rows of a benchmark that takes hours: on the disk as they are found, so that a run that was cut off goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Row = dict[str, Any]


class Rows:
    """Rows by their keys, and the file they are appended to. A key is all that shapes what its row says.

    Args:
        path: of the file, one JSON object per line.
        resume: whether rows that are in the file count; of several with the same key the last does.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else ""
        self._rows = dict(_readable(before)) if resume else {}
        self._file = path.open("a")
        if before and not before.endswith("\n"):
            self._file.write("\n")  # the last run was cut off in the middle of a line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, key: Row) -> bool:
        return _text(key) in self._rows

    def __getitem__(self, key: Row) -> Row:
        return self._rows[_text(key)]

    def add(self, key: Row, found: Row) -> None:
        """One more row; it is in the file when this returns."""
        self._rows[_text(key)] = found
        self._file.write(json.dumps({"key": key, **found}) + "\n")
        self._file.flush()


def _text(key: Row) -> str:
    return json.dumps(key, sort_keys=True)


def _readable(text: str) -> Iterator[tuple[str, Row]]:
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # cut off in the middle
            continue
        yield _text(row["key"]), row
