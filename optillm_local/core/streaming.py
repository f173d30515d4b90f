"""The short way to a backend: write one async generator, get every verb of `ModelClient`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, OutputTextDelta, ResponseEvent, Transcript
from optillm_local.core.concurrency import UNNEEDED, Stoppable, task_group
from optillm_local.core.generation import Generation
from optillm_local.core.mailbox import Mailbox
from optillm_local.core.prompt import Prompt


class StreamingClient(ModelClient):
    """A backend that decodes one sequence per request: `_stream` is all there is to write."""

    @abstractmethod
    def _stream(self, prompt: Prompt) -> AsyncGenerator[ResponseEvent, None]:
        """Deltas of one sequence, then `Completed`. Closing the generator ends the request."""

    def _count(self, prompt: Prompt) -> int:
        """Tokens of a prompt, for sequences that end before the backend reported them; 0 if unknown."""
        return 0

    @asynccontextmanager
    async def _open(self, prompts: Sequence[Prompt], report_every: int) -> AsyncIterator[Generation]:
        streams = [_OneStream(self._stream(p), self._count(p), p.sampling.seed) for p in prompts]
        if len(streams) == 1:  # no task group: `stream` may be left half-read, and closed by another task
            yield streams[0]
            return
        async with task_group() as tasks:
            group = _ManyStreams(streams)
            for index in range(len(streams)):
                tasks.start_soon(group.pump, index)
            try:
                yield group
            finally:
                tasks.cancel_scope.cancel()


class _OneStream(Generation):
    """One stream. Whatever ends it, `Completed` is delivered, with what there was."""

    def __init__(self, stream: AsyncGenerator[ResponseEvent, None], prompt_tokens: int, seed: int | None) -> None:
        self._stream, self._prompt_tokens, self._seed = stream, prompt_tokens, seed
        self._transcript = Transcript()
        self._stopped = False
        self._reading = Stoppable()

    def stop(self, index: int | None = None, because: str = UNNEEDED) -> None:
        self._stopped = True
        self._reading.stop(because)  # where another task waits for an event that may be far away

    async def __anext__(self) -> tuple[int, ResponseEvent]:
        event: ResponseEvent | None = None
        if not self._stopped:
            with Stoppable() as self._reading:
                event = await anext(self._stream, None)  # None: it was cancelled while it decoded
        if isinstance(event, OutputTextDelta):
            self._transcript.add(event)
        elif isinstance(event, Completed):
            await self._close()
        return 0, event or await self.abort()

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._stream.aclose()

    async def abort(self) -> Completed:
        """End the request; what was decoded so far."""
        await self._close()
        return Completed(self._transcript.finish("abort", prompt_tokens=self._prompt_tokens, seed=self._seed))


class _ManyStreams(Generation):
    """Several streams, each read by its own task, delivered through one mailbox."""

    def __init__(self, streams: Sequence[_OneStream]) -> None:
        self._streams = streams
        self._scopes = [Stoppable() for _ in streams]
        self._mailbox: Mailbox[tuple[int, ResponseEvent] | Exception] = Mailbox()

    async def pump(self, index: int) -> None:
        """Read one stream to its end."""
        stream, ended = self._streams[index], False
        try:
            with self._scopes[index]:
                while not ended:
                    _, event = await anext(stream)
                    ended = isinstance(event, Completed)
                    self._mailbox.put((index, event))
        except Exception as error:
            self._mailbox.put(error)
        finally:
            if not ended:
                self._mailbox.put((index, await stream.abort()))

    def stop(self, index: int | None = None, because: str = UNNEEDED) -> None:
        for scope in self._scopes if index is None else [self._scopes[index]]:
            scope.stop(because)

    async def __anext__(self) -> tuple[int, ResponseEvent]:
        item = await self._mailbox.get()
        if isinstance(item, Exception):
            raise item
        return item
