"""Deepthink: a reasoning plan for the question (SELF-DISCOVER), answers that follow it, and a vote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.generation import AT_THE_END, Generation
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import keep, span
from optillm_local.optimizers.candidates import candidate, first_whole, is_whole, said, selected
from optillm_local.optimizers.replies import json_values, numbered
from optillm_local.optimizers.voting import Poll, never
from optillm_local.prompts import render

MODULES = tuple(render("deepthink/modules").splitlines())
"""Ways of reasoning to choose from: the 39 seed modules of Zhou et al., 2024, table 2, in short."""

MOST_MODULES = 7
"""Modules that a plan is made of, at most."""

PLANNING_TEMPERATURE = 0.3
SELECT_TOKENS, ADAPT_TOKENS, IMPLEMENT_TOKENS = 1024, 2048, 2048
"""Of the calls that make the plan; codelion's."""

PLAN = {
    "understanding": "say what is asked and what is given",
    "approach": "choose a way to solve it",
    "steps": "carry it out step by step",
    "check": "see whether the result is right",
    "answer": "state the final answer",
}
"""Followed if the model does not write a plan of its own."""


@frozen_options
class DeepThink(Optimizer):
    """Composes a plan for the question, samples answers that follow it, and votes; unsure, it answers greedily.

    The plan is SELF-DISCOVER's: select ways of reasoning, adapt them to the question, implement them as JSON. The
    greedy answer is written beside the samples, and counts if too few of them agree (uncertainty-routed chain of
    thought; Gemini report, 2023). Once enough agree, or can no longer, what cannot matter is aborted.

    Samples, temperatures and top_p are codelion's optillm's. Its confidence, held against 0.7, mixes the vote with
    the likeness of texts; two equal answers of three mostly pass. Ours is the share of the vote, against 0.6.
    """

    name: ClassVar[str] = "deepthink"
    description: ClassVar[str] = (
        "a reasoning plan for the question, samples that follow it, a vote or a greedy answer"
    )
    source: ClassVar[str] = (
        "Zhou et al., Self-Discover: LLMs Self-Compose Reasoning Structures, 2024; optillm deepthink"
    )

    n: int = Field(default=3, ge=1, le=256, description="answers to sample beside the greedy one")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of the samples")
    top_p: float = Field(default=0.95, gt=0, le=1, description="nucleus of the samples")
    threshold: float = Field(default=0.6, ge=0, le=1, description="share of the samples that have to agree")
    discover: bool = Field(default=True, description="compose a plan; if not, a fixed one is followed")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        plan = await _discovered(prompt, client) if self.discover else PLAN
        asked = prompt.instructed(
            render("deepthink/solve", structure=json.dumps(plan, indent=2, ensure_ascii=False))
        )
        samples = asked.step("sample", temperature=self.temperature, top_p=self.top_p).fan(self.n)
        route = _Route(self, asked.step("greedy", temperature=0.0))
        with span("answer"):
            async with client.generate([*samples, route.greedy], report_every=AT_THE_END) as group:
                await route.hear(group)
        return await route.taken()


async def _discovered(prompt: Prompt, client: ModelClient) -> Mapping[str, Any]:
    """The plan that the model makes for the question. Where a reply is unusable, the step before stands in."""

    async def ask(step: str, at_most: int, **about: Any) -> str:
        asked = prompt.instructed(render(f"deepthink/{step}", **about))
        with span(step):
            [reply] = await client.sample(asked.step(step, at_most=at_most, temperature=PLANNING_TEMPERATURE))
        return said(reply)

    chosen = _chosen(await ask("select", SELECT_TOKENS, modules=MODULES, most=MOST_MODULES))
    adapted = numbered(await ask("adapt", ADAPT_TOKENS, modules=chosen)) or chosen
    plans = json_values(await ask("implement", IMPLEMENT_TOKENS, modules=adapted))
    return next((plan for plan in plans if isinstance(plan, dict) and plan), PLAN)


def _chosen(reply: str) -> list[str]:
    """The modules whose numbers a reply lists, as JSON or in prose; without any, the first five."""
    lists = [found for found in json_values(reply) if isinstance(found, list)]
    listed = [int(digits) for digits in re.findall(r"\d{1,3}", str(lists[0]) if lists else reply)]
    numbers = [number for number in dict.fromkeys(listed) if 1 <= number <= len(MODULES)]
    return [MODULES[number - 1] for number in numbers[:MOST_MODULES] or range(1, 6)]


class _Route:
    """The samples and the greedy answer of one run, and which of them is the answer."""

    def __init__(self, options: DeepThink, greedy: Prompt) -> None:
        self._options, self.greedy = options, greedy
        self._poll = Poll(options.n, rule=never)
        self._certain: Completion | None = None

    async def hear(self, group: Generation) -> None:
        """Take the answers as they finish, and abort those that cannot matter any more."""
        async for index, event in group:
            if not isinstance(event, Completed):
                continue
            if index == self._options.n:
                self._certain = event.completion
                continue
            await self._poll.add(index, event.completion)
            if self._agreeing >= self._enough:
                self._stop(group, range(self._options.n + 1), "enough samples agreed")
            elif self._agreeing + self._poll.outstanding < self._enough:
                self._stop(group, range(self._options.n), "too few samples could still agree")

    async def taken(self) -> Solution:
        """The vote's answer if enough samples agree, or if there is no greedy one; else that."""
        if self._agreeing >= self._enough or not self._certain or not is_whole(self._certain):
            return first_whole([await self._poll.elect(self._options.temperature)])
        for ballot in self._poll.ballots:
            keep(ballot.solution(self._poll.tally(), self._options.temperature))
        how = f"the greedy answer: only {self._agreeing:g} of {self._options.n} samples agree"
        return selected(candidate(self._certain, self.greedy, "greedy", self._options.n), how)

    @property
    def _agreeing(self) -> float:
        return max(self._poll.tally().totals.values(), default=0.0)

    @property
    def _enough(self) -> float:
        return self._options.threshold * self._options.n

    def _stop(self, group: Generation, indices: Iterable[int], because: str) -> None:
        self._poll.stopped = self._poll.stopped or because
        for index in indices:
            group.stop(index, because)
