"""Conversations that grow out of a question, as far as the model's context and a budget reach."""

from __future__ import annotations

import math
import re

from optillm_local.confidence import Scorer
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.errors import BudgetExceeded, RequestRejected
from optillm_local.core.prompt import Prompt

_CONCLUDES = re.compile(r"\bfinal\s+answer\b|\\boxed\s*\{", re.IGNORECASE)


async def replies(client: ModelClient, asked: Prompt, question: Prompt, *, n: int = 1) -> list[Completion]:
    """Those of n replies that say something; none where what grew out of the question cannot grow on.

    Raises:
        RequestRejected, BudgetExceeded: not even the question itself can be asked.
    """
    try:
        sampled = await client.sample(asked, n=n)
    except (RequestRejected, BudgetExceeded):
        if len(asked.messages) == len(question.messages):
            raise
        return []
    return [one for one in sampled if one.text.strip()]


async def value(scorer: Scorer, asked: Prompt, reply: Completion, client: ModelClient) -> float:
    """The score of a reply in the conversation it answers; NaN where no room or budget is left to find out."""
    try:
        [score] = await scorer.score(asked, [reply], client)
    except (RequestRejected, BudgetExceeded):
        return math.nan
    return score


def concludes(reply: Completion) -> bool:
    """Whether a reply states a final answer, as steps of reasoning are asked to mark it."""
    return bool(_CONCLUDES.search(reply.text))
