"""Candidates are ranked by a scorer: the best one, and what stands behind it without a score."""

import math
from collections.abc import Mapping, Sequence

import pytest

from optillm_local import Prompt, ScriptedClient, Solution
from optillm_local.clients import Reply
from optillm_local.confidence import scorer
from optillm_local.core.errors import NoSolutions
from optillm_local.core.span import open_run
from optillm_local.optimizers.candidates import candidate
from optillm_local.optimizers.ranking import Ranking, best_of

QUESTION = Prompt.of("What is 3 * 4?", seed=0)


def longest(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    """The longer an answer the more it is liked, by itself and against another."""
    *_, asked = prompt.messages
    if options[0] == "A":
        _, first, second = (part.split("\n\n")[0] for part in asked.content.split("Answer ")[:3])
        return {"A": len(first) / (len(first) + len(second)), "B": len(second) / (len(first) + len(second))}
    return {
        "Yes": 1 - 1 / (1 + len(prompt.messages[-2].content)),
        "No": 1 / (1 + len(prompt.messages[-2].content)),
    }


async def made(reply: str | Reply, max_tokens: int = 1024) -> Solution:
    asked = QUESTION.but(max_tokens=max_tokens)
    [completion] = await ScriptedClient([reply]).sample(asked)
    return candidate(completion, asked, "test")


@pytest.mark.parametrize("name", ["verifier", "pairwise"])
async def test_the_best_is_found_by_scores_of_each_or_by_comparing_all(name: str) -> None:
    texts = ["a", "", "long", "bb", "<think>longest of all"]
    with open_run() as run:
        best = await best_of(
            5, lambda n: made(texts[n]), scorer(name), QUESTION, ScriptedClient([], choices=longest)
        )
    assert best.answer == "long" and best.metadata["selection"].endswith("; 1 not judged")
    judged = {one.answer for one in run.solutions if not math.isnan(one.verification_score)}
    assert judged == {"a", "long", "bb"}


@pytest.mark.parametrize(
    ("replies", "best"),
    [
        ([Reply("x y z", -0.1), Reply("x", -2.0), Reply("y", -1.0)], "y"),  # the first is cut off
        ([Reply("x", -1.0), Reply("y", -1.0)], "x"),
        ([Reply("x y z", -2.0), Reply("y z x", -1.0)], "y z"),
    ],
)
async def test_of_equal_scores_a_whole_one_wins_then_the_likeliest_then_the_first(
    replies: list[Reply], best: str
) -> None:
    ranking = Ranking(scorer("verifier"), QUESTION, ScriptedClient([]))
    for place, reply in enumerate(replies):
        await ranking.enter(place, await made(reply, max_tokens=2))
    assert (await ranking.best()).answer == best


async def test_without_a_candidate_that_says_anything_there_is_no_best() -> None:
    ranking = Ranking(scorer("verifier"), QUESTION, ScriptedClient([]))
    await ranking.enter(0, await made(""))
    with pytest.raises(NoSolutions, match="max_tokens"):
        await ranking.best()
