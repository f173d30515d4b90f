"""LEAP learns from mistakes in the examples that a question holds, as far as they are mistakes."""

import json
from typing import Any

import pytest

from optillm_local import Prompt, ScriptedClient, Solution
from optillm_local.optimizers.leap import MOST_EXAMPLES, LearningPrinciples

QUESTION = Prompt.of("1+1? 2. 3+3? 6. What is 3 * 4?", seed=0)
EXAMPLES = [{"question": "1+1?", "answer": "2"}, {"question": "3+3?", "answer": 6}]


async def learn(
    listing: Any, wrong: str = "<output>7</output>", **options: int
) -> tuple[Solution, ScriptedClient]:
    script = {
        "examples": f"<output>{listing if isinstance(listing, str) else json.dumps(listing)}</output>",
        "mistake": wrong,
        "principle": "Well. <output>Count twice.</output>",
        "principles": "<output>1. Count twice.\n\n2. Read slowly.\n3. Check.</output>",
        "apply": "The answer is 12.",
    }
    client = ScriptedClient(lambda prompt: script[prompt.log_tag or ""], seconds_per_token=1.0)
    return await LearningPrinciples(**options).optimize(QUESTION, client), client


def tags(client: ScriptedClient) -> list[str | None]:
    return [prompt.log_tag for prompt in client.prompts]


async def test_the_question_is_answered_with_the_principles_that_mistakes_taught() -> None:
    best, client = await learn(EXAMPLES, principles=2)
    assert sorted(map(str, tags(client))) == sorted(
        ["examples", "mistake", "mistake", "principle", "principle", "principles", "apply"]
    )
    assert client.prompts[-1].question.endswith("1. Count twice.\n2. Read slowly.")
    assert best.metadata["selection"] == "answered with 2 principles from 2 examples"


async def test_examples_are_read_without_tags_too_and_lessons_stand_in_for_principles() -> None:
    script = {"examples": json.dumps(EXAMPLES), "principles": "Sorry.", "apply": "12"}
    client = ScriptedClient(lambda prompt: script.get(prompt.log_tag or "", "<output>7</output>"))
    best = await LearningPrinciples().optimize(QUESTION, client)
    assert best.metadata["selection"] == "answered with 2 principles from 2 examples"
    assert client.prompts[-1].question.endswith("1. 7\n2. 7")


async def test_the_mistaken_see_their_example_only_and_not_its_answer() -> None:
    _, client = await learn(EXAMPLES)
    asked = [prompt for prompt in client.prompts if prompt.log_tag == "mistake"]
    assert sorted(prompt.question[:4] for prompt in asked) == ["1+1?", "3+3?"]
    assert all(prompt.sampling.temperature == 0.7 for prompt in asked)


@pytest.mark.parametrize("wrong", ["<output>2.0</output>", "no tag", ""])
async def test_a_mistake_that_is_right_or_has_no_answer_teaches_nothing(wrong: str) -> None:
    _, client = await learn(EXAMPLES[:1], wrong)
    assert tags(client) == ["examples", "mistake", "apply"]
    assert client.prompts[-1].messages == QUESTION.messages


@pytest.mark.parametrize("listing", ["[]", "", "none", "[1, 2]", "{}", '[{"question": "1+1?"}]', '[{"answer": 2'])
async def test_without_examples_there_are_two_calls(listing: str) -> None:
    best, client = await learn(listing)
    assert tags(client) == ["examples", "apply"] and best.answer == "The answer is 12."


async def test_a_list_without_end_is_not_followed_to_it() -> None:
    _, client = await learn(EXAMPLES[:1] * 500)
    assert tags(client).count("mistake") == MOST_EXAMPLES


async def test_a_lesson_is_drawn_once_its_mistake_is_there() -> None:
    began: list[float] = []

    def says(prompt: Prompt) -> str:
        if prompt.log_tag == "principle":
            began.append(client.clock())
        long = "so " * 30 if "3+3?" in prompt.question and prompt.log_tag == "mistake" else ""
        return {"examples": f"<output>{json.dumps(EXAMPLES)}</output>"}.get(
            prompt.log_tag or "", f"{long}<output>7</output>"
        )

    client = ScriptedClient(says, seconds_per_token=1.0)
    await LearningPrinciples().optimize(QUESTION, client)
    assert began[1] - began[0] == 30
