"""The plot of where every contender stands against the floor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contest import OURS, Row


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write the plot to `path`, in the format of its suffix: times over the floor's, a panel per operation.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    timed = [row for row in rows if row.timing and row.floor_us and not row.timing["l2_warm"]]
    operations = list(dict.fromkeys(row.operation for row in timed))
    if not operations:
        return
    most = max(len({row.case for row in timed if row.operation == one}) for one in operations)
    figure = Figure(figsize=(6 * len(operations), 2.5 + 0.45 * most), layout="constrained")
    for axes, operation in zip(figure.subplots(1, len(operations), squeeze=False)[0], operations, strict=True):
        _panel(axes, operation, [row for row in timed if row.operation == operation])
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _panel(axes: Any, operation: str, rows: Sequence[Row]) -> None:
    """A line per shape; a mark per contender, ours in blue."""
    cases = list(dict.fromkeys(row.case for row in rows))
    contenders = sorted({row.contender for row in rows}, key=lambda one: (not one.startswith(OURS), one))
    for index, contender in enumerate(contenders):
        own = [row for row in rows if row.contender == contender]
        is_ours = contender == OURS
        axes.scatter(
            [(row.median or 0.0) / (row.floor_us or 1.0) for row in own],
            [cases.index(row.case) for row in own],
            color="tab:blue" if is_ours else f"C{1 + index % 9}",
            marker="o" if is_ours else "vs^Dx+<>p"[index % 9],
            zorder=3 if is_ours else 2,
            label=contender,
        )
    axes.axvline(1, color="tab:gray", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(cases)), cases, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="time over the floor's (log)", title=operation)
    axes.legend(fontsize=7, loc="best")
    axes.grid(alpha=0.3)
