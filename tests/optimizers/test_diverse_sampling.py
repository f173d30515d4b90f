"""Diverse sampling goes from cool to hot and judges what differs."""

import pytest

from optillm_local import Prompt, ScriptedClient, create
from optillm_local.clients import Reply
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.span import open_run
from optillm_local.optimizers.diverse_sampling import DiverseSampling

QUESTION = Prompt.of("What is 3 * 4?", seed=0)


@pytest.mark.parametrize(
    ("options", "ladder"),
    [({}, [0.3, 0.6, 0.9, 1.2, 1.5]), ({"n": 3, "coolest": 0, "hottest": 2}, [0, 1, 2]), ({"n": 1}, [0.3])],
)
async def test_temperatures_are_evenly_spaced(options: dict[str, float], ladder: list[float]) -> None:
    client = ScriptedClient(lambda prompt: f"It is {prompt.sampling.temperature}.")
    with open_run() as run:
        await DiverseSampling(**options).optimize(QUESTION, client)
    assert [p.sampling.temperature for p in client.prompts if p.log_tag is None] == ladder
    assert sorted(one.temperature for one in run.solutions) == ladder


def test_the_ladder_rises() -> None:
    with pytest.raises(InvalidConfiguration, match="at most hottest"):
        create("diverse_sampling", coolest=1.6)


async def test_repetitions_are_neither_judged_nor_kept() -> None:
    texts = ["Three times four is 12.", "three times four is 12", "It makes 12.", "Three times four is 13.", "13!"]
    client = ScriptedClient(lambda prompt: texts[prompt.sampling.seed or 0], seconds_per_token=1.0)
    with open_run() as run:
        await DiverseSampling().optimize(QUESTION, client)
    assert len(run.solutions) == len([p for p in client.prompts if p.log_tag == "verdict"]) == 4
    assert client.clock() == 6  # the samples, and one read


async def test_the_best_by_the_scorer_is_returned() -> None:
    client = ScriptedClient(lambda p: Reply(f"It is {p.sampling.seed}.", -0.1 - abs((p.sampling.seed or 0) - 3)))
    assert (await DiverseSampling(scorer="logprob").optimize(QUESTION, client)).answer == "It is 3."
