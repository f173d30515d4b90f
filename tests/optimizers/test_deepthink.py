"""Deepthink makes a plan of the question's own, and answers greedily where samples along it disagree."""

import json

import pytest

from optillm_local import Prompt, ScriptedClient, Solution
from optillm_local.optimizers.deepthink import MODULES, PLAN, DeepThink

QUESTION = Prompt.of("What is 3 * 4?", seed=0)
PLANNING = {"select": "[9, 1]", "adapt": "1. Split it.\n2. Try it.", "implement": '{"split": "3 * 2 * 2"}'}


def scripted(samples: list[str], greedy: str = "The answer is 99.", **planning: str) -> ScriptedClient:
    """Samples in order of their seeds."""
    first = 0

    def says(prompt: Prompt) -> str:
        nonlocal first
        if prompt.log_tag == "sample":
            first = first or prompt.sampling.seed or 0
            return samples[(prompt.sampling.seed or 0) - first]
        return greedy if prompt.log_tag == "greedy" else (PLANNING | planning)[prompt.log_tag or ""]

    return ScriptedClient(says, seconds_per_token=1.0)


async def answered(client: ScriptedClient, **options: float) -> Solution:
    return await DeepThink(**options).optimize(QUESTION, client)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("samples", "threshold", "answer"),
    [
        ("12 12 12", 0.6, "12"),
        ("7 12 12", 0.6, "12"),
        ("7 8 12", 0.6, "The answer is 99."),
        ("7 12 12", 0.7, "The answer is 99."),
    ],
)
async def test_the_vote_counts_if_enough_agree_and_else_the_greedy_answer(
    samples: str, threshold: float, answer: str
) -> None:
    client = scripted([f"The answer is {one}." for one in samples.split()])
    assert (await answered(client, threshold=threshold)).answer == answer


async def test_what_cannot_matter_any_more_is_aborted() -> None:
    long = "so " * 400
    agreeing = scripted(["The answer is 12."] * 2 + [long], long)
    best = await answered(agreeing)
    assert best.metadata["selection"] == "2 of 2 paths agree; 1 aborted once enough paths agreed"
    assert agreeing.stats().steps < 30
    split = scripted(["The answer is 1.", "The answer is 2.", long], "so " * 20 + "The answer is 99.")
    best = await answered(split, threshold=1.0)
    assert best.metadata["selection"] == "the greedy answer: only 1 of 3 samples agree"
    assert split.stats().steps < 60


async def test_samples_and_greedy_answer_follow_the_plan_with_their_own_sampling() -> None:
    client = scripted(["The answer is 12."] * 3)
    await answered(client)
    select, adapt, implement, *samples, greedy = client.prompts
    assert all(f"{number}. {module}" in select.question for number, module in enumerate(MODULES, start=1))
    assert f"1. {MODULES[8]}\n2. {MODULES[0]}\n" in adapt.question
    assert "1. Split it.\n2. Try it." in implement.question
    assert all(json.dumps({"split": "3 * 2 * 2"}, indent=2) in prompt.question for prompt in [*samples, greedy])
    assert [(p.sampling.temperature, p.sampling.top_p) for p in samples] == [(0.7, 0.95)] * 3
    assert (greedy.sampling.temperature, greedy.sampling.top_p) == (0.0, 1.0)
    assert len(MODULES) == 39


@pytest.mark.parametrize(
    ("select", "chosen"),
    [
        ("I choose 4, 40 and 2.", [4, 2]),
        ("Of 39: [3, 3, 5]", [3, 5]),
        ("none", [1, 2, 3, 4, 5]),
        ("[0]", [1, 2, 3, 4, 5]),
        (str(list(range(1, 40))), [1, 2, 3, 4, 5, 6, 7]),
    ],
)
async def test_modules_are_chosen_by_number(select: str, chosen: list[int]) -> None:
    client = scripted(["The answer is 12."] * 3, select=select)
    await answered(client)
    listed = "\n".join(f"{place}. {MODULES[one - 1]}" for place, one in enumerate(chosen, start=1))
    assert f"{listed}\n\n" in client.prompts[1].question


@pytest.mark.parametrize("implement", ["", "no", "{", "{}", "[1]", '{"a": '])
async def test_a_fixed_plan_stands_in_for_one_that_is_not_json(implement: str) -> None:
    client = scripted(["The answer is 12."] * 3, implement=implement)
    await answered(client)
    assert json.dumps(PLAN, indent=2) in client.prompts[-1].question


async def test_the_vote_stands_in_for_a_greedy_answer_that_is_not_there() -> None:
    client = scripted([f"{'so ' * n} The answer is {n}." for n in (1, 2, 3)], "")
    assert (await answered(client)).answer == "1"
