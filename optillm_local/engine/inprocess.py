"""vLLM stepped by one thread of this process: no child process, no serialisation."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from vllm import EngineArgs
from vllm.inputs import tokens_input
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.llm_engine import LLMEngine

from optillm_local.engine.handle import EngineHandle, EngineRequest, deliver_to, refused

logger = logging.getLogger(__name__)

_engines = threading.Lock()  # one engine is released at a time


class InprocessHandle(EngineHandle):
    """An `LLMEngine` that only its own thread touches: it is built, stepped and torn down there.

    Commands wait in a queue that is emptied before every step, so whatever was submitted by then is in the
    same step, and an abort takes effect before the next one begins.
    """

    _alive = 0  # engines in this process

    def __init__(self, args: EngineArgs) -> None:
        super().__init__()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closing = False
        started: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(args, started), name="optillm-engine", daemon=True)
        self._thread.start()
        if failure := started.get():
            raise failure

    def _submit(self, requests: Sequence[EngineRequest]) -> None:
        self._commands.put(lambda: self._add(requests))

    def abort(self, ids: Sequence[str]) -> None:
        self._commands.put(lambda: self._engine.abort_request(list(ids)))

    def close(self) -> None:
        def stop() -> None:
            self._closing = True

        self._commands.put(stop)
        self._thread.join()

    # -- on the engine's thread ---------------------------------------------------------------------------------

    def _run(self, args: EngineArgs, started: queue.SimpleQueue[BaseException | None]) -> None:
        try:
            self._engine = LLMEngine.from_engine_args(
                args, usage_context=UsageContext.LLM_CLASS, stat_loggers=[self.counters]
            )
            self.config = self._engine.vllm_config
            self.tokenizer = self._engine.get_tokenizer()
        except BaseException as error:  # a panic in Rust code is no Exception, and the caller waits
            started.put(error)
            return
        with _engines:
            InprocessHandle._alive += 1
        started.put(None)
        reason = "it was closed"
        try:
            self._loop()
            self._engine.abort_request(list(self._live))
            self._flush()
        except BaseException as error:
            logger.exception("the engine failed")
            reason = f"{type(error).__name__}: {error}"
        self._end(f"the engine stopped: {reason}")
        self._release()

    def _release(self) -> None:
        """Free the engine; the state that vLLM keeps once per process goes with the last one."""
        core = self._engine.engine_core
        with _engines:
            InprocessHandle._alive -= 1
            if InprocessHandle._alive == 0:
                core.shutdown()
            else:
                core._finalizer.detach()  # it would end that state for the others
                core.engine_core.model_executor.shutdown()
        del self._engine

    def _loop(self) -> None:
        while not self._closing:
            if not self._engine.has_unfinished_requests():
                self._commands.get()()  # sleeps until there is something to do
            self._drain()
            if self._engine.has_unfinished_requests() and not self._closing:
                self._engine.step()  # each output leaves through `put` of its request
                self._flush()

    def _drain(self) -> None:
        while True:
            try:
                self._commands.get_nowait()()
            except queue.Empty:
                break
        self._flush()

    def _add(self, requests: Sequence[EngineRequest]) -> None:
        for request in requests:
            try:
                internal_id = self._engine.add_request(
                    request.id, tokens_input(request.token_ids), request.params, lora_request=request.lora
                )
            except Exception as error:  # this one is refused; its neighbours are unharmed
                self._engine.abort_request([request.id])  # it may be half registered
                request.put(refused(request, error))
            else:
                # With a queue in its state, vLLM hands over every output as it is made, the last one of an
                # aborted request included; without one, `step` returns outputs and an abort returns nothing.
                deliver_to(request, self._engine.output_processor.request_states[internal_id])
