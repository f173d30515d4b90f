"""What a benchmark found, as a table to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Table


def table(name: str, found: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row for each way in which something was measured; all have the same columns."""
    columns = list(next(iter(found.values())))
    shown = Table(name, *columns, box=SIMPLE, padding=0)
    for way, row in found.items():
        shown.add_row(way, *(str(row[column]) for column in columns))
    return shown
