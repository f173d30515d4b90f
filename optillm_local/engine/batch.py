"""A group of requests that entered the engine together, read from an event loop."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from optillm_local.core.errors import ClientError, EngineDead
from optillm_local.core.mailbox import Mailbox
from optillm_local.engine.handle import EngineHandle, EngineRequest

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest

_ids = itertools.count()


class Batch:
    """Submits its requests when it is made, those of one prompt (the same list of ids) next to each other.

    Neighbours in the batch read their shared keys and values one after the other, while a cache still holds them.
    """

    def __init__(
        self,
        handle: EngineHandle,
        prompts: Sequence[list[int]],
        params: Sequence[SamplingParams],
        loras: Sequence[LoRARequest | None],
    ) -> None:
        self._handle = handle
        self._ids = [f"optillm-{next(_ids)}" for _ in prompts]
        self._mailbox: Mailbox[tuple[int, RequestOutput | Exception]] = Mailbox()
        place: dict[int, int] = {}
        for index, ids in enumerate(prompts):
            place.setdefault(id(ids), index)
        order = sorted(range(len(prompts)), key=lambda index: place[id(prompts[index])])
        handle.submit(
            [
                EngineRequest(self._ids[i], list(prompts[i]), params[i], partial(self._put, i), loras[i])
                for i in order
            ]
        )

    def _put(self, index: int, output: RequestOutput | Exception) -> None:
        self._mailbox.put_from_thread((index, output))

    def abort(self, index: int | None = None) -> None:
        """End one request, or all; each that still runs delivers a last output."""
        self._handle.abort(self._ids if index is None else [self._ids[index]])

    async def next(self) -> tuple[int, RequestOutput | ClientError]:
        """The next output of any request, or what ended it: EngineDead, or RequestRejected by the engine."""
        index, output = await self._mailbox.get()
        return index, _translated(output) if isinstance(output, Exception) else output

    async def finish(self) -> list[RequestOutput]:
        """The last output of each request. If this is cancelled, or one request fails, the others are ended."""
        last: dict[int, RequestOutput] = {}
        try:
            while len(last) < len(self._ids):
                index, output = await self.next()
                if isinstance(output, ClientError):
                    raise output
                if output.finished:
                    last[index] = checked(output)
        finally:
            if len(last) < len(self._ids):
                self.abort()
        return [last[index] for index in range(len(self._ids))]


def checked(output: RequestOutput) -> RequestOutput:
    """The output, if the engine did not give up on its request.

    Raises:
        ClientError: it did, for reasons of its own; other requests go on.
    """
    if output.outputs[0].finish_reason == "error":
        raise ClientError(f"the engine gave up on a request: {output.outputs[0].stop_reason or 'see its log'}")
    return output


def _translated(error: Exception) -> ClientError:
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, ClientError):
        return error
    if isinstance(error, EngineDeadError):
        return EngineDead("the engine's process ended; its log says why")
    return EngineDead(f"the engine failed: {type(error).__name__}: {error}")
