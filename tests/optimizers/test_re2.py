"""Re-reading puts the question twice and changes nothing else."""

from optillm_local import Message, Prompt, ScriptedClient
from optillm_local.optimizers.re2 import ReReading


async def test_the_last_question_stands_twice() -> None:
    earlier = [Message("user", "Hi"), Message("assistant", "Hello")]
    client = ScriptedClient(lambda prompt: "12")
    asked = Prompt.of([*earlier, Message("user", "What is 3 * 4?")], temperature=0.3, seed=0)
    assert (await ReReading().optimize(asked, client)).answer == "12"
    [prompt] = client.prompts
    assert prompt.question == "What is 3 * 4?\n\nRead the question again: What is 3 * 4?"
    assert prompt.sampling.but(seed=0) == asked.sampling


async def test_braces_in_a_question_are_not_a_template() -> None:
    client = ScriptedClient(lambda prompt: "12")
    await ReReading().optimize("What does {{ x }} print? {% raw %}", client)
    assert client.prompts[0].question.count("{{ x }} print? {% raw %}") == 2
