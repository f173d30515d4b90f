"""Verifiers of MARS may judge by any scorer that gives a probability."""

from collections.abc import Mapping, Sequence

import pytest

from optillm_local import Prompt, ScriptedClient, asolve, create
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.optimizers.mars import MarsConfig

QUESTION = Prompt.of("What is 3 * 4?", system="Be brief.", seed=0, max_tokens=5000)


def says(prompt: Prompt) -> str:
    if not (prompt.log_tag or "").startswith("explore"):
        return "Seems fine."
    return "so so Final answer: " + ("13" if prompt.log_tag == "explore agent-1" else "12")


def grades(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    right = any(m.role == "assistant" and m.content.endswith("12") for m in prompt.messages)
    best = {"Yes": "Yes", "T": "T"} if right else {"Yes": "No", "T": "A"}
    return {option: float(option == best[max(set(options) & set(best))]) for option in options}


@pytest.mark.parametrize("scorer", ["verifier", "levels", "votes", {"name": "levels", "criteria": ["it is 12"]}])
async def test_a_scorer_in_the_place_of_reviews_verifies_what_it_finds_right(scorer: object) -> None:
    client = ScriptedClient(says, choices=grades)
    result = await asolve(QUESTION, create("mars", scorer=scorer, agents=3, max_iterations=0), client=client)
    verified = {one.agent_id: one.is_verified for one in result.solutions}
    assert verified == {"agent-0": True, "agent-1": False, "agent-2": True}
    assert result.answer == "12"


@pytest.mark.parametrize(
    ("scorer", "why"), [("tournament", "compares candidates"), ("logprob", "not between 0 and 1")]
)
def test_a_scorer_that_gives_no_verdict_on_one_solution_is_refused(scorer: str, why: str) -> None:
    with pytest.raises(InvalidConfiguration, match=why):
        MarsConfig(scorer=scorer)
