"""`optillm-local doctor`: what is here, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optillm_local.cli.failures import ANSWER, BROKEN
from optillm_local.doctor import GIB, Facts, Hardware, Model, Problem, examine


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    settings: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Engine settings to look at.")] = None,
) -> int:
    """Show hardware, versions, settings and model, and what is wrong with them.

    The exit code is 1 if something makes solving impossible.
    """
    facts = examine(settings)
    if as_json:
        typer.echo(json.dumps(to_jsonable_python(facts.as_dict(), inf_nan_mode="null"), allow_nan=False))
    else:
        _print(facts)
    return BROKEN if any(problem.blocking for problem in facts.problems) else ANSWER


def _print(facts: Facts) -> None:
    console = Console(highlight=False)
    sections = {
        "hardware": _hardware(facts.hardware),
        "versions": dict(facts.packages),
        "model": _model(facts.model) if facts.model else {},
        "settings": {name: _shown(value) for name, value in (facts.settings or {}).items()},
    }
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, rows in sections.items():
        table.add_row(Text(title, "bold not dim cyan"), "")
        for name, value in rows.items():
            table.add_row(f"  {name}", Text(value))
    console.print(table)
    _print_problems(console, facts.problems)


def _print_problems(console: Console, problems: list[Problem]) -> None:
    if not problems:
        console.print("\nNothing is wrong.", style="green")
        return
    console.print(f"\n{len(problems)} problem{'s' if len(problems) > 1 else ''}", style="bold red")
    for problem in problems:
        kind = "blocks solving" if problem.blocking else "warning"
        console.print(
            f"  {problem.what} ({kind})",
            style="red" if problem.blocking else "yellow",
            markup=False,
            soft_wrap=True,
        )
        console.print(f"    mend it: {problem.remedy}", markup=False, soft_wrap=True)


def _shown(setting: object) -> str:
    return "decided when the engine starts" if setting is None else str(setting)


def _hardware(hardware: Hardware) -> dict[str, str]:
    gpus = [
        f"{gpu.name}, {gpu.free_mib} of {gpu.memory_mib} MiB free, driver {gpu.driver}" for gpu in hardware.gpus
    ]
    return {
        "CPU": f"{hardware.cpu} ({hardware.machine})",
        "cores": f"{hardware.cores}, of which this process may use {hardware.usable_cores}",
        "CPU flags": ", ".join(hardware.flags) or "none of those that matter",
        "memory": f"{hardware.memory_available / GIB:.1f} of {hardware.memory_total / GIB:.1f} GiB free",
        "GPU": "\n".join(gpus) or "none that nvidia-smi shows",
    }


def _model(model: Model) -> dict[str, str]:
    rows = {"name": model.name, "path": model.path or "not on this machine"}
    if model.embedded:
        rows["installed"] = "yes" if model.installed else "no"
        rows["converted"] = "yes" if model.converted else "no; done at the first start, 4 s"
    return {**rows, "cache": f"{model.cache}, {model.cache_free / GIB:.1f} GiB free"}
