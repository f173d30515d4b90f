"""CePO plans, carries out, reviews and answers, several times, and returns the answer that is judged best."""

from collections import Counter
from collections.abc import Mapping, Sequence

from optillm_local import Prompt, ScriptedClient, asolve
from optillm_local.core.events import Event, StoppedEarly
from optillm_local.core.span import open_run
from optillm_local.optimizers.cepo import CerebrasPlanning

QUESTION = Prompt.of("What is 3 * 4?", seed=0)


def says(prompt: Prompt) -> str:
    return f"{prompt.log_tag} {prompt.sampling.seed}"


async def test_each_stage_has_its_own_temperature_and_codelions_number_of_calls() -> None:
    client = ScriptedClient(says)
    await CerebrasPlanning().optimize(QUESTION, client)
    calls = Counter((prompt.log_tag, prompt.sampling.temperature) for prompt in client.prompts)
    assert calls == {
        ("plan", 0.55): 18,
        ("execute", 0.25): 18,
        ("review", 0.1): 3,
        ("answer", 0.0): 3,
        ("verdict", 1.0): 3,
    }


async def test_the_answer_that_is_judged_best_is_returned() -> None:
    favourite = QUESTION.step("answer", 1).sampling.seed

    def verdict(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        p = 0.9 if prompt.messages[-2].content == f"answer {favourite}" else 0.3
        return {"Yes": p, "No": 1 - p}

    best = await CerebrasPlanning().optimize(QUESTION, ScriptedClient(says, choices=verdict))
    assert (best.answer, best.verification_score) == (f"answer {favourite}", 0.9)
    assert best.metadata["selection"] == "highest P(correct) of 3: 0.900"


async def test_plans_and_executions_that_are_not_needed_any_more_are_aborted() -> None:
    slow = {QUESTION.step("execute", 0, plan).sampling.seed for plan in (1, 4)}
    slow |= {QUESTION.step("plan", 0, 2).sampling.seed}
    client = ScriptedClient(lambda prompt: "so " * (900 if prompt.sampling.seed in slow else 0) + says(prompt))
    events: list[Event] = []
    with open_run([events.append]) as run:
        await CerebrasPlanning(n=1).optimize(QUESTION, client)
    review = next(prompt for prompt in client.prompts if prompt.log_tag == "review")
    assert review.question.count("execute ") == 3
    assert client.stats().steps < 40 and 0 < run.usage.discarded < 30
    stopped = [event for event in events if isinstance(event, StoppedEarly)]
    assert {event.reason for event in stopped} == {"3 executions are there"}


async def test_an_execution_continues_its_plan_and_the_answer_follows_the_review() -> None:
    client = ScriptedClient(says)
    await CerebrasPlanning(n=1, plans=1).optimize(QUESTION, client)
    plan, execute, review, answer = client.prompts
    assert plan.question.endswith("Read the question again: What is 3 * 4?")
    assert execute.messages[:1] == plan.messages and execute.messages[1].token_ids
    assert "this solution" in review.question and f"review {review.sampling.seed}" in answer.question


async def test_without_a_plan_that_is_carried_out_the_question_is_answered_directly() -> None:
    client = ScriptedClient(lambda prompt: "" if prompt.log_tag == "plan" else says(prompt))
    result = await asolve(QUESTION, CerebrasPlanning(n=1), client=client)
    direct = next(prompt for prompt in client.prompts if prompt.log_tag == "direct")
    assert (direct.messages, direct.sampling.temperature, direct.sampling.top_p) == (QUESTION.messages, 0.1, 0.95)
    assert result.answer.startswith("answer")


async def test_an_answer_that_fails_leaves_the_others() -> None:
    seeds = {QUESTION.step("plan", 0, plan).sampling.seed for plan in range(6)}
    failing = seeds | {QUESTION.step("direct", 0).sampling.seed}
    client = ScriptedClient(lambda prompt: "" if prompt.sampling.seed in failing else says(prompt))
    best = await CerebrasPlanning().optimize(QUESTION, client)
    assert best.agent_id in ("agent-1", "agent-2")
