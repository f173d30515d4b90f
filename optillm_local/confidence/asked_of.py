"""Scores from another model: a judge or a reward model beside the one that answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from optillm_local.confidence.options import ScorerOption
from optillm_local.confidence.scorer import Scorer
from optillm_local.confidence.verdict import PCorrect
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.options import frozen_options
from optillm_local.core.prompt import Prompt


@frozen_options
class AskedOf(Scorer):
    """A scorer that asks `client` in the place of the model whose answers are scored.

    Token ids and adapters stay behind, because they mean nothing to another model. Scores that are measured on the
    tokens of an answer ask nobody, and are the same with any client.
    """

    name: ClassVar[str] = "asked_of"

    client: ModelClient = Field(description="the model that judges")
    scorer: ScorerOption = Field(default=PCorrect(), description="what it is asked")

    def __post_init__(self) -> None:
        for about in ("description", "comparative", "logprobs"):
            object.__setattr__(self, about, getattr(self.scorer, about))

    async def score(self, question: Prompt, candidates: Sequence[Completion], client: ModelClient) -> list[float]:
        messages = tuple(replace(one, token_ids=(), appended="") for one in question.messages)
        asked = replace(question, messages=messages, adapter=None)
        answers = [replace(one, token_ids=()) for one in candidates]
        return await self.scorer.score(asked, answers, self.client)
