"""Majority voting: self-consistency with more paths, drawn cooler."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optillm_local.core.client import ModelClient
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.core.solution import Solution
from optillm_local.optimizers.self_consistency import SelfConsistency


@frozen_options
class MajorityVoting(SelfConsistency):
    """Self-consistency over 8 paths at temperature 0.6, the defaults of codelion's plugin of this name.

    There self-consistency compares whole texts, and only this plugin looks for the answers they state; ours always
    does. Unlike there, equal numbers are one answer however they are written, and the answer is what is stated and
    not the whole first path that states it.
    """

    name: ClassVar[str] = "majority_voting"
    description: ClassVar[str] = "self_consistency with 8 paths at temperature 0.6"
    source: ClassVar[str] = "optillm majority_voting; Wang et al. 2022"

    n: int = Field(default=8, ge=1, le=4096, description="reasoning paths to sample")
    temperature: float = Field(default=0.6, ge=0, le=2, description="of the paths")

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        return await super().optimize(Prompt.of(query, temperature=self.temperature), client)
