"""One call: the baseline every other optimizer is measured against."""

from __future__ import annotations

from typing import ClassVar

from optillm_local.answers import extract_answer
from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import keep, span


@frozen_options
class Single(Optimizer):
    """One completion, returned as it is."""

    name: ClassVar[str] = "single"
    description: ClassVar[str] = "one completion, returned as it is: the baseline"

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        with span("generate"):
            [completion] = await client.sample(prompt)
        stated = extract_answer(completion.text)
        return keep(
            Solution.of(
                completion,
                phase="generate",
                temperature=prompt.sampling.temperature,
                metadata={"selection": "the only completion", "stated_answer": stated},
            )
        )
