"""GenSelect: all candidates are shown together, and the model says which one is best."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from optillm_local.confidence import Lineup, ScorerOption
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt
from optillm_local.optimizers.best_of_n import BestOfN


@frozen_options
class GenSelect(BestOfN):
    """Sample n answers at temperature 0.7, show them together, and return the one that is chosen.

    The choice is read and not generated: P(candidate i is the best), averaged over every order of a rotation, all
    orders side by side (`Lineup`). With scorer="genselect" a comparison is written first, as in the paper. So does
    codelion's optillm, once and in the order of sampling, and takes the first where it cannot parse the reply.
    """

    name: ClassVar[str] = "genselect"
    description: ClassVar[str] = "n answers in one batch; the one that is chosen when all are shown together"
    source: ClassVar[str] = "Toshniwal et al., GenSelect, 2025 (arXiv:2504.16891); optillm genselect"

    n: int = Field(default=4, ge=1, le=4096, description="answers to sample")
    temperature: float = Field(default=0.7, ge=0, le=2, description="of the answers")
    scorer: ScorerOption = Field(default=Lineup(), description="what the best is best by; a scorer")

    def prompts(self, prompt: Prompt) -> list[Prompt]:
        return prompt.but(temperature=self.temperature).fan(self.n)
