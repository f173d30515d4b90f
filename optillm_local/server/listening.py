"""A socket, uvicorn on it, and an end that lets running requests finish."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

from optillm_local.core.errors import InvalidConfiguration

_KEEP_ALIVE = 30  # seconds that an idle connection may stay open


def bind(host: str, port: int) -> socket.socket:
    """A socket that has the address, before anybody is served on it.

    Raises:
        InvalidConfiguration: there is no such address here, or it is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such address"
        raise InvalidConfiguration(
            "--host and --port", f"{host}:{port}", f"cannot be listened on: {reason}"
        ) from None


class _Server(uvicorn.Server):
    """uvicorn that tells when it has started, and without its signal handlers: they end the process too early."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: ASGIApp, sock: socket.socket, *, drain_seconds: int, ready: Callable[[], None] = lambda: None
) -> signal.Signals | None:
    """Answer until SIGTERM or SIGINT; then take no more, and let what runs end. A second signal cuts that short.

    Runs on asyncio only, in the main thread.

    Args:
        app: what answers.
        sock: from `bind`.
        drain_seconds: until requests that still run are cancelled.
        ready: called once connections are taken.

    Returns:
        The signal; None if the server ended by itself.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=drain_seconds,
    )
    server = _Server(config, ready)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as tasks:
            heard: list[signal.Signals] = []

            async def listen() -> None:
                async for one in signals:
                    server.force_exit = bool(heard)
                    heard.append(one)
                    server.should_exit = True

            tasks.start_soon(listen)
            await server.serve([sock])
            tasks.cancel_scope.cancel()
    return heard[0] if heard else None
