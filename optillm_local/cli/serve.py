"""`optillm-local serve`: the model behind OpenAI's HTTP API."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import typer
from rich.console import Console

from optillm_local.cli.engine import Starter, leave_now, load_settings
from optillm_local.cli.failures import ANSWER, INTERRUPTED
from optillm_local.core.errors import InvalidConfiguration

Host = Annotated[
    str, typer.Option(metavar="NAME", help="Address to listen on; beyond this machine only with a key.")
]
Port = Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 takes a free one and prints it.")]
Model = Annotated[
    str | None,
    typer.Option(metavar="ID_OR_PATH", help="Hugging Face id or directory. Without it: the embedded model."),
]
Name = Annotated[
    list[str] | None,
    typer.Option(
        "--name", metavar="NAME", help="What clients call the model; repeat for more.", show_default=False
    ),
]
Approach = Annotated[str, typer.Option(metavar="NAME", help="Optimizer for requests that name none.")]
ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="OPTILLM_API_KEY",
        help="Bearer key to ask for; repeat for more. The variable keeps it out of the process list.",
        show_default=False,
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(metavar="N", help="Most tokens per request, all agents together; then the best answer so far."),
]
MaxSeconds = Annotated[float, typer.Option(metavar="N", help="Most seconds per request; likewise.")]
MaxN = Annotated[int, typer.Option("--max-n", metavar="N", help="Most choices per request.")]
MaxAgents = Annotated[int, typer.Option(metavar="N", help="Most of anything an optimizer can be told to use.")]
MaxBody = Annotated[int, typer.Option(metavar="BYTES", help="Largest request.")]
MaxRunning = Annotated[int, typer.Option(metavar="N", help="Requests that run at once, in one batch.")]
MaxWaiting = Annotated[int, typer.Option(metavar="N", help="Requests that wait; more get 429 and Retry-After.")]
Drain = Annotated[int, typer.Option("--drain-seconds", metavar="N", help="For running requests, after SIGTERM.")]
Log = Annotated[
    Path | None,
    typer.Option(
        "--log-conversations",
        metavar="FOLDER",
        envvar="OPTILLM_CONVERSATION_LOG_DIR",
        help="Write every conversation there as JSON lines. Without it no text of a request is kept or logged.",
    ),
]
SettingsFile = Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Engine settings; see `doctor`.")]


def command(
    ctx: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    model: Model = None,
    name: Name = None,
    approach: Approach = "none",
    api_key: ApiKey = None,
    max_tokens: MaxTokens = 262_144,
    max_seconds: MaxSeconds = 600.0,
    max_n: MaxN = 64,
    max_agents: MaxAgents = 256,
    max_body: MaxBody = 4 * 1024 * 1024,
    max_running: MaxRunning = 64,
    max_waiting: MaxWaiting = 256,
    drain_seconds: Drain = 60,
    log_conversations: Log = None,
    settings: SettingsFile = None,
) -> int:
    """Serve the model over OpenAI's HTTP API.

    [bold]Examples[/bold]

    [cyan]optillm-local serve --model Qwen/Qwen3-8B[/cyan]

    [cyan]OPTILLM_API_KEY=... optillm-local serve --host 0.0.0.0 --log-conversations logs[/cyan]

    [bold]Ask it[/bold]

    [cyan]curl localhost:8000/v1/chat/completions -H "Content-Type: application/json"
    -d '{"model": "mars-MODEL", "messages": [{"role": "user", "content": "What is 12 * 13?"}]}'[/cyan]

    The model's name chooses the optimizer: [cyan]mars-MODEL[/cyan], [cyan]moa&re2-MODEL[/cyan], or plain
    [cyan]MODEL[/cyan]. /v1/models and /v1/optimizers list them; /health and /metrics are for machines.

    All requests share one engine and one batch. A client that disconnects ends what runs for it. SIGTERM and
    Ctrl-C let running requests end; a second Ctrl-C does not wait.

    Exit codes: 0 ended by SIGTERM, 2 usage error, 4 engine error, 130 Ctrl-C.
    """
    try:
        from optillm_local import server
        from optillm_local.server import listening
    except ImportError as error:
        raise InvalidConfiguration("serve", error.name, "install optillm-local[serve]") from None
    keys = api_key or ()
    server.check_host(host, server.Keys(keys))
    server.check_approach(approach)
    limits = server.Limits(
        body_bytes=max_body,
        n=max_n,
        agents=max_agents,
        tokens=max_tokens,
        seconds=max_seconds,
        running=max_running,
        waiting=max_waiting,
    )
    log = server.ConversationLog(log_conversations) if log_conversations else None
    engine = load_settings(settings, model)
    starter = Starter(ctx.obj, engine)
    console = Console(stderr=True)

    async def run() -> int:
        with listening.bind(host, port) as sock:  # before the engine, which takes a while to start
            client = await starter.start(console)
            try:
                app = server.create_app(
                    client,
                    keys=keys,
                    limits=limits,
                    names=name or (),
                    adapters=list(engine.lora_modules),
                    approach=approach,
                    log=log,
                )
                ready = partial(_say, sock, console)
                ended = await listening.serve(app, sock, drain_seconds=drain_seconds, ready=ready)
            finally:
                with anyio.CancelScope(shield=True):
                    await client.close()
        return INTERRUPTED if ended == signal.SIGINT else ANSWER

    try:
        with _logging():
            return anyio.run(run)
    except KeyboardInterrupt:  # while the engine starts
        console.print("interrupted")
        if starter.loading:
            leave_now(INTERRUPTED)
        return INTERRUPTED


def _say(sock: socket.socket, console: Console) -> None:
    host, port = sock.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    console.print(f"listening on http://{where}:{port}/v1", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _logging() -> Iterator[None]:
    """One line per request on stderr, and the places of failures: never what was asked or answered."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("optillm_local.server")
    level, logger.propagate = logger.level, False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = True
