"""The result of a run, for people and for programs."""

from __future__ import annotations

import json

from pydantic_core import to_jsonable_python
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from optillm_local.report.solutions import solution_lines, solution_report
from optillm_local.report.text import one_line, printable
from optillm_local.run import Result


def to_json(result: Result) -> str:
    """One line of strict JSON: what is not a number is null, what JSON has no form for is text."""
    plain = to_jsonable_python(result.as_dict(), inf_nan_mode="null", fallback=str)
    return json.dumps(plain, allow_nan=False)


def result_panel(result: Result) -> RenderableType:
    """The answer in a frame, how it was chosen and out of what, and what it cost."""
    answer = Text(printable(result.answer).strip() or "(empty)")
    title = "best answer before the budget was spent" if result.budget_exhausted else "answer"
    return Group(
        Panel(answer, title=title, title_align="left", border_style="bold"),
        Text(one_line(result.selection), "green"),
        *solution_report(result),
        _costs(result),
        Text(f"seed {result.seed}, {_speed(result):.0f} tokens/s", "dim"),
    )


def summary_lines(result: Result) -> list[str]:
    """How the answer was chosen, out of what, and what it cost, without the answer, in plain lines."""
    chosen = one_line(result.selection) or "no reason given"
    spent = "; the budget is spent" if result.budget_exhausted else ""
    usage, engine = result.usage, result.engine
    return [
        f"chosen: {chosen}{spent}",
        *solution_lines(result),
        f"tokens: prompt {usage.prompt} (cached {usage.cached}), completion {usage.completion} "
        f"(reasoning {usage.reasoning}, discarded {usage.discarded}), total {usage.total}",
        f"engine: {engine.steps} steps, mean batch {engine.mean_batch:.1f}, {result.duration_s:.1f} s, "
        f"{_speed(result):.0f} tokens/s; seed {result.seed}",
    ]


def _costs(result: Result) -> Table:
    usage, engine = result.usage, result.engine
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    cells = {
        "prompt": f"{usage.prompt}",
        "cached": f"{usage.cached}",
        "completion": f"{usage.completion}",
        "discarded": f"{usage.discarded}",
        "engine steps": f"{engine.steps}",
        "mean batch": f"{engine.mean_batch:.1f}",
        "seconds": f"{result.duration_s:.1f}",
    }
    for name in cells:
        table.add_column(name, justify="right", header_style="dim", no_wrap=True)
    table.add_row(*cells.values())
    return table


def _speed(result: Result) -> float:
    return result.usage.completion / result.duration_s if result.duration_s else 0.0
