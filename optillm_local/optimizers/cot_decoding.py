"""Chain-of-thought decoding: start with each of the likeliest first tokens, trust the answer that is surest."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence.measures import margin, mean_over
from optillm_local.confidence.spans import answer_tokens
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completed, Completion
from optillm_local.core.generation import AT_THE_END
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.core.usage import TokenUsage
from optillm_local.optimizers.draft import Draft
from optillm_local.optimizers.voting import Poll, never


@frozen_options
class CotDecoding(Optimizer):
    """Continue from each of the k likeliest first tokens; paths that reason show in how sure their answer is.

    One step reads the first tokens; then all k paths are decoded side by side, each from its own. A path counts
    with the difference in probability of its two likeliest tokens, averaged over the tokens of its answer, and
    equal answers add up. codelion's optillm decodes the paths one after the other, averages over all tokens, in
    which the answer drowns, and adds up only texts that are equal as a whole.
    """

    name: ClassVar[str] = "cot_decoding"
    description: ClassVar[str] = "a path from each of k first tokens; the answer with the widest token margins"
    source: ClassVar[str] = "Wang and Zhou, Chain-of-Thought Reasoning Without Prompting, 2024"

    k: int = Field(default=10, ge=2, le=20, description="first tokens to start from")
    aggregate: bool = Field(default=True, description="add up equal answers, or take the single surest path")
    temperature: float = Field(default=0.0, ge=0, le=2, description="of what follows the first token")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query).measured(2)
        with span("branch"):
            drafts = await self._branches(Draft.of(prompt, client))
        poll = Poll(len(drafts), weigh=lambda path: _sureness(path, client), rule=never)
        with span("continue"):
            asked = [
                draft.asked("continue", rank, temperature=self.temperature) for rank, draft in enumerate(drafts)
            ]
            async with client.generate(asked, report_every=AT_THE_END) as group:
                async for index, event in group:
                    if isinstance(event, Completed):
                        await poll.add(index, drafts[index].then(event.completion).completion)
        if not self.aggregate and poll.ballots:
            surest = max(poll.ballots, key=lambda one: (one.choice is not None, one.weight))
            poll.reweigh(lambda one: one.weight if one is surest else 0.0)
        return await poll.elect(self.temperature)

    async def _branches(self, empty: Draft) -> list[Draft]:
        """A draft from each first token; the empty one alone if none can be had."""
        first = empty.asked("branch", at_most=1, temperature=0.0, logprobs=self.k)
        [read] = await empty.client.sample(first)
        alternatives = read.top_logprobs[0][: self.k] if read.top_logprobs else ()
        sure = read.statistics and read.statistics[:1]
        begun = [
            Completion(text, (token,), "stop", TokenUsage(), (logprob,), read.top_logprobs[:1], sure)
            for token, logprob in alternatives
            if (text := empty.client.decode((token,)))  # a token that ends the answer starts none
        ]
        return [empty.then(piece) for piece in begun] or [empty]


def _sureness(path: Completion, client: ModelClient) -> float:
    """Mean margin over the tokens of the stated answer, over all where it is nowhere in the text; 0 if unknown."""
    sure = mean_over(margin(path), answer_tokens(path, client))
    return 0.0 if math.isnan(sure) else sure
