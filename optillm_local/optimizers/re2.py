"""Re-reading: the question is put twice."""

from __future__ import annotations

from typing import ClassVar

from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.candidates import first_whole, selected, written
from optillm_local.prompts import render


@frozen_options
class ReReading(Optimizer):
    """One call in which the question stands twice, so that its first reading can attend to all of it.

    A causal model reads a question's beginning without its end; in the second pass it has both. The wording is the
    paper's. Of a conversation the last question is repeated.
    """

    name: ClassVar[str] = "re2"
    description: ClassVar[str] = "one call in which the question is read twice"
    source: ClassVar[str] = "Xu et al., Re-Reading Improves Reasoning in Large Language Models, 2023"

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        asked = prompt.instructed(render("re2/again", question=prompt.question)).step("reread")
        return selected(first_whole([await written(asked, client)]), "the only completion")
