"""How long the optimizers take, in steps of the model: what does not depend on an answer waits for none."""

import pytest

from optillm_local import Optimizer, Prompt, ScriptedClient
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
