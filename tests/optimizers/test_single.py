"""One call, as it is."""

from optillm_local import Prompt, ScriptedClient
from optillm_local.core.span import open_run
from optillm_local.optimizers.single import Single

QUESTION = Prompt.of("What is 2 + 2?", temperature=0.3, seed=0)


async def test_the_answer_is_the_whole_completion_without_its_thinking() -> None:
    text = "<think>two and two</think>\nIt is four, so the answer is 4."
    solution = await Single().optimize(QUESTION, ScriptedClient([text]))
    assert (solution.answer, solution.reasoning) == ("It is four, so the answer is 4.", text)
    assert solution.metadata["stated_answer"] == "4"
    assert (solution.temperature, solution.token_count, solution.phase) == (0.3, 11, "generate")


async def test_it_asks_once_and_keeps_what_comes() -> None:
    client = ScriptedClient(["4"])
    with open_run() as run:
        solution = await Single().optimize(QUESTION, client)
    assert (client.prompts, run.solutions) == ([QUESTION], [solution])


async def test_a_plain_question_will_do() -> None:
    assert (await Single().optimize("What is 2 + 2?", ScriptedClient(["4"]))).answer == "4"
