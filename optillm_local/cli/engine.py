"""Starting the engine: settings first, then a thread that Ctrl-C need not wait for."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import anyio
from rich.console import Console
from rich.markup import escape

from optillm_local.core.client import ModelClient

if TYPE_CHECKING:
    from optillm_local.engine import EngineSettings

Progress = Callable[[str], None]
ClientFactory = Callable[["EngineSettings", Progress], ModelClient]


def load_settings(file: Path | None, model: str | None) -> EngineSettings:
    """The engine's settings.

    Raises:
        InvalidConfiguration: a value that cannot work, whether in the file, the environment or `model`.
    """
    from optillm_local.engine.settings import EngineSettings

    return EngineSettings.load(file) if model is None else EngineSettings.load(file, model=model)


class Starter:
    """Starts the engine on a thread, because importing vLLM and loading a model block for many seconds.

    Attributes:
        loading: that thread is at work. It cannot be stopped, only left behind.
    """

    def __init__(self, factory: ClientFactory | None, settings: EngineSettings) -> None:
        self.loading = False
        self._factory = factory or _vllm
        self._settings = settings

    async def start(self, console: Console) -> ModelClient:
        """The client, ready to be asked. What happens until then is told on the console."""
        began = time.monotonic()
        with _progress(console) as tell:
            if self._settings.model is None:
                from optillm_local.engine.embedded import EMBEDDED_MODEL

                _say(console, f"no --model given: using the embedded model {EMBEDDED_MODEL}")
            self.loading = True
            client = await anyio.to_thread.run_sync(self._factory, self._settings, tell, abandon_on_cancel=True)
            self.loading = False
        _say(console, f"engine ready in {time.monotonic() - began:.1f} s")
        return client


def leave_now(code: int) -> NoReturn:
    """End the program although a thread is loading a model.

    A normal exit would wait for the thread, or tear the interpreter down under its C++ code, which aborts
    the process with another exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(code)


def _vllm(settings: EngineSettings, progress: Progress) -> ModelClient:
    from optillm_local.engine import VLLMClient

    return VLLMClient(settings, progress=progress)


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """Takes lines from any thread: a spinner on a terminal, else one line each."""
    if not console.is_interactive:
        yield lambda text: _say(console, f"engine: {text}")
        return
    with console.status("starting the engine") as status:
        yield lambda text: status.update(f"starting the engine: {escape(text)}")


def _say(console: Console, text: str) -> None:
    console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
