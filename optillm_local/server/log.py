"""Conversations as JSON lines, if they are wanted: nothing else writes down what was said."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.events import Event, SequenceCompleted

logger = logging.getLogger(__name__)

MIB = 1024 * 1024


class ConversationLog:
    """`conversations_YYYY-MM-DD.jsonl` in a folder, one line per request; only its owner may read them.

    A file that has grown to `file_bytes` is followed by `conversations_YYYY-MM-DD.1.jsonl` and so on; of all
    files the newest `keep` stay.

    Raises:
        InvalidConfiguration: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, *, file_bytes: int = 64 * MIB, keep: int = 30) -> None:
        self.folder, self._file_bytes, self._keep = folder, file_bytes, keep
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfiguration("log folder", str(folder), f"cannot be made: {error.strerror}") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InvalidConfiguration("log folder", str(folder), "cannot be written to")

    def write(self, entry: Mapping[str, Any]) -> None:
        """Add a line; a log that cannot be written does not fail the request."""
        line = to_json(entry, inf_nan_mode="null", fallback=str) + b"\n"
        try:
            path = self._path(len(line))
            is_new = not path.exists()
            with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
                file.write(line)
            if is_new:
                self._drop_old()
        except OSError as error:
            logger.error("a conversation could not be logged: %s", error.strerror)

    def _path(self, more: int) -> Path:
        """The newest file of the day, or the next one if it is full."""
        day = f"conversations_{datetime.now(UTC):%Y-%m-%d}"
        files = self._files(day)
        if not files:
            return self.folder / f"{day}.jsonl"
        newest = files[-1]
        is_full = newest.stat().st_size + more > self._file_bytes
        return self.folder / f"{day}.{_age(newest)[1] + 1}.jsonl" if is_full else newest

    def _drop_old(self) -> None:
        for old in self._files("conversations_")[: -self._keep]:
            old.unlink(missing_ok=True)

    def _files(self, beginning: str) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob(f"{beginning}*.jsonl"), key=_age)


class Conversation:
    """One request as it goes to the log: what was asked, what the model said for it, what was answered."""

    def __init__(self, request_id: str, request: Mapping[str, Any]) -> None:
        self._id, self._request = request_id, request
        self._began = datetime.now(UTC)
        self._calls: list[dict[str, Any]] = []
        self._parts: list[dict[str, Any]] = []
        self._error: str | None = None

    def __call__(self, event: Event) -> None:
        """A sink of the run's events."""
        if isinstance(event, SequenceCompleted):
            about = event.model_dump(include={"log_tag", "finish_reason", "text", "usage"})
            stamp = datetime.now(UTC).isoformat()
            self._calls.append({"call_number": len(self._calls) + 1, "timestamp": stamp, "response": about})

    def answered(self, part: Mapping[str, Any]) -> None:
        """A response, or one chunk of it."""
        self._parts.append(dict(part))

    def failed(self, error: BaseException) -> None:
        """What kept the answer from being whole; the first counts."""
        self._error = self._error or f"{type(error).__name__}: {error}"

    def entry(self) -> dict[str, Any]:
        """The line."""
        response = joined(self._parts)
        lasted = datetime.now(UTC) - self._began
        return {
            "timestamp": self._began.isoformat(),
            "request_id": self._id,
            "approach": (response or {}).get("optillm", {}).get("optimizer"),
            "model": self._request.get("model"),
            "client_request": self._request,
            "provider_calls": self._calls,
            "final_response": response,
            "total_duration_ms": round(lasted.total_seconds() * 1000, 1),
            "error": self._error,
        }


def joined(parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A response of its chunks: the texts of each choice put together. One that is whole stays as it is."""
    if len(parts) < 2:
        return parts[0] if parts else None
    choices: dict[int, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    for part in parts:
        whole |= {name: value for name, value in part.items() if value is not None and name != "choices"}
        for piece in part.get("choices", ()):
            choice = choices.setdefault(piece["index"], {"index": piece["index"], "message": {}})
            choice["finish_reason"] = piece.get("finish_reason") or choice.get("finish_reason")
            _append(choice["message"], piece.get("delta") or {"content": piece.get("text")})
    return {**whole, "choices": [choices[index] for index in sorted(choices)]}


def _append(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name, text in delta.items():
        if isinstance(text, str):
            message[name] = text if name == "role" else message.get(name, "") + text


def _age(path: Path) -> tuple[str, int]:
    day, _, number = path.stem.partition(".")
    return day, int(number) if number.isdigit() else 0
