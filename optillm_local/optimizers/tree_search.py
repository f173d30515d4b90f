"""What tree searches share: replies that may not come, what they are worth, and visits that overlap."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from optillm_local.confidence import Scorer
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.concurrency import task_group
from optillm_local.core.errors import OptillmError, RequestRejected
from optillm_local.core.prompt import Prompt
from optillm_local.core.thinking import split_thinking
from optillm_local.optimizers.draft import AT_AN_END

T = TypeVar("T")
R = TypeVar("R")

_CONCLUDES = re.compile(
    r"\bfinal\s+answer(?:[*_`\s]*:|\s+is\b|[*_ \t]*$)|\\boxed\s*\{", re.IGNORECASE | re.MULTILINE
)


async def visits(
    n: int,
    parallel: int,
    select: Callable[[int], Sequence[T]],
    visit: Callable[[T], Awaitable[R]],
    tell: Callable[[T, R], None],
) -> None:
    """n visits of a tree, up to `parallel` side by side, told in the order in which they were selected.

    Once the first of those under way is told, the next begins, however long the others take. What it is selected
    by, all visits before those still under way, does not depend on how long any took: a seed repeats the search.

    Args:
        select: up to so many items to visit, apart from those under way.
    """
    begun: list[anyio.Event] = []

    async with task_group() as tasks:

        def begin(told: int) -> None:
            room = min(parallel - (len(begun) - told), n - len(begun))
            for item in select(room):
                tasks.start_soon(run, len(begun), item)
                begun.append(anyio.Event())

        async def run(number: int, item: T) -> None:
            result = await visit(item)
            if number:
                await begun[number - 1].wait()
            tell(item, result)
            begin(number + 1)
            begun[number].set()

        begin(0)


async def replies(
    client: ModelClient,
    asked: Prompt,
    question: Prompt,
    *,
    n: int = 1,
    ends: tuple[type[OptillmError], ...] = (RequestRejected,),
) -> list[Completion]:
    """Those of n replies that say something; none where what grew out of the question cannot grow on.

    Args:
        ends: the errors that end it: no room in the model's context, or a spent budget too (`AT_AN_END`).

    Raises:
        RequestRejected, BudgetExceeded: not even the question itself can be asked.
    """
    try:
        sampled = await client.sample(asked, n=n)
    except ends:
        if len(asked.messages) == len(question.messages):
            raise
        return []
    return [one for one in sampled if one.text.strip()]


async def value(scorer: Scorer, asked: Prompt, reply: Completion, client: ModelClient) -> float:
    """The score of a reply in the conversation it answers; NaN where no room or budget is left to find out."""
    try:
        [score] = await scorer.score(asked, [reply], client)
    except AT_AN_END:
        return math.nan
    return score


def concludes(reply: Completion) -> bool:
    """Whether a reply states a final answer, as steps of reasoning are asked to mark it; thoughts do not count."""
    return bool(_CONCLUDES.search(split_thinking(reply.text, opened=bool(reply.reasoning)).answer))
