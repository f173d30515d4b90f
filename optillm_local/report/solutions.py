"""The solutions of a MARS run, the verdicts on them, and the run in numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from optillm_local.core.solution import Solution
from optillm_local.report.text import counted, decimal, shortened
from optillm_local.run import Result

MOST_ROWS = 20
"""How many solutions are shown; the others are counted."""

_WIDE = 400  # columns: plain lines are not cut
_CELL = 32  # most columns of one cell


def solution_report(result: Result) -> list[RenderableType]:
    """The solutions with P(CORRECT) of each verdict, quality, tokens by phase; nothing if MARS did not answer."""
    about = result.solution.metadata.get("mars")
    if not about:
        return []
    shown = _most_telling(result.solutions, about["final_solution_id"])
    hidden = len(result.solutions) - len(shown)
    return [
        _table(shown, about),
        *([Text(f"… and {hidden} more", "dim")] if hidden else []),
        Text(_quality(about)),
        Text(_tokens_by_phase(about)),
    ]


def solution_lines(result: Result) -> list[str]:
    """The same in plain lines."""
    segments = Console(width=_WIDE).render(Group(*solution_report(result)))
    return [line.rstrip() for line in "".join(segment.text for segment in segments).splitlines()]


def _most_telling(solutions: Sequence[Solution], selected: str) -> list[Solution]:
    """As many as are shown, in their order: the selected one, then those verified, then the first."""
    ranked = sorted(solutions, key=lambda one: (one.id != selected, not one.is_verified))
    kept = {one.id for one in ranked[:MOST_ROWS]}
    return [one for one in solutions if one.id in kept]


def _table(solutions: Iterable[Solution], about: Mapping[str, Any]) -> Table:
    verdicts: dict[str, list[str]] = defaultdict(list)
    for one in about["verifications"]:
        verdicts[one["solution_id"]].append(decimal(one["probability"]))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in ("  solution", "agent", "phase", "answer", "verdicts", "verified"):
        table.add_column(name, no_wrap=name != "answer")  # the answer gives way where there is no room
    for name in ("confidence", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for solution in solutions:
        selected = solution.id == about["final_solution_id"]
        cells = _cells(solution, " ".join(verdicts[solution.id]), selected)
        table.add_row(*cells, style="bold" if selected else "")
    return table


def _cells(solution: Solution, verdicts: str, selected: bool) -> list[Text]:
    return [
        Text(f"{'*' if selected else ' '} {shortened(solution.id, _CELL)}"),
        Text(shortened(solution.agent_id, _CELL)),
        Text(solution.phase),
        Text(shortened(solution.answer, _CELL) or "(empty)", no_wrap=True, overflow="ellipsis"),
        Text(shortened(verdicts, _CELL) or "-"),
        Text("yes", "green") if solution.is_verified else Text("no"),
        Text(decimal(solution.verification_score)),
        Text(str(solution.token_count)),
    ]


def _quality(about: Mapping[str, Any]) -> str:
    quality = about["quality"]
    parts = [
        f"confidence {decimal(quality['confidence'])} ({quality['assessment']})",
        f"{quality['verified']} of {quality['solutions']} verified",
        counted(quality["distinct_answers"], "distinct answer"),
        f"{counted(about['iterations'], 'round')} of improvement",
    ]
    known = about.get("calibration")  # the answer was known
    if known and known["verdicts"]:
        parts.append(f"{known['right']} of {known['verdicts']} verdicts right")
    if quality["failures"]:
        parts.append(counted(quality["failures"], "failed step"))
    return f"quality: {', '.join(parts)}"


def _tokens_by_phase(about: Mapping[str, Any]) -> str:
    """Prompt and completion together, so they add up to the total."""
    phases = about["usage"]["phase"].items()
    return "tokens by phase: " + ", ".join(f"{name} {usage['total']}" for name, usage in phases)
