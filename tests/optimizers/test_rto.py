"""Round-trip optimization writes code twice and reconciles the two unless they are the same."""

from collections.abc import Mapping

import pytest

from optillm_local import Budget, Prompt, ScriptedClient, asolve
from optillm_local.optimizers.rto import RoundTripOptimization

QUESTION = Prompt.of("Write a function that adds.", seed=0)
ADD = "```python\ndef add(a, b):\n    return a + b\n```"
SAME = "Sure:\n```py\ndef add(a, b):\n    # the sum\n    return (a + b)\n```\nDone."
OTHER = "```python\ndef add(a, b):\n    return sum([a, b])\n```"
SCRIPT = {"code": ADD, "describe": "Write add.", "recode": OTHER, "reconcile": "So:\n```c++\nint add();\n```"}


async def run(**changes: str) -> tuple[str, str, list[Prompt]]:
    script: Mapping[str, str] = SCRIPT | changes
    client = ScriptedClient(lambda prompt: script[prompt.log_tag or ""])
    best = await RoundTripOptimization().optimize(QUESTION, client)
    return best.answer, best.metadata["selection"], client.prompts


async def test_different_codes_are_reconciled_and_the_answer_is_code() -> None:
    answer, selection, prompts = await run()
    assert (answer, selection) == ("int add();", "two codes reconciled")
    assert [prompt.log_tag for prompt in prompts] == ["code", "describe", "recode", "reconcile"]
    assert all(prompt.sampling.temperature == 0.1 for prompt in prompts)
    assert "return a + b" in prompts[3].question and "sum([a, b])" in prompts[3].question


@pytest.mark.parametrize("again", [ADD, SAME])
async def test_equal_codes_end_it_after_three_calls(again: str) -> None:
    answer, selection, prompts = await run(recode=again)
    assert (answer, selection, len(prompts)) == (
        "def add(a, b):\n    return a + b",
        "both codes are the same",
        3,
    )


async def test_when_the_budget_ends_the_code_that_was_written_for_the_question_is_the_best() -> None:
    client = ScriptedClient(lambda prompt: SCRIPT[prompt.log_tag or ""])
    spent = sum(len(SCRIPT[step].split()) for step in ("code", "describe", "recode"))
    result = await asolve(QUESTION, RoundTripOptimization(), client=client, budget=Budget(tokens=spent))
    assert result.answer.startswith("def add") and "return a + b" in result.answer and result.budget_exhausted


async def test_the_description_continues_the_code_and_the_second_code_sees_only_the_description() -> None:
    _, _, (_, describe, recode, _) = await run()
    assert [m.role for m in describe.messages] == ["user", "assistant", "user"]
    assert describe.messages[1].token_ids and describe.messages[1].content == ADD
    assert [m.content for m in recode.messages] == ["Write add."]


@pytest.mark.parametrize(("step", "calls"), [("describe", 2), ("recode", 3), ("reconcile", 4)])
async def test_the_first_code_stands_in_for_a_step_that_says_nothing(step: str, calls: int) -> None:
    answer, selection, prompts = await run(**{step: ""})
    assert answer.startswith("def add") and selection.startswith("the first code") and len(prompts) == calls
