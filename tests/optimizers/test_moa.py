"""Mixture of agents: proposals side by side, a critique of them, and a synthesis of both."""

from itertools import pairwise

from optillm_local import Prompt, ScriptedClient
from optillm_local.core.span import open_run
from optillm_local.optimizers.moa import MixtureOfAgents

QUESTION = Prompt.of("What is 3 * 4?", seed=0)


def says(prompt: Prompt) -> str:
    return f"{prompt.log_tag} {prompt.sampling.seed}"


async def test_the_synthesis_is_the_answer_and_comes_from_all_proposals() -> None:
    with open_run() as run:
        best = await MixtureOfAgents().optimize(QUESTION, ScriptedClient(says))
    *proposals, final = run.solutions
    assert best.answer == final.answer and best.answer.startswith("synthesize")
    assert best.parents == tuple(one.id for one in proposals) and len(proposals) == 3
    assert best.metadata["selection"] == "a synthesis of 3 proposals and their critique"


async def test_critic_and_writer_are_shown_the_same_proposals_first_and_the_writer_the_critique() -> None:
    client = ScriptedClient(says)
    await MixtureOfAgents().optimize(QUESTION, client)
    critique, synthesis = (prompt.question for prompt in client.prompts[3:])
    shared, _, _ = critique.partition("Criticise")
    assert shared.startswith("What is 3 * 4?") and shared.count("propose ") == 3
    assert synthesis.startswith(shared) and "critique " in synthesis
    assert [prompt.sampling.temperature for prompt in client.prompts] == [1, 1, 1, 0.1, 0.1]
    assert [prompt.sampling.max_tokens for prompt in client.prompts] == [1024, 1024, 1024, 512, 1024]


async def test_each_further_layer_sees_all_answers_of_the_layer_before() -> None:
    client = ScriptedClient(says)
    await MixtureOfAgents(n=2, layers=3).optimize(QUESTION, client)
    layers = [client.prompts[start : start + 2] for start in (0, 2, 4)]
    for earlier, later in pairwise(layers):
        for prompt in later:
            assert all(f"propose {one.sampling.seed}" in prompt.question for one in earlier)
    assert len({prompt.sampling.seed for prompt in client.prompts}) == len(client.prompts)


async def test_proposers_that_say_nothing_are_left_out() -> None:
    silent = {prompt.sampling.seed for prompt in QUESTION.step("propose", 0).fan(9)[::3]}
    client = ScriptedClient(lambda prompt: "" if prompt.sampling.seed in silent else says(prompt))
    best = await MixtureOfAgents(n=9).optimize(QUESTION, client)
    assert best.metadata["selection"] == "a synthesis of 6 proposals and their critique"


async def test_a_whole_proposal_stands_in_for_a_synthesis_that_is_cut_off() -> None:
    client = ScriptedClient(lambda prompt: "word " * 50 if prompt.log_tag == "synthesize" else says(prompt))
    best = await MixtureOfAgents().optimize(QUESTION.but(max_tokens=10), client)
    assert best.answer.startswith("propose") and "no synthesis" in best.metadata["selection"]
