"""Mixture of agents: several answer, one criticises, one writes the final answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.core.span import span
from optillm_local.optimizers.candidates import ask, candidate, first_whole, ids, said, selected, written
from optillm_local.prompts import render

CRITIQUE_TOKENS = 512
"""Most tokens of the critique; codelion's."""


@frozen_options
class MixtureOfAgents(Optimizer):
    """n proposers answer side by side, a critic compares their answers, and one writes the final answer.

    With more layers, the proposers of each further layer see all answers of the layer before (Wang et al., section
    2.2, equation 1); the critique is of the last layer. One layer, n=3 and a temperature of 0.1 for critic and
    writer are codelion's optillm. Where that pads with copies if a proposer says nothing, ours goes on with fewer.
    """

    name: ClassVar[str] = "moa"
    description: ClassVar[str] = "n proposers in any number of layers, a critique, and a synthesis"
    source: ClassVar[str] = "Wang et al., Mixture-of-Agents Enhances Large Language Model Capabilities, 2024"

    n: int = Field(default=3, ge=1, le=256, description="proposers in each layer")
    layers: int = Field(default=1, ge=1, le=64, description="layers of proposers")
    temperature: float = Field(default=0.1, ge=0, le=2, description="of the critique and the synthesis")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        prompt = Prompt.of(query)
        proposals: list[Solution] = []
        for layer in range(self.layers):  # each layer reads the one before
            proposals = await self._layer(layer, prompt, proposals, client) or proposals
        first_whole(proposals)  # raises if there is nothing to go on with
        critique = await self._critique(prompt, proposals, client)
        final = await self._synthesis(prompt, proposals, critique, client)
        best = first_whole([final, *proposals])
        how = f"a synthesis of {len(proposals)} proposals" + (" and their critique" if critique else "")
        return selected(best, how if best is final else f"the first of {len(proposals)} proposals: no synthesis")

    async def _layer(
        self, layer: int, prompt: Prompt, earlier: Sequence[Solution], client: ModelClient
    ) -> list[Solution]:
        asked = prompt.instructed(_with(earlier, "propose")) if earlier else prompt
        asked = asked.step("propose", layer)
        with span("propose"):
            proposals = [
                candidate(completion, asked, "propose", agent, parents=ids(earlier))
                for agent, completion in enumerate(await client.sample(asked, n=self.n))
            ]
        return [one for one in proposals if one.answer]

    async def _critique(self, prompt: Prompt, proposals: Sequence[Solution], client: ModelClient) -> str:
        asked = prompt.instructed(_with(proposals, "critique"))
        asked = asked.step("critique", at_most=CRITIQUE_TOKENS, temperature=self.temperature)
        return said(await ask(asked, client))

    async def _synthesis(
        self, prompt: Prompt, proposals: Sequence[Solution], critique: str, client: ModelClient
    ) -> Solution:
        asked = prompt.instructed(_with(proposals, "synthesize", critique=critique))
        return await written(asked.step("synthesize", temperature=self.temperature), client, *proposals)


def _with(proposals: Sequence[Solution], step: str, **more: str) -> str:
    return render(f"moa/{step}", candidates=[one.answer for one in proposals], **more)
