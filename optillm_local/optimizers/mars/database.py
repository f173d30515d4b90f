"""The SQLite file that keeps runs, their solutions and verdicts, and the strategies learned from them.

Every write is one transaction, so a killed run leaves whole rows and no `completed_at`. Several runs, in one
program or many, may use one file at the same time: SQLite's write-ahead log lets readers go on while one writes,
and a writer waits for its turn.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from optillm_local.core.errors import InvalidConfiguration, MarsError

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x4D415253  # "MARS", in the header of the file
_WAIT_S = 5.0  # the event loop waits too
_SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, question TEXT NOT NULL, config TEXT NOT NULL,
    started_at TEXT NOT NULL, completed_at TEXT, output TEXT
);
CREATE TABLE solutions (
    run_id INTEGER NOT NULL REFERENCES runs, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run_id, id)
);
CREATE TABLE verifications (
    run_id INTEGER NOT NULL REFERENCES runs, solution_id TEXT NOT NULL, agent_id TEXT NOT NULL,
    probability REAL NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run_id, solution_id, agent_id)
);
CREATE TABLE strategies (
    id INTEGER PRIMARY KEY, technique TEXT NOT NULL UNIQUE, description TEXT NOT NULL, question TEXT NOT NULL,
    discovered_by TEXT NOT NULL, success_rate REAL NOT NULL, uses INTEGER NOT NULL,
    discovered_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
"""


class Database:
    """One connection, for any thread.

    Args:
        path: the file, made if there is none; None keeps everything in memory.

    Raises:
        InvalidConfiguration: the file cannot be opened, is something else, or was written by a newer version.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = ":memory:" if path is None else os.fspath(path)
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                self._path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            self._refuse(_remedy(self._path, error))
        try:
            self._connection.row_factory = sqlite3.Row
            self._log_ahead()
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._migrate()
        except sqlite3.Error as error:
            self.close()
            self._refuse(_remedy(self._path, error))
        except InvalidConfiguration:
            self.close()
            raise

    def write(self, statement: str, *rows: Mapping[str, Any]) -> int:
        """Run a statement for each row, all in one transaction; the id of the last row inserted.

        Raises:
            MarsError: it could not be written, for instance because another program keeps the file locked.
        """
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for row in rows:
                    cursor = self._connection.execute(statement, row)
                return int(cursor.lastrowid or 0)
        except sqlite3.Error as error:
            raise MarsError(f"{self._path} cannot be written: {error}") from error

    def read(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """All rows of a query, as they are at one moment."""
        with self._lock:
            return [dict(row) for row in self._connection.execute(query, values)]

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _log_ahead(self) -> None:
        """Switch to the write-ahead log. Only this does not wait for others that open the same new file."""
        give_up = time.monotonic() + _WAIT_S
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(0.01)

    def _migrate(self) -> None:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")  # two programs may find the same new file
            [version] = self._connection.execute("PRAGMA user_version").fetchone()
            [owner] = self._connection.execute("PRAGMA application_id").fetchone()
            [tables] = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and owner != _APPLICATION_ID:
                self._refuse("is a database of another program; name another file")
            if version > SCHEMA_VERSION:
                self._refuse(f"has schema {version} of a newer optillm-local; this one knows {SCHEMA_VERSION}")
            if not tables:
                _execute_each(self._connection, _SCHEMA.split(";"))
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _refuse(self, remedy: str) -> NoReturn:
        raise InvalidConfiguration("mars option path", self._path, remedy)


def as_json(value: Any) -> str:
    """What is stored of a value that is not queried."""
    return json.dumps(value, default=str, allow_nan=False)


def _execute_each(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:  # not executescript, which commits first
        connection.execute(statement)


def _remedy(path: str, error: sqlite3.Error) -> str:
    if not Path(path).parent.is_dir():
        return f"the directory {Path(path).parent} does not exist; create it first"
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return "is no SQLite file; name another"
    return f"cannot be used: {error}"
