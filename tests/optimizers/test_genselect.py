"""GenSelect returns the candidate that is chosen when all are shown together, in whatever place."""

import re
from collections.abc import Mapping, Sequence

import pytest

from optillm_local import Prompt, ScriptedClient
from optillm_local.optimizers.genselect import GenSelect

QUESTION = Prompt.of("What is 3 * 4?", seed=0)
STEPS = 4


def answers(prompt: Prompt) -> str:
    """Candidates 0 to 3 differ; written comparisons are as long."""
    return (
        f"The answer is {10 + (prompt.sampling.seed or 0)}."
        if prompt.log_tag is None
        else "All differ in something."
    )


def prefers(answer: int, first_place: float = 0.5) -> object:
    """The model that likes an answer, and the first place."""

    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        shown = re.findall(r"The answer is (\d+)", "".join(m.content for m in prompt.messages))
        return {
            option: first_place * (place == 0) + (shown[place] == str(answer)) + 0.01
            for place, option in enumerate(options)
        }

    return choices


@pytest.mark.parametrize("answer", [10, 11, 12, 13])
async def test_the_chosen_one_is_returned_wherever_it_stands(answer: int) -> None:
    client = ScriptedClient(answers, choices=prefers(answer, first_place=0.9))
    best = await GenSelect().optimize(QUESTION, client)
    assert best.answer == f"The answer is {answer}."
    assert best.metadata["selection"].startswith("highest P(best) of 4: 0.")
    assert [p.sampling.temperature for p in client.prompts[:4]] == [0.7] * 4


@pytest.mark.parametrize(
    ("scorer", "rounds", "reads"), [("lineup", 1, 1), ("genselect", 2, 1), ("pairwise", 1, 1), ("logprob", 1, 0)]
)
async def test_the_choice_costs_one_step_more_than_the_samples(scorer: str, rounds: int, reads: int) -> None:
    client = ScriptedClient(answers, choices=prefers(12), seconds_per_token=1.0)
    await GenSelect(scorer=scorer).optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == rounds * STEPS + reads


async def test_one_candidate_is_not_compared() -> None:
    client = ScriptedClient(answers)
    assert (await GenSelect(n=1).optimize(QUESTION, client)).answer == "The answer is 10."
    assert len(client.prompts) == 1
