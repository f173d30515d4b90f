"""The command line: it chooses and wires, and does nothing else.

Exit codes: 0 answer, 1 `doctor` found what makes solving impossible (or a bug of ours), 2 usage error,
3 no answer, 4 engine error, 130 Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from optillm_local.cli import doctor, optimizers, serve, solve
from optillm_local.cli.engine import ClientFactory
from optillm_local.cli.failures import quiet_logging, reported
from optillm_local.run import versions

app = typer.Typer(
    name="optillm-local",
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("solve")(solve.command)
app.command("serve")(serve.command)
app.command("optimizers")(optimizers.command)
app.command("doctor")(doctor.command)


def main(argv: Sequence[str] | None = None, *, client_factory: ClientFactory | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: arguments without the program's name; None takes the process's own.
        client_factory: makes the model client, in the place of the vLLM engine. It is called on a worker
            thread, with the settings and a function that takes lines of progress.
    """
    quiet_logging()
    command = typer.main.get_command(app)
    with reported() as outcome:
        code = command.main(argv, "optillm-local", standalone_mode=False, obj=client_factory)
        outcome.code = int(code or 0)
    return outcome.code


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"optillm-local {versions().get('optillm-local', 'unknown: it is not installed')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Answer questions with many agents of one model, decoded side by side by vLLM inside this program.

    An optimizer decides between the answers: by vote, by a verdict read from probabilities, or by confidence.

    [bold]Try[/bold]

    [cyan]optillm-local solve "What is 12 * 13?"[/cyan]  five agents vote, on the embedded model

    [cyan]optillm-local serve[/cyan]  the same over OpenAI's HTTP API

    [cyan]optillm-local optimizers[/cyan]  what else can decide, and its options

    [cyan]optillm-local doctor[/cyan]  what this machine can do, and what is wrong with it
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)
