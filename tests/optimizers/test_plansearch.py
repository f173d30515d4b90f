"""PlanSearch goes from observations over a plan in words to a program, several times side by side."""

from collections.abc import Mapping, Sequence

from optillm_local import Prompt, ScriptedClient
from optillm_local.core.span import open_run
from optillm_local.optimizers.plansearch import PlanSearch

QUESTION = Prompt.of("Sum the even numbers.", seed=0)
SCRIPT = {
    "observe": "1. Odd ones do not count.\n\n- Zero is even.",
    "derive": "Steps of two suffice.",
    "plan": "Go in steps of two.",
    "implement": "```python\nprint(sum(range(0, 10, 2)))\n```",
}


def says(prompt: Prompt) -> str:
    return SCRIPT[prompt.log_tag or ""]


async def test_each_step_is_shown_what_the_steps_before_found() -> None:
    client = ScriptedClient(says)
    best = await PlanSearch().optimize(QUESTION, client)
    _, derive, plan, implement = (prompt.question for prompt in client.prompts)
    assert "1. Odd ones do not count.\n2. Zero is even.\n" in derive
    assert "3. Steps of two suffice." in plan
    assert "Go in steps of two." in implement and "Zero is even" not in implement
    assert (best.answer, best.metadata["selection"]) == ("print(sum(range(0, 10, 2)))", "the only candidate")


async def test_the_numbers_of_observations_are_asked_for() -> None:
    client = ScriptedClient(says)
    await PlanSearch(observations=7, derived=0).optimize(QUESTION, client)
    assert "Make 7 observations" in client.prompts[0].question
    assert [prompt.log_tag for prompt in client.prompts] == ["observe", "plan", "implement"]


def verdict(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    p = 0.9 if "right" in prompt.messages[-2].content else 0.2
    return {"Yes": p, "No": 1 - p}


async def test_of_several_programs_the_one_that_scores_best_is_the_answer() -> None:
    seeds = [QUESTION.step("implement", plan).sampling.seed for plan in range(3)]

    def program(prompt: Prompt) -> str:
        if prompt.log_tag != "implement":
            return says(prompt)
        return "right" if prompt.sampling.seed == seeds[1] else "wrong"

    with open_run() as run:
        best = await PlanSearch(n=3).optimize(QUESTION, ScriptedClient(program, choices=verdict))
    assert (best.answer, best.agent_id, best.verification_score) == ("right", "agent-1", 0.9)
    assert best.metadata["selection"] == "highest P(correct) of 3: 0.900"
    assert [one.phase for one in run.solutions].count("plan") == 3


async def test_the_plan_stands_in_for_a_program_that_is_not_there() -> None:
    client = ScriptedClient(lambda prompt: "" if prompt.log_tag == "implement" else says(prompt))
    assert (await PlanSearch().optimize(QUESTION, client)).answer == "Go in steps of two."
