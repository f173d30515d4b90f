"""The plot of what accuracy costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from intervals import Interval


@dataclass(frozen=True, slots=True)
class Point:
    """An optimizer: mean tokens generated per question, and accuracy, each with its interval."""

    label: str
    tokens: float
    tokens_interval: Interval
    accuracy: float
    accuracy_interval: Interval


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both, by tokens upwards: each is more accurate than all cheaper ones."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.tokens, -one.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Write the plot to `path`, in the format of its suffix.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    best = front(points)
    for index, point in enumerate(sorted(points, key=lambda one: one.tokens)):
        x, y, color = point.tokens, point.accuracy, "tab:blue" if point in best else "tab:gray"
        sides = [[x - point.tokens_interval[0]], [point.tokens_interval[1] - x]]
        heights = [[y - point.accuracy_interval[0]], [point.accuracy_interval[1] - y]]
        # Rounding may put a mean outside its interval by one bit.
        bars = {
            "xerr": [[max(0.0, s) for s in side] for side in sides],
            "yerr": [[max(0.0, h[0])] for h in heights],
        }
        axes.errorbar([x], [y], **bars, fmt="o", color=color, elinewidth=0.7, capsize=2)
        below = index % 2  # neighbours cost about the same: their labels take turns
        offset = {"xytext": (5, -11 if below else 5), "textcoords": "offset points"}
        axes.annotate(point.label, (x, y), **offset, fontsize=8, color=color)
    axes.step([p.tokens for p in best], [p.accuracy for p in best], where="post", color="tab:blue", alpha=0.5)
    axes.set_xscale("log")
    axes.margins(x=0.25)  # room for the last label
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="tokens generated per question (log)", ylabel="accuracy", title=title)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
