"""The short way to a backend: write one async generator, get every verb of `ModelClient`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio

from optillm_local.core.client import Generation, ModelClient
from optillm_local.core.completion import Completed, OutputTextDelta, ResponseEvent, Transcript
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
        async with anyio.create_task_group() as tasks:
            group = _Streams(len(prompts))
            for index, prompt in enumerate(prompts):
                tasks.start_soon(group.pump, index, self._stream(prompt), self._count(prompt), prompt.sampling.seed)
            try:
                yield group
            finally:
                tasks.cancel_scope.cancel()


class _Streams(Generation):
    """Several streams, read through one mailbox."""

    def __init__(self, n: int) -> None:
        self._scopes = [anyio.CancelScope() for _ in range(n)]
        self._mailbox: Mailbox[tuple[int, ResponseEvent] | Exception] = Mailbox()

    async def pump(
        self, index: int, stream: AsyncGenerator[ResponseEvent, None], prompt_tokens: int, seed: int | None
    ) -> None:
        """Read one stream to its end. Whatever ends it, `Completed` is delivered, with what there was."""
        transcript = Transcript()
        ended = False
        try:
            with self._scopes[index]:
                async for event in stream:
                    if isinstance(event, OutputTextDelta):
                        transcript.add(event)
                    ended = isinstance(event, Completed)
                    self._mailbox.put((index, event))
        except Exception as error:
            self._mailbox.put(error)
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            if not ended:
                partial = transcript.finish("abort", prompt_tokens=prompt_tokens, seed=seed)
                self._mailbox.put((index, Completed(partial)))

    def stop(self, index: int | None = None) -> None:
        for scope in self._scopes if index is None else [self._scopes[index]]:
            scope.cancel()

    async def __anext__(self) -> tuple[int, ResponseEvent]:
        item = await self._mailbox.get()
        if isinstance(item, Exception):
            raise item
        return item
