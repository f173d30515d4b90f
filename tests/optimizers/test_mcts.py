"""Tree search over the dialogue returns the reply whose continuations grade best."""

from collections.abc import Mapping, Sequence

import pytest

from optillm_local import Message, Prompt, ScriptedClient
from optillm_local.core.errors import NoSolutions, RequestRejected
from optillm_local.core.span import open_run
from optillm_local.optimizers.mcts import MCTS

QUESTION = Prompt.of([Message("system", "Be brief."), Message("user", "Which one?")], seed=0)
STEPS = 12


def replies(prompt: Prompt) -> str:
    """Three different first replies; what follows says which one it continues."""
    if prompt.log_tag == "next_turn":
        return "And " * (STEPS - 1) + "then?"
    first = [one.sampling.seed for one in QUESTION.step("reply").fan(3)]
    branch = first.index(prompt.sampling.seed) if len(prompt.messages) == 2 else prompt.messages[2].content[-1]
    return f"{prompt.sampling.seed} " + "word " * (STEPS - 2) + str(branch)


def graded(best: str) -> ScriptedClient:
    """A client for which dialogues that begin with the reply `best` are perfect, and all others worthless."""

    def grades(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        return {options[-1 if prompt.messages[2].content.endswith(best) else 0]: 1.0}

    return ScriptedClient(replies, choices=grades, seconds_per_token=1.0)


@pytest.mark.parametrize("best", ["0", "1", "2"])
async def test_the_reply_with_the_best_continuations_is_visited_most(best: str) -> None:
    client = graded(best)
    with open_run() as run:
        solution = await MCTS(simulations=12).optimize(QUESTION, client)
    assert (solution.answer[-1], solution.verification_score, solution.agent_id) == (best, 1.0, f"agent-{best}")
    assert [one.verification_score for one in run.solutions] == [float(str(n) == best) for n in range(3)]
    assert int(solution.metadata["selection"].split()[0]) >= 8
    assert max(len(prompt.messages) for prompt in client.prompts) >= 2 + 2 * 4  # the tree is several turns deep


async def test_two_simulations_take_three_rounds_and_one_read_side_by_side() -> None:
    client = graded("1")
    solution = await MCTS().optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == 3 * STEPS + 1
    assert solution.answer.endswith("1")
    tags = [prompt.log_tag for prompt in client.prompts if not (prompt.log_tag or "").startswith("grade")]
    assert tags == ["reply"] * 3 + ["next_turn"] * 2 + ["rollout"] * 2


async def test_the_dialogue_keeps_system_question_and_every_turn() -> None:
    client = graded("0")
    await MCTS().optimize(QUESTION, client)
    for prompt in client.prompts:
        assert prompt.messages[:2] == QUESTION.messages
        assert [one.role for one in prompt.messages[1:]] == (["user", "assistant"] * 3)[: len(prompt.messages) - 1]


@pytest.mark.parametrize("turn", ["", "Goodbye.", "goodbye, and thanks"])
async def test_a_user_who_has_nothing_to_say_ends_the_dialogue(turn: str) -> None:
    client = ScriptedClient(lambda prompt: turn if prompt.log_tag == "next_turn" else "It is 7.")
    solution = await MCTS(simulations=5, depth=3).optimize(QUESTION, client)
    assert solution.answer == "It is 7."
    assert {prompt.log_tag for prompt in client.prompts} >= {"reply", "next_turn"}
    assert "rollout" not in {prompt.log_tag for prompt in client.prompts}


async def test_equal_replies_are_one_and_blank_ones_none() -> None:
    said = iter(["It is 7.", "  ", "It is 7."])
    client = ScriptedClient(lambda prompt: next(said) if prompt.log_tag == "reply" else "Goodbye")
    with open_run() as run:
        await MCTS().optimize(QUESTION, client)
    assert [one.answer for one in run.solutions] == ["It is 7."]


async def test_without_any_reply_there_is_no_solution() -> None:
    with pytest.raises(NoSolutions):
        await MCTS().optimize(QUESTION, ScriptedClient(lambda prompt: ""))


async def test_a_dialogue_without_room_for_a_grade_is_worth_nothing_and_visited_once() -> None:
    def grades(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        if prompt.messages[2].content.endswith("0"):
            raise RequestRejected("messages", "it", "is too long")
        return {options[9]: 1.0}

    with open_run() as run:
        best = await MCTS(simulations=9).optimize(QUESTION, ScriptedClient(replies, choices=grades))
    assert [round(one.verification_score, 2) for one in run.solutions] == [0, 0.47, 0.47]
    assert best.metadata["selection"].endswith("of 9 visits, mean value 0.474")


@pytest.mark.parametrize(
    ("scorer", "why"), [("pairwise", "scores each by itself"), ("logprob", "not between 0 and 1")]
)
def test_a_scorer_that_does_not_value_a_dialogue_by_itself_from_0_to_1_is_refused(scorer: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        MCTS(scorer=scorer)
