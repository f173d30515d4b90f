"""rStar returns the answer of most trajectories that their own completions confirm."""

import pytest

from optillm_local import Message, Prompt, ScriptedClient, Solution
from optillm_local.core.errors import NoSolutions
from optillm_local.core.span import open_run
from optillm_local.optimizers.reasoning import ACTIONS
from optillm_local.optimizers.rstar import RStar

QUESTION = Prompt.of([Message("system", "Be brief."), Message("user", "What is it?")], seed=0)
STEPS = 12


def says(*, finish: str = "7", first: str = "7", complete: str = "7") -> ScriptedClient:
    """Steps that lead to the answer `finish`, or to `first` if the first action finishes; of STEPS tokens each."""

    def reply(prompt: Prompt) -> str:
        if prompt.log_tag == "complete":
            return "word " * (STEPS - 3) + f"Final answer: {complete}"
        if prompt.log_tag == "finish":
            return "word " * (STEPS - 3) + f"Final answer: {first if len(prompt.messages) == 2 else finish}"
        return " ".join([str(prompt.log_tag)] * STEPS)

    return ScriptedClient(reply, seconds_per_token=1.0)


def first_action(solution: Solution) -> str:
    return solution.agent_id.removeprefix("agent-").split("/")[0]


async def test_five_rollouts_take_four_steps_and_one_check_side_by_side() -> None:
    client = says()
    with open_run() as run:
        best = await RStar().optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == 5 * STEPS
    assert (best.answer, best.is_verified, best.verification_score) == ("7", True, 1.0)
    assert best.metadata["selection"] == "5 of 5 trajectories reach it, confirmed by their completions"
    assert sorted(map(first_action, run.solutions)) == sorted(ACTIONS)
    assert best.reasoning.count("\n\n") == best.agent_id.count("/")


async def test_what_completions_confirm_beats_what_more_trajectories_reach() -> None:
    best = await RStar().optimize(QUESTION, says(finish="Paris", first="Rome", complete="rome"))
    assert (best.answer, best.is_verified, best.verification_score) == ("Rome", True, 0.2)


async def test_without_any_agreement_the_majority_wins() -> None:
    best = await RStar().optimize(QUESTION, says(finish="3/4", first="5", complete="6"))
    assert (best.answer, best.is_verified, best.verification_score) == ("3/4", False, 0.8)
    assert best.metadata["selection"] == "4 of 5 trajectories reach it, none confirmed by its completion"


async def test_more_rollouts_go_where_trajectories_agree() -> None:
    client = says(first="8")
    with open_run() as run:
        best = await RStar(rollouts=40, depth=2).optimize(QUESTION, client)
    assert best.answer == "7"
    tried = list(map(first_action, run.solutions))
    assert tried.count("finish") == 1 and len(set(tried)) == 5 and len(tried) == len(set(map(id, run.solutions)))


async def test_the_next_rollout_does_not_wait_for_the_check_of_the_last() -> None:
    client = says()
    with open_run() as run:
        await RStar(rollouts=4, parallel=1).optimize(QUESTION, client)
    steps = sum(one.agent_id.count("/") + 1 for one in run.solutions)
    assert client.clock() == (steps + 1) * STEPS


async def test_every_step_continues_the_conversation_from_its_own_tokens() -> None:
    client = says()
    await RStar().optimize(QUESTION, client)
    assert client.prompts[0].sampling.temperature == 0.2
    for prompt in client.prompts:
        assert prompt.messages[0] == QUESTION.messages[0]
        assert prompt.messages[1].content.startswith("What is it?\n\n")
        assert [one.role for one in prompt.messages[1:]] == (["user", "assistant"] * 4)[: len(prompt.messages) - 1]
        assert all(one.token_ids for one in prompt.messages if one.role == "assistant")


async def test_a_step_that_states_the_answer_ends_its_trajectory() -> None:
    client = ScriptedClient(lambda prompt: "So the final answer: 4", seconds_per_token=1.0)
    best = await RStar().optimize(QUESTION, client)
    assert best.answer == "4" and client.clock() == 2 * 5
    assert best.agent_id == "agent-think"


async def test_trajectories_without_an_answer_leave_their_text() -> None:
    best = await RStar().optimize(QUESTION, ScriptedClient(lambda prompt: "it is hard to say " * 20))
    assert best.answer.startswith("it is hard to say")
    assert best.metadata["selection"] == "5 of 5 trajectories reach it, none confirmed by its completion"


async def test_silence_is_no_solution() -> None:
    with pytest.raises(NoSolutions):
        await RStar().optimize(QUESTION, ScriptedClient(lambda prompt: " "))
