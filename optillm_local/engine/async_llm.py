"""vLLM in a process of its own, spoken to from an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence

from vllm import AsyncEngineArgs
from vllm.inputs import tokens_input
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from optillm_local.engine.handle import EngineHandle, EngineRequest, deliver_to, refused

logger = logging.getLogger(__name__)

_SHUTDOWN_S = 10.0  # how long the engine's process may take to end before it is killed


class AsyncHandle(EngineHandle):
    """An `AsyncLLM`. Commands are carried out one after the other, so that no abort overtakes its submission."""

    def __init__(self, args: AsyncEngineArgs) -> None:
        super().__init__()
        self._commands: asyncio.Queue[Callable[[], Awaitable[None]] | None] = asyncio.Queue()
        started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(args, started), name="optillm-engine", daemon=True)
        self._thread.start()
        if failure := started.get():
            raise failure

    def _submit(self, requests: Sequence[EngineRequest]) -> None:
        self._command(lambda: self._add(requests))

    def abort(self, ids: Sequence[str]) -> None:
        self._command(lambda: self._engine.abort(list(ids)))

    def close(self) -> None:
        self._command(None)
        self._thread.join()

    def _command(self, command: Callable[[], Awaitable[None]] | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the engine has ended and told everybody
            self._loop.call_soon_threadsafe(self._commands.put_nowait, command)

    # -- on the engine's thread ---------------------------------------------------------------------------------

    def _run(self, args: AsyncEngineArgs, started: queue.SimpleQueue[BaseException | None]) -> None:
        async def main() -> None:
            try:
                self._loop = asyncio.get_running_loop()
                self._engine = AsyncLLM.from_engine_args(
                    args, usage_context=UsageContext.LLM_CLASS, stat_loggers=[self.counters]
                )
                self.config = self._engine.vllm_config
                self.tokenizer = self._engine.get_tokenizer()
            except BaseException as error:  # a panic in Rust code is no Exception, and the caller waits
                started.put(error)
                return
            started.put(None)
            reason = "it was closed"
            try:
                await self._serve()
                await self._engine.abort(list(self._live))
                self._flush()
            except BaseException as error:
                logger.exception("the engine failed")
                reason = f"{type(error).__name__}: {error}"
            self._end(f"the engine stopped: {reason}")
            if handler := self._engine.output_handler:
                handler.cancel()  # or it would report the end of the engine's process as a failure
            await asyncio.to_thread(self._engine.shutdown, _SHUTDOWN_S)

        asyncio.run(main())

    async def _serve(self) -> None:
        while command := await self._commands.get():
            await command()
            self._flush()

    async def _add(self, requests: Sequence[EngineRequest]) -> None:
        for request in requests:
            try:
                collector = await self._engine.add_request(
                    request.id, tokens_input(request.token_ids), request.params, lora_request=request.lora
                )
            except Exception as error:  # this one is refused; its neighbours are unharmed
                if self._engine.errored:
                    raise
                await self._engine.abort([request.id])  # it may be half registered
                request.put(refused(request, error))
                continue
            # Outputs go straight to the reader instead of through a collector and one task per request.
            state = self._engine.output_processor.request_states.get(collector.request_id)
            if state is not None:
                deliver_to(request, state)
            if (early := collector.get_nowait()) is not None:
                request.put(early)
