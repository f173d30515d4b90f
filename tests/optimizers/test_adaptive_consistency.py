"""Adaptive consistency samples as much as the question needs, side by side."""

import pytest

from optillm_local import Prompt, ScriptedClient, asolve
from optillm_local.optimizers.adaptive_consistency import AdaptiveConsistency

QUESTION = Prompt.of("What is 3 * 4?", seed=0)
STEPS = 8


def client_saying(answers: str) -> ScriptedClient:
    """Path i states answers[i], the last one for all that follow, each in STEPS tokens."""

    def path(prompt: Prompt) -> str:
        seed = prompt.sampling.seed or 0
        return "Hm. " * (STEPS - 4) + f"The answer is {answers[min(seed, len(answers) - 1)]}."

    return ScriptedClient(path, seconds_per_token=1.0)


async def test_four_that_agree_are_enough() -> None:
    client = client_saying("7")
    result = await asolve(QUESTION, AdaptiveConsistency(width=4), client=client)
    assert (result.answer, len(client.prompts)) == ("7", 7)
    assert (
        result.selection == "4 of 4 paths agree; 3 aborted and 33 not begun once the majority was certain enough"
    )


@pytest.mark.parametrize(
    ("answers", "width", "begun", "depth"),
    [
        ("7", 1, 4, 4),  # 4 to 0
        ("7", 8, 11, 1),
        ("78", 1, 7, 7),  # 6 to 1
        ("12345678", 8, 20, 2),  # 5 more of the last, which has one already
        ("1234567890" * 4, 40, 40, 1),
        ("1234567890" * 4, 8, 40, 5),
    ],
)
async def test_another_begins_when_one_ends_until_the_majority_is_certain(
    answers: str, width: int, begun: int, depth: int
) -> None:
    client = client_saying(answers)
    await AdaptiveConsistency(width=width).optimize(QUESTION, client)
    assert (len(client.prompts), client.peak_concurrency) == (begun, min(width, begun))
    assert depth * STEPS <= client.clock() <= depth * STEPS + 1  # those that are aborted end a step later


async def test_a_path_that_ends_early_makes_room_at_once() -> None:
    client = ScriptedClient(
        lambda prompt: (
            "Hm. " * (16 if prompt.sampling.seed == 0 else 0) + f"The answer is {prompt.sampling.seed}."
        ),
        seconds_per_token=1.0,
    )
    await AdaptiveConsistency(n=6, width=2).optimize(QUESTION, client)
    assert client.clock() == 20  # one of 20 tokens beside five of 4


async def test_paths_in_flight_are_aborted_mid_token_when_the_rule_is_met() -> None:
    client = ScriptedClient(
        lambda prompt: "The answer is 7." if (prompt.sampling.seed or 0) < 4 else "word " * 500
    )
    result = await asolve(QUESTION, AdaptiveConsistency(), client=client)
    assert (
        result.selection == "4 of 4 paths agree; 7 aborted and 29 not begun once the majority was certain enough"
    )
    assert result.usage.completion - result.usage.discarded == 4 * 4
    assert client.stats().running == 0


@pytest.mark.parametrize(("threshold", "begun"), [(0.6, 1), (0.9, 3), (0.95, 4), (0.999, 9)])
async def test_a_higher_threshold_hears_more(threshold: float, begun: int) -> None:
    client = client_saying("7")
    await AdaptiveConsistency(width=1, threshold=threshold).optimize(QUESTION, client)
    assert len(client.prompts) == begun


async def test_the_paths_are_those_of_self_consistency() -> None:
    client = client_saying("7")
    await AdaptiveConsistency(n=3).optimize(QUESTION, client)
    assert sorted(map(repr, client.prompts)) == sorted(map(repr, QUESTION.fan(3)))
