"""Deepthink: a reasoning plan for the question (SELF-DISCOVER), answers that follow it, and a vote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import ask, candidate, is_whole, said, selected
from optillm_local.optimizers.replies import json_values, numbered
from optillm_local.optimizers.voting import Poll, agreement
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
        greedy = asked.step("greedy", temperature=0.0)
        with span("answer"):
            poll, certain = await self._answers([*samples, greedy], client)
        if self._is_agreed(poll) or certain is None or not is_whole(certain):
            return await poll.elect(self.temperature)
        poll.keep(self.temperature)
        how = f"the greedy answer: only {poll.agreeing * self.n:g} of {self.n} samples agree"
        return selected(candidate(certain, greedy, "greedy", self.n), how)

    async def _answers(self, prompts: list[Prompt], client: ModelClient) -> tuple[Poll, Completion | None]:
        """The samples and the greedy answer, side by side; what cannot matter any more is aborted."""
        poll, certain = Poll(self.n, rule=agreement(self.threshold, self.n)), None
        async with client.generate(prompts, report_every=AT_THE_END) as group:
            async for index, event in group:
                if not isinstance(event, Completed):
                    continue
                if index == self.n:
                    certain = event.completion
                elif await poll.add(index, event.completion):
                    for needless in range(self.n + self._is_agreed(poll)):
                        group.stop(needless, poll.stopped)
        return poll, certain

    def _is_agreed(self, poll: Poll) -> bool:
        return poll.agreeing >= self.threshold


async def _discovered(prompt: Prompt, client: ModelClient) -> Mapping[str, Any]:
    """The plan that the model makes for the question. Where a reply is unusable, the step before stands in."""

    async def reply(step: str, at_most: int, **about: Any) -> str:
        asked = prompt.instructed(render(f"deepthink/{step}", **about))
        return said(await ask(asked.step(step, at_most=at_most, temperature=PLANNING_TEMPERATURE), client))

    chosen = _chosen(await reply("select", SELECT_TOKENS, modules=MODULES, most=MOST_MODULES))
    adapted = numbered(await reply("adapt", ADAPT_TOKENS, modules=chosen)) or chosen
    plans = json_values(await reply("implement", IMPLEMENT_TOKENS, modules=adapted))
    return next((plan for plan in plans if isinstance(plan, dict) and plan), PLAN)


def _chosen(reply: str) -> list[str]:
    """The modules whose numbers a reply lists, as JSON or in prose; without any, the first five."""
    lists = [found for found in json_values(reply) if isinstance(found, list)]
    listed = [int(digits) for digits in re.findall(r"\d{1,3}", str(lists[0]) if lists else reply)]
    numbers = [number for number in dict.fromkeys(listed) if 1 <= number <= len(MODULES)]
    return [MODULES[number - 1] for number in numbers[:MOST_MODULES] or range(1, 6)]
