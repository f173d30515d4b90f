"""Model text made fit for a terminal."""

from __future__ import annotations

import math
import re

from rich.cells import cell_len, set_cell_size

_SEQUENCE = r"\x1b\[[0-?]*[ -/]*[@-~]"  # of the terminal: colours, cursor movements
_CONTROL = re.compile(rf"{_SEQUENCE}|[\x00-\x08\x0b-\x1f\x7f-\x9f]+")
_BLANK = re.compile(rf"(?:{_SEQUENCE}|[\x00-\x20\x7f-\xa0])+")


def printable(text: str) -> str:
    """The text without control characters: a model's output must not steer the terminal. Line ends stay."""
    return _CONTROL.sub("", text)


def one_line(text: str) -> str:
    """The text in one line, runs of white space and control characters as one space."""
    return _BLANK.sub(" ", text).strip()


def shortened(text: str, width: int) -> str:
    """The beginning of the text in one line of at most `width` columns."""
    line = one_line(text)
    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


def tail(text: str, width: int) -> str:
    """The end of the text in one line of at most `width` columns."""
    line = one_line(text)
    return line if cell_len(line) <= width else "…" + set_cell_size(line[::-1], width - 1)[::-1].lstrip()


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 round`, `2 rounds`; `2 passes` with a plural of its own."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def decimal(number: float | None) -> str:
    """The number with two decimals; a dash if nobody knows it: NaN, or None where it went through JSON."""
    return "-" if number is None or math.isnan(number) else f"{number:.2f}"
