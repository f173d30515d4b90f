"""What went wrong, in a line or two on stderr, and the exit code that says it to a program."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import typer

from optillm_local.core.errors import (
    ClientError,
    InvalidConfiguration,
    OptillmError,
    RequestRejected,
    Truncated,
)

ANSWER, BROKEN, USAGE, NO_ANSWER, ENGINE, INTERRUPTED = 0, 1, 2, 3, 4, 130
_CODES: tuple[tuple[type[OptillmError], int], ...] = (
    (InvalidConfiguration, USAGE),
    (RequestRejected, USAGE),
    (Truncated, NO_ANSWER),
    (ClientError, ENGINE),
    (OptillmError, NO_ANSWER),
)
DEBUG = "OPTILLM_LOCAL_DEBUG"

# Click's UsageError, which typer either imports from click or brings along, depending on its version.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


@dataclass
class Outcome:
    """How a command ended."""

    code: int = ANSWER


def code_of(error: OptillmError) -> int:
    """The exit code of an error."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


@contextmanager
def reported() -> Iterator[Outcome]:
    """Turn whatever the block raises into a message and an exit code."""
    outcome = Outcome()
    try:
        yield outcome
    except OptillmError as error:
        outcome.code = code_of(error)
        tell(error, str(error))
    except _UsageError as error:
        outcome.code = USAGE
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "optillm-local"
        tell(error, getattr(error, "format_message", error.__str__)(), f"Try '{path} --help'.")
    except Exception as error:
        outcome.code = BROKEN
        hint = "This is a bug in optillm-local or its engine." + ("" if debugging() else f" Traceback: {DEBUG}=1.")
        tell(error, f"{type(error).__name__}: {error}", hint)


def tell(error: BaseException, *lines: str) -> None:
    """Print the lines and the error's notes on stderr; with OPTILLM_LOCAL_DEBUG=1 the traceback too."""
    if debugging():
        traceback.print_exception(error, file=sys.stderr)
    first, *rest = lines
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    for line in (first, *rest, *getattr(error, "__notes__", [])):
        typer.echo(line, err=True)


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def quiet_logging() -> None:
    """Warnings of libraries that nobody set up logging for: one line each, without a traceback."""
    if logging.lastResort:
        logging.lastResort.setFormatter(_Brief("%(levelname)s: %(message)s"))


class _Brief(logging.Formatter):
    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        if debugging():
            return super().formatException(ei)
        return "".join(traceback.format_exception_only(ei[1])).strip()
