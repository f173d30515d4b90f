"""`optillm-local solve`: one question, one answer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer
from rich.console import Console

from optillm_local import registry
from optillm_local.cli.engine import Starter, leave_now, load_settings
from optillm_local.cli.failures import ANSWER, INTERRUPTED, NO_ANSWER
from optillm_local.core.budget import Budget
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Prompt
from optillm_local.report import LiveView, PlainView, result_panel, summary_lines, to_json
from optillm_local.run import DEFAULT_OPTIMIZER, Result, asolve
from optillm_local.store import JsonlRecord

Question = Annotated[str, typer.Argument(help="The question; - reads it from standard input.", show_default=False)]
OptimizerName = Annotated[
    str, typer.Option("--optimizer", "-O", metavar="NAME", help="See [cyan]optillm-local optimizers[/cyan].")
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="An option of the optimizer; repeat for more."),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="ID_OR_PATH", help="Hugging Face id or directory. Without it: the embedded model."),
]
MaxTokens = Annotated[int, typer.Option(metavar="N", help="Most tokens per sampled sequence.")]
Temperature = Annotated[float, typer.Option(metavar="T", help="0 (greedy) to 2.")]
Seed = Annotated[
    int | None,
    typer.Option(metavar="S", help="Repeats a run. Without it one is drawn, and shown with the result."),
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="The system message.")]
BudgetTokens = Annotated[
    int | None, typer.Option(metavar="N", help="Most tokens to generate in all; then the best answer so far.")
]
BudgetSeconds = Annotated[
    float | None, typer.Option(metavar="N", help="Most seconds to take, engine start not counted.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object; everything else goes to stderr.")]
Events = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write every event there as JSON lines; replaces the file."),
]
SettingsFile = Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Engine settings; see `doctor`.")]


def command(
    ctx: typer.Context,
    question: Question,
    optimizer: OptimizerName = DEFAULT_OPTIMIZER,
    option: Options = None,
    model: Model = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    seed: Seed = None,
    system: System = None,
    budget_tokens: BudgetTokens = None,
    budget_seconds: BudgetSeconds = None,
    as_json: AsJson = False,
    events: Events = None,
    settings: SettingsFile = None,
) -> int:
    """Answer a question.

    [bold]Examples[/bold]

    [cyan]optillm-local solve "What is 12 * 13?" -o n=8[/cyan]

    [cyan]optillm-local solve - -O best_of_n -o scorer=confidence --json < question.txt[/cyan]

    [cyan]optillm-local solve "..." -O mars -o agents=5 -o enable_aggregation=true[/cyan]

    [cyan]optillm-local solve "..." --model Qwen/Qwen3-8B --budget-seconds 60 --events run.jsonl[/cyan]

    The answer goes to stdout; progress, how it was chosen and what it cost go to stderr.

    Exit codes: 0 answer, 2 usage error, 3 no answer, 4 engine error, 130 Ctrl-C.
    """
    sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    job = _Job(
        optimizer=registry.create(optimizer, **parse_options(option or ())),
        prompt=Prompt.of(read_question(question), system=system, **sampling),
        budget=Budget(budget_tokens, budget_seconds),
    )
    starter = Starter(ctx.obj, load_settings(settings, model))
    console = Console(stderr=True)
    with ExitStack() as stack:
        # Opened last, so that a command that is refused leaves an older record alone.
        record = stack.enter_context(JsonlRecord(events)) if events else None
        try:
            with _stdout_kept_clean():
                result = anyio.run(_answer, job, starter, record, console)
        except KeyboardInterrupt:
            console.print("interrupted")
            if starter.loading:
                leave_now(INTERRUPTED)
            return INTERRUPTED
    _show(result, as_json, console)
    return ANSWER if result.answer.strip() else NO_ANSWER


@dataclass(frozen=True, slots=True)
class _Job:
    """What is asked, checked as far as it can be without an engine."""

    optimizer: Optimizer
    prompt: Prompt
    budget: Budget


@contextmanager
def _stdout_kept_clean() -> Iterator[None]:
    """What Python, C++ or a child process prints meanwhile goes to stderr: stdout is for the answer."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


async def _answer(job: _Job, starter: Starter, record: JsonlRecord | None, console: Console) -> Result:
    client = await starter.start(console)
    try:
        with LiveView(console) if console.is_interactive else PlainView(console) as view:
            watching = isinstance(view, LiveView)  # plain lines do not need every token, nor slow the run for it
            return await asolve(
                job.prompt,
                job.optimizer,
                client=client,
                budget=job.budget,
                sinks=[sink for sink in (record, None if watching else view) if sink],
                watchers=[view] if watching else [],
            )
    finally:
        with anyio.CancelScope(shield=True):
            await client.close()


def _show(result: Result, as_json: bool, console: Console) -> None:
    if as_json:
        typer.echo(to_json(result))
    elif sys.stdout.isatty():
        Console().print(result_panel(result))
    else:
        for line in summary_lines(result):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        typer.echo(result.answer)
    if not result.answer.strip():
        console.print("the answer is empty")


def read_question(given: str) -> str:
    """The question, from standard input if it is `-`.

    Raises:
        InvalidConfiguration: it is empty, or not UTF-8.
    """
    raw = typer.get_binary_stream("stdin").read() if given == "-" else given.encode(errors="surrogateescape")
    try:
        question = raw.decode()
    except UnicodeDecodeError:
        raise InvalidConfiguration("question", raw[:40], "is not UTF-8 text") from None
    if not question.strip():
        raise InvalidConfiguration("question", question, "is empty; ask something")
    return question


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`["n=8", "temperatures=[0.3, 1.0]"]` as a mapping. Texts stay texts: the optimizer knows their types.

    Raises:
        InvalidConfiguration: a pair that is none, or an option given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not (name and sign):
            raise InvalidConfiguration("-o", pair, "write it as key=value, such as -o n=8")
        if name in options:
            raise InvalidConfiguration(f"-o {name}", value, "is given twice")
        options[name] = _value(name, value)
    return options


def _value(name: str, text: str) -> Any:
    if not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidConfiguration(f"-o {name}", text, f"is not valid JSON: {error}") from None
