"""How long is thought depends on how difficult the question seems."""

import pytest

from optillm_local import Message, Prompt, ScriptedClient, asolve
from optillm_local.optimizers.autothink import AutoThink

QUESTION = Prompt.of("What is 3 * 4?", seed=0, max_tokens=400)


def thinker(difficult: float) -> ScriptedClient:
    def say(prompt: Prompt) -> str:
        return " hm" * 500 if prompt.log_tag == "think" else "The answer is 12."

    return ScriptedClient(say, choices={"Yes": difficult, "No": 1 - difficult}, seconds_per_token=1.0)


@pytest.mark.parametrize(("difficult", "most"), [(0.9, 160), (0.5, 160), (0.1, 40)])
async def test_difficult_questions_are_thought_about_longer(difficult: float, most: int) -> None:
    client = thinker(difficult)
    result = await asolve(QUESTION, AutoThink(low=(10, 40), high=(40, 160)), client=client)
    assert result.answer == "The answer is 12."
    about = result.solution.metadata
    assert (about["thinking_tokens"], about["difficult"]) == (most, difficult)
    assert result.solutions == (result.solution,)


async def test_max_tokens_caps_the_thought() -> None:
    solution = await AutoThink().optimize(QUESTION.but(max_tokens=200), thinker(0.9))
    assert (solution.metadata["thinking_tokens"], solution.answer) == (180, "The answer is 12.")


async def test_the_difficulty_is_one_read_that_shares_the_question() -> None:
    prompt = Prompt.of([Message("system", "Be brief."), *QUESTION.messages], max_tokens=100)
    client = thinker(0.9)
    await AutoThink().optimize(prompt, client)
    rated, thought, answered = client.prompts
    assert rated.messages[-1].content.startswith(f"{QUESTION.question}\n\n") and rated.log_tag == "rate"
    assert rated.messages[0] == prompt.messages[0]
    assert thought.messages[:2] == answered.messages[:2] == prompt.messages
    assert client.clock() == 1 + 90 + 4
