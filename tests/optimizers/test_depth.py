"""How long the optimizers take, in steps of the model: what does not depend on an answer waits for none."""

import pytest

from optillm_local import Optimizer, Prompt, ScriptedClient
from optillm_local.cli.catalog import ROUND, dry_run
from optillm_local.optimizers.best_of_n import BestOfN
from optillm_local.optimizers.self_consistency import SelfConsistency
from optillm_local.optimizers.single import Single

STEPS = 12


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        (Single(), STEPS),
        (SelfConsistency(n=5), STEPS),
        (SelfConsistency(n=50, weights="probability"), STEPS),
        (BestOfN(n=5), STEPS + 1),
        (BestOfN(n=50), STEPS + 1),
        (BestOfN(n=5, scorer="logprob"), STEPS),
        (BestOfN(n=5, scorer="confidence"), STEPS),
    ],
    ids=repr,
)
async def test_n_sequences_take_as_long_as_one_and_all_verdicts_one_step_more(
    optimizer: Optimizer, steps: int
) -> None:
    client = ScriptedClient(lambda prompt: "word " * (STEPS - 4) + "The answer is 7.", seconds_per_token=1.0)
    await optimizer.optimize(Prompt.of("What is 3 + 4?", seed=0), client)
    assert client.clock() == client.stats().steps == steps


LEAST = {
    "single": 1,
    "re2": 1,
    "cot_reflection": 1,
    "self_consistency": 1,
    "majority_voting": 1,
    "best_of_n": 2,
    "genselect": 2,
    "moa": 3,
    "rto": 4,
    "plansearch": 4,
    "deepthink": 4,
    "leap": 5,
    "pvg": 5,
    "rstar": 5,
    "cepo": 5,
    "mars": 7,
    "mcts": 10,
}
"""Rounds that codelion's calls need at its defaults if all that can be asked together is; it takes 1 to 17."""


@pytest.mark.parametrize("name", LEAST)
async def test_at_the_defaults_no_more_rounds_wait_for_one_another_than_must(name: str) -> None:
    run = await dry_run(name)
    assert 1 <= run.depth <= LEAST[name]
    assert run.steps <= LEAST[name] * ROUND + run.reads
