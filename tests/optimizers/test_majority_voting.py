"""Majority voting is self-consistency at codelion's defaults."""

from optillm_local import Prompt, ScriptedClient
from optillm_local.optimizers.majority_voting import MajorityVoting


async def test_eight_paths_vote_at_temperature_0_6() -> None:
    client = ScriptedClient([f"The answer is {answer}." for answer in (7, 12, 12, 9, 7, "12.0", 12, 1)])
    best = await MajorityVoting(stop="never").optimize(Prompt.of("What is 3 * 4?", seed=0), client)
    assert (best.answer, best.metadata["selection"]) == ("12", "4 of 8 paths agree")
    assert [prompt.sampling.temperature for prompt in client.prompts] == [0.6] * 8
    assert best.temperature == 0.6
