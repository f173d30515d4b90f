"""Sequences that are being decoded, and the account that is kept of them."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from optillm_local.core.completion import Completed, Completion, ResponseEvent
from optillm_local.core.concurrency import UNNEEDED, why_stopped
from optillm_local.core.errors import EngineDead
from optillm_local.core.events import SequenceCompleted, SequenceStarted, StoppedEarly, TokensDecoded
from optillm_local.core.prompt import Prompt
from optillm_local.core.span import current_span, usage_record

logger = logging.getLogger(__name__)

EVERY_TOKEN, NOW_AND_THEN, AT_THE_END = 1, 8, 2**31 - 1
"""How many tokens may pass between two deltas of a sequence. The fewer, the more Python per token."""


class Generation(ABC):
    """Sequences that are being decoded side by side.

    Iterating gives (index, event) as they happen; every index ends with exactly one `Completed`.
    """

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> tuple[int, ResponseEvent]:
        """The next event of any sequence. May be cancelled and called again: no event is lost.

        A failure of one sequence is raised here once; the sequence still ends with a `Completed`.
        """

    @abstractmethod
    def stop(self, index: int | None = None, because: str = UNNEEDED) -> None:
        """End one sequence, or all: each still delivers its `Completed`, with what it had, as `abort`.

        This is the one way in which work that is decided ends, also where a `Stoppable` around it is stopped:
        `because` goes on the record.
        """


class AccountedGeneration(Generation, AbstractAsyncContextManager[Generation]):
    """A generation whose tokens are counted against the budgets and told to the run's listeners.

    A class and not a decorated generator: a half-read `stream` that the event loop closes late must not find
    further generators to close in the wrong order.
    """

    _inner: Generation

    def __init__(
        self,
        open_sequences: Callable[[Sequence[Prompt], int], AbstractAsyncContextManager[Generation]],
        prompts: Sequence[Prompt],
        report_every: int,
        clock: Callable[[], float],
        virtual_time: bool,
    ) -> None:
        here = current_span()
        here.check_budgets(clock())
        self._here, self._clock, self._virtual_time = here, clock, virtual_time
        self._prompts = [p.but(max_tokens=here.within_budgets(p.sampling.max_tokens)) for p in prompts]
        self._seen = [0] * len(prompts)
        self._running = set(range(len(prompts)))
        self._ending: set[int] = set()  # told to stop, and still to deliver their end
        self._ids = [here.run.new_id("sequence") for _ in prompts]
        if any(m.budget.tokens for m in here.meters) or here.run.watchers:
            report_every = min(report_every, NOW_AND_THEN)
        self._context = open_sequences(self._prompts, report_every)

    async def __aenter__(self) -> Self:
        self._inner = await self._context.__aenter__()
        for sequence_id, prompt in zip(self._ids, self._prompts, strict=True):
            self._here.run.emit(
                SequenceStarted(
                    span_id=self._here.id,
                    sequence_id=sequence_id,
                    log_tag=prompt.log_tag or "",
                    seed=prompt.sampling.seed,
                    temperature=prompt.sampling.temperature,
                )
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        failed = isinstance(error, Exception)
        await self._drain(f"{type(error).__name__} was raised" if failed else why_stopped())
        return await self._context.__aexit__(kind, error, trace)

    def stop(self, index: int | None = None, because: str = UNNEEDED) -> None:
        running = self._running if index is None else self._running & {index}
        ids = [self._ids[i] for i in sorted(running - self._ending)]
        self._ending |= running
        if ids:
            self._here.run.emit(StoppedEarly(span_id=self._here.id, sequence_ids=ids, reason=because))
            self._inner.stop(index, because)

    async def __anext__(self) -> tuple[int, ResponseEvent]:
        if not self._running:
            raise StopAsyncIteration
        await checkpoint_if_cancelled()  # events may be there without any waiting in which to notice
        left = math.inf if self._virtual_time else self._here.seconds_left(self._clock())
        with anyio.move_on_after(None if math.isinf(left) else left):
            return self._record(*await anext(self._inner))
        self._spend(0)  # time is up: end what runs, then hear what it had
        return self._record(*await anext(self._inner))

    async def _drain(self, because: str) -> None:
        """End what still runs and count it, even in a cancelled task: nothing decodes for nobody."""
        if not self._running:
            return
        self.stop(because=because)
        with anyio.CancelScope(shield=True):
            while self._running:
                try:
                    self._record(*await anext(self._inner))
                except EngineDead:  # nobody will report the rest
                    return
                except Exception:  # the failure of one sequence; the others still report
                    logger.debug("a sequence failed while its group was ending", exc_info=True)

    def _record(self, index: int, event: ResponseEvent) -> tuple[int, ResponseEvent]:
        if isinstance(event, Completed):
            if index in self._running:  # an engine that dies may report an end twice
                self._completed(index, event.completion)
        else:
            self._seen[index] += len(event.token_ids)
            self._spend(len(event.token_ids))
            if self._here.run.watchers:
                self._here.run.emit(
                    TokensDecoded(
                        span_id=self._here.id,
                        sequence_id=self._ids[index],
                        tokens=len(event.token_ids),
                        text=event.delta,
                    )
                )
        return index, event

    def _completed(self, index: int, completion: Completion) -> None:
        self._running.discard(index)
        self._spend(completion.usage.completion - self._seen[index])
        mean = completion.mean_logprob
        self._here.run.emit(
            SequenceCompleted(
                span_id=self._here.id,
                sequence_id=self._ids[index],
                log_tag=self._prompts[index].log_tag or "",
                finish_reason=completion.finish_reason,
                text=completion.text,
                mean_logprob=None if math.isnan(mean) else mean,
                usage=usage_record(completion.usage),
            )
        )

    def _spend(self, tokens: int) -> None:
        if self._here.spend(tokens, self._clock()):
            self.stop(because="the budget is spent")
