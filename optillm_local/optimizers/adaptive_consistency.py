"""Adaptive consistency: as many reasoning paths as the question needs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed
from optillm_local.core.concurrency import task_group
from optillm_local.core.errors import BudgetExceeded
from optillm_local.core.generation import AT_THE_END, Generation
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.voting import Poll, beta
from optillm_local.search.select import SETTLED


@frozen_options
class AdaptiveConsistency(Optimizer):
    """Self-consistency that goes on sampling until the majority is certain.

    `width` paths decode side by side. When one is finished and the majority is not yet the lasting one with
    probability `threshold` (Beta criterion), the next begins in its place; else those that still run are aborted.
    The paper samples one at a time, at most 40, with a threshold of 0.95. Four paths that agree are enough
    for that, so that width 8 wastes little and takes no longer than one path where the question is easy.
    """

    name: ClassVar[str] = "adaptive_consistency"
    description: ClassVar[str] = "reasoning paths until the majority is certain; few for an easy question"
    source: ClassVar[str] = "Aggarwal et al., Let's Sample Step by Step: Adaptive-Consistency, 2023"

    n: int = Field(default=40, ge=1, le=4096, description="most reasoning paths to sample")
    width: int = Field(default=8, ge=1, le=4096, description="paths to decode side by side")
    threshold: float = Field(
        default=SETTLED, gt=0.5, lt=1, description="probability that the majority lasts, at which sampling ends"
    )

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        poll = Poll(self.n, rule=partial(beta, threshold=self.threshold))
        waiting, running = enumerate(prompt.fan(self.n)), dict[int, Generation]()
        with span("generate"):
            try:
                async with task_group() as tasks:
                    for _ in range(min(self.width, self.n)):
                        tasks.start_soon(_sample, waiting, running, poll, client)
            except BudgetExceeded:
                if not poll.ballots:
                    raise
        return await poll.elect(prompt.sampling.temperature)


async def _sample(
    waiting: Iterator[tuple[int, Prompt]], running: dict[int, Generation], poll: Poll, client: ModelClient
) -> None:
    """Sample one path after the other, as long as more are needed: whether they are depends on those before."""
    for index, prompt in waiting:
        async with client.generate([prompt], report_every=AT_THE_END) as group:
            running[index] = group
            if poll.stopped:  # it was while this one began
                group.stop(because=poll.stopped)
            async for _, event in group:
                if isinstance(event, Completed) and await poll.add(index, event.completion):
                    for other in running.values():
                        other.stop(because=poll.stopped)
        del running[index]
        if poll.closed:
            break
