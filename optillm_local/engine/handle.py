"""One protocol for the two ways vLLM runs inside this program."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optillm_local.core.errors import EngineDead, RequestRejected
from optillm_local.engine.counters import Counters

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.config import VllmConfig
    from vllm.lora.request import LoRARequest


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One sequence for the engine.

    Attributes:
        id: unique among all requests.
        token_ids: the prompt.
        params: with n=1, always: vLLM's n=K saves no prefill and cannot abort one of the K.
        put: takes each output, or the exception that ended the request, on the engine's thread. The last output
            says `finished`, also after an abort. (The name is vLLM's: a request stands in for its output queue.)
        lora: adapter to apply.
    """

    id: str
    token_ids: list[int]
    params: SamplingParams
    put: Callable[[RequestOutput | Exception], None]
    lora: LoRARequest | None = None


def refused(request: EngineRequest, error: Exception) -> RequestRejected:
    """What a request is told that the engine does not take; vLLM says which value it minds.

    All but the form of the answer has been checked by then.
    """
    field = "response_format" if request.params.structured_outputs else "request"
    return RequestRejected(field, type(error).__name__, f"the engine refuses it: {error}")


def deliver_to(request: EngineRequest, state: Any) -> None:
    """Let vLLM hand the outputs of a request over as they are made.

    Its text is detokenised, but not each alternative of each token: nobody reads that, and it is most of the work
    (`benchmarks/free_wins.py`).
    """
    state.queue = request
    state.logprobs_processor.tokenizer = None


class EngineHandle(ABC):
    """An engine on a thread of its own. The public methods may be called from any thread."""

    config: VllmConfig
    tokenizer: Any

    def __init__(self) -> None:
        self.counters = Counters(self._flush)
        self._outbox: list[tuple[EngineRequest, RequestOutput | Exception]] = []
        self._live: dict[str, EngineRequest] = {}
        self._lock = threading.Lock()
        self._ended: EngineDead | None = None

    def submit(self, requests: Sequence[EngineRequest]) -> None:
        """Put requests into the engine together.

        Raises:
            EngineDead: the engine is gone; nothing was submitted.
        """
        with self._lock:  # nothing slips in behind `_end`
            if self._ended:
                raise self._ended
            self._live.update((request.id, self._tracked(request)) for request in requests)
            self._submit([self._live[request.id] for request in requests])

    def _tracked(self, request: EngineRequest) -> EngineRequest:
        """The request as vLLM gets it: its outputs leave at the end of the step that made them."""

        def put(output: RequestOutput | Exception) -> None:
            self._outbox.append((request, output))
            if isinstance(output, Exception):
                self._flush()

        return replace(request, put=put)

    def _flush(self) -> None:
        """Deliver what a step made, once the step is counted: who reads the last token reads its count too."""
        outbox, self._outbox = self._outbox, []
        for request, output in outbox:
            if isinstance(output, Exception) or output.finished:
                self._live.pop(request.id, None)
            request.put(output)

    def _end(self, reason: str) -> None:
        """The engine is gone: tell every waiting caller, and refuse what is asked from now on."""
        with self._lock:
            self._ended = EngineDead(reason)
        for request in list(self._live.values()):
            request.put(EngineDead(reason))

    @abstractmethod
    def _submit(self, requests: Sequence[EngineRequest]) -> None:
        """Hand requests to the engine's thread."""

    @abstractmethod
    def abort(self, ids: Sequence[str]) -> None:
        """End requests. Each still running delivers a last output with the tokens it had."""

    @abstractmethod
    def close(self) -> None:
        """End all requests and release the engine. Blocks until it is gone; a second call does nothing."""
