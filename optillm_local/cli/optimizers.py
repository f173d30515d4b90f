"""`optillm-local optimizers`: what there is to choose from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from optillm_local import registry


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a page that also says what each asks of the model.")
    ] = False,
) -> int:
    """List the optimizers and their options.

    Set an option with [cyan]optillm-local solve ... -O NAME -o OPTION=VALUE[/cyan]. Combine them:
    [cyan]-O "re2&moa"[/cyan] one after the other, [cyan]-O "mcts|best_of_n"[/cyan] side by side with a vote,
    [cyan]-O "best_of_n@thinkdeeper"[/cyan] the best of n long thoughts; [cyan]-o best_of_n.n=8[/cyan] sets an
    option of one part.
    """
    known = [describe(name) for name in registry.names()]
    if as_markdown:
        from optillm_local.cli import catalog  # like the scorers below, it needs NumPy, and other commands do not

        typer.echo(catalog.page(known))
    elif as_json:
        typer.echo(json.dumps(known, allow_nan=False))
    else:
        Console().print(*_tables(known), "", _scorers(), sep="\n")
    return 0


def describe(name: str) -> dict[str, Any]:
    """Name, description, source and options of an optimizer; one that cannot be loaded says why."""
    try:
        kind = registry.find(name)
    except Exception as error:  # other packages' code: one that fails must not hide the rest
        return {
            "name": name,
            "description": f"cannot be loaded: {type(error).__name__}: {error}",
            "source": "",
            "options": [],
        }
    return {"name": name, **registry.described(kind)}


def _tables(known: list[dict[str, Any]]) -> Iterator[RenderableType]:
    """For each optimizer what it does, over the whole width, and its options below."""
    for index, optimizer in enumerate(known):
        yield Text.assemble(
            "\n" if index else "", (optimizer["name"], "bold cyan"), "  ", (optimizer["description"], "bold")
        )
        if not optimizer["options"]:
            continue
        table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
        table.add_column("  option", header_style="dim", no_wrap=True)
        table.add_column("default", header_style="dim", overflow="fold")
        table.add_column("type and meaning", header_style="dim", overflow="fold")
        for option in optimizer["options"]:
            meaning = Text.assemble((f"{_readable(option['type'])}: ", "dim"), option["description"])
            table.add_row(Text(f"  {option['name']}"), Text(str(option["default"])), meaning)
        yield table


def _scorers() -> RenderableType:
    """What options called `scorer` may be."""
    from optillm_local.confidence import SCORERS

    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("scorer", header_style="bold cyan", no_wrap=True)
    table.add_column("what it ranks by", header_style="dim", overflow="fold")
    for name, named in SCORERS.items():
        table.add_row(name, named.meaning)
    return table


def _readable(annotation: str) -> str:
    """`Literal["a", "b"]` as `a | b`."""
    match = re.fullmatch(r"Literal\[(.*)\]", annotation)
    return annotation if match is None else re.sub(r"[\"']", "", match[1]).replace(", ", " | ")
