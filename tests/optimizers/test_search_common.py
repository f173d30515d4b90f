"""What every search owes its caller beside what all optimizers do (test_common.py)."""

from collections.abc import Mapping, Sequence

import pytest

from optillm_local import Message, Optimizer, Prompt, ScriptedClient, asolve, create
from optillm_local.core.errors import RequestRejected
from optillm_local.optimizers.combine import Over

SMALL: dict[str, Mapping[str, int]] = {
    "mcts": {"simulations": 5},
    "rstar": {"rollouts": 6, "parallel": 2, "depth": 2},
    "tot": {"breadth": 2, "proposals": 3, "steps": 2},
    "beam_search": {"beam_width": 2, "expansion": 2, "max_steps": 4},
    "particle_filtering": {"n": 3, "max_steps": 4},
    "ab_mcts": {"trials": 6, "parallel": 2},
}
ALL = [create(name, **options) for name, options in SMALL.items()]
TALK = (
    Message("system", "Be brief."),
    Message("user", "What is 3 + 4?"),
    Message("assistant", "It is 7."),
    Message("user", "And doubled?"),
)
QUESTION = Prompt.of(TALK, seed=0)

THOUGHTS = {"thought", "think", "ask", "recheck", "rephrase", "next_turn"}

each_search = pytest.mark.parametrize("search", ALL, ids=lambda one: one.name)


def says(prompt: Prompt) -> str:
    """Something else for each seed, of 3 to 12 words: an answer in up to three steps, or a thought."""
    seed = prompt.sampling.seed or 0
    if prompt.log_tag in THOUGHTS and seed % 4:
        return "so " * (seed % 7) + f"let it be {seed}."
    said = prompt.messages[-1].content if prompt.messages[-1].role == "assistant" else ""
    last = f"Final answer: {seed % 3}"
    return last if said.count("\n\n") == seed % 3 else "so " * (seed % 7) + f"it is {seed}.\n\n{last}"


def unsure(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    """Another verdict on each answer."""
    weight = 1 + len(prompt.messages[-2].content) % 7
    return {option: 1 + place * weight for place, option in enumerate(options)}


def scripted() -> ScriptedClient:
    return ScriptedClient(says, choices=unsure, seconds_per_token=1.0)


class Narrow(ScriptedClient):
    """A model whose context has room for a few words beside the question."""

    def _begin(self, prompt: Prompt, continuation: str = "") -> int:
        if sum(len(one.content.split()) for one in prompt.messages) > 50:
            raise RequestRejected("messages", prompt.question, "is too long")
        return super()._begin(prompt, continuation)


@each_search
async def test_a_full_context_ends_what_grows_and_leaves_an_answer(search: Optimizer) -> None:
    result = await asolve(QUESTION, search, client=Narrow(says, choices=unsure))
    assert result.answer and not result.budget_exhausted


@each_search
async def test_sequences_that_are_all_the_same_and_say_nothing_of_tokens_are_enough(search: Optimizer) -> None:
    alike = ScriptedClient(lambda prompt: "It is 7.")
    result = await asolve(QUESTION.but(logprobs=None), search, client=alike)
    assert result.answer in ("7", "It is 7.")


@each_search
async def test_every_sample_may_be_drawn_by_another_optimizer(search: Optimizer) -> None:
    result = await asolve(QUESTION, Over(members=(search, create("best_of_n"))), client=scripted())
    assert result.answer
