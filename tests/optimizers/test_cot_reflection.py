"""Chain of thought with reflection returns what stands inside the output tags."""

import pytest

from optillm_local import Prompt, ScriptedClient
from optillm_local.optimizers.cot_reflection import ChainOfThoughtReflection

QUESTION = Prompt.of("What is 3 * 4?", seed=0)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<thinking>3+3+3+3 <reflection>fine</reflection></thinking>\n<output>\n12\n</output>", "12"),
        ("<thinking>so</thinking><output>12, cut off", "12, cut off"),
        ("The <output> tag. <output>12</output>", "12"),
        ("<OUTPUT>12</OUTPUT> bye", "12"),
        ("<think>the <output>7</output>?</think><output>12</output>", "12"),
        ("It is 12.", "It is 12."),
        ("It is 12. <output></output>", "It is 12. <output></output>"),
    ],
)
async def test_the_answer_is_the_output_or_else_the_whole_text(reply: str, answer: str) -> None:
    best = await ChainOfThoughtReflection().optimize(QUESTION, ScriptedClient(lambda prompt: reply))
    assert (best.answer, best.reasoning) == (answer, reply)


async def test_the_instruction_stands_behind_the_question() -> None:
    client = ScriptedClient(lambda prompt: "<output>12</output>")
    await ChainOfThoughtReflection(temperature=0.2).optimize(QUESTION, client)
    [prompt] = client.prompts
    assert prompt.question.startswith("What is 3 * 4?\n\n") and "<reflection>" in prompt.question
    assert prompt.sampling.temperature == 0.2
