"""A tree of thoughts goes on from the states that are valued highest, and answers from them."""

from collections.abc import Mapping, Sequence

from optillm_local import Message, Prompt, ScriptedClient
from optillm_local.core.span import open_run
from optillm_local.optimizers.tot import TreeOfThoughts

QUESTION = Prompt.of([Message("system", "Be brief."), Message("user", "Spell it.")], seed=0)
STEPS = 6


def thinks(prompt: Prompt) -> str:
    """A thought ends with a letter that the seed draws; the answer is those of all thoughts."""
    letters = [one.content[-1] for one in prompt.messages if one.role == "assistant"]
    if prompt.log_tag == "answer":
        return "so it is Final answer: " + "".join(letters)
    return "so it must begin with " + "abc"[(prompt.sampling.seed or 0) % 3]


def values(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    """P(Yes) grows with the letters that are right."""
    letters = [one.content[-1] for one in prompt.messages if one.role == "assistant"]
    if "Final answer" in prompt.messages[-2].content:
        letters = list(prompt.messages[-2].content.split()[-1])
    p = (1 + sum(a == b for a, b in zip(letters, "abc", strict=False))) / 5
    return {"Yes": p, "No": 1 - p}


async def test_the_best_thoughts_lead_to_the_answer() -> None:
    client = ScriptedClient(thinks, choices=values)
    with open_run() as run:
        best = await TreeOfThoughts().optimize(QUESTION, client)
    assert (best.answer, best.verification_score) == ("abc", 0.8)
    assert best.metadata["selection"] == f"highest P(correct) of {len(run.solutions)} answers: 0.800"
    assert best.reasoning.count("begin with") == 3


async def test_a_level_takes_a_thought_and_a_read() -> None:
    client = ScriptedClient(thinks, choices=values, seconds_per_token=1.0)
    await TreeOfThoughts().optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == 4 * (STEPS + 1)
    assert client.peak_concurrency == 5 * 5


async def test_thoughts_are_turns_of_one_conversation() -> None:
    client = ScriptedClient(thinks, choices=values)
    await TreeOfThoughts().optimize(QUESTION, client)
    for prompt in client.prompts:
        assert prompt.messages[0] == QUESTION.messages[0]
        assert prompt.messages[1].content.startswith("Spell it.\n\n")
        assert all(one.token_ids for one in prompt.messages if one.role == "assistant")


async def test_a_thought_that_states_the_answer_is_not_thought_on() -> None:
    client = ScriptedClient(lambda prompt: "Final answer: 4")
    best = await TreeOfThoughts().optimize(QUESTION, client)
    assert best.answer == "4" and {prompt.log_tag for prompt in client.prompts} == {"thought", "verdict"}
