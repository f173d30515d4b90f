"""What every optimizer that selects among samples owes its caller, whatever the model says."""

from collections.abc import Mapping, Sequence

import pytest

from optillm_local import Budget, Message, Optimizer, Prompt, ScriptedClient, asolve
from optillm_local.core.errors import OptillmError
from optillm_local.optimizers.adaptive_consistency import AdaptiveConsistency
from optillm_local.optimizers.auto import Auto
from optillm_local.optimizers.diverse_sampling import DiverseSampling
from optillm_local.optimizers.genselect import GenSelect
from optillm_local.optimizers.majority_voting import MajorityVoting
from optillm_local.optimizers.pvg import PVG

ALL = [
    MajorityVoting(),
    AdaptiveConsistency(n=12, width=4),
    GenSelect(),
    GenSelect(scorer="genselect"),
    DiverseSampling(),
    PVG(),
    Auto(hard="best_of_n"),
]
TALK = (
    Message("system", "Be exact."),
    Message("user", "Think of 3 and 4."),
    Message("assistant", "Done."),
    Message("user", "What is their product?"),
)
QUESTION = Prompt.of(TALK, seed=7)

each_optimizer = pytest.mark.parametrize("optimizer", ALL, ids=repr)


def unsure(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    """Rather no than yes, and rather a later option than an earlier one."""
    return {option: place for place, option in enumerate(options, start=1)}


@each_optimizer
async def test_the_conversation_is_kept_in_every_call(optimizer: Optimizer) -> None:
    client = ScriptedClient(lambda prompt: f"The answer is {prompt.sampling.seed}.", choices=unsure)
    await optimizer.optimize(QUESTION, client)
    for prompt in client.prompts:
        assert prompt.messages[:3] == TALK[:3] and prompt.messages[3].content.startswith(TALK[3].content)


@each_optimizer
@pytest.mark.parametrize("text", ["", " \n", "nonsense", "<think>never closed", "\\boxed{", "12 " * 400])
async def test_whatever_the_model_says_there_is_a_solution_or_an_error_of_ours(
    optimizer: Optimizer, text: str
) -> None:
    client = ScriptedClient(lambda prompt: text, choices=unsure)
    try:
        await optimizer.optimize(QUESTION.but(max_tokens=64), client)
    except OptillmError:
        assert not text.strip()


@each_optimizer
async def test_candidates_without_log_probabilities_are_enough(optimizer: Optimizer) -> None:
    client = ScriptedClient(lambda prompt: "The answer is 12.", choices=unsure)
    result = await asolve(QUESTION.but(logprobs=None), optimizer, client=client)
    assert "12" in result.answer and result.selection


@each_optimizer
async def test_the_same_seed_asks_the_same(optimizer: Optimizer) -> None:
    asked = []
    for _ in range(2):
        client = ScriptedClient(lambda prompt: f"The answer is {(prompt.sampling.seed or 0) % 3}.", choices=unsure)
        await optimizer.optimize(QUESTION, client)
        asked.append(sorted(map(repr, client.prompts)))
    assert asked[0] == asked[1]


@each_optimizer
@pytest.mark.parametrize("tokens", [1, 10, 40, 70])
async def test_a_spent_budget_gives_the_best_so_far(optimizer: Optimizer, tokens: int) -> None:
    def answers(prompt: Prompt) -> str:
        seed = prompt.sampling.seed or 0
        return "Hm. " * (seed % 11) + f"The answer is {seed % 5}."

    client = ScriptedClient(answers, choices=unsure)
    result = await asolve(QUESTION, optimizer, client=client, budget=Budget(tokens=tokens))
    assert result.answer and (result.budget_exhausted or result.usage.completion < tokens)
    assert result.usage.completion == client.stats().generated_tokens
