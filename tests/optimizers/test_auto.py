"""The router spends as much as one answer, a vote or another optimizer, and no more than it must."""

import pytest

from optillm_local import Prompt, ScriptedClient, Solution, asolve, create
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.span import open_run
from optillm_local.optimizers.auto import Auto

QUESTION = Prompt.of("What is 3 * 4?", seed=0)
STEPS = 4
PROSE = "I thought about it for quite a while and in the end did not come to any conclusion about it at all"


async def route(answers: str, p_correct: float, **options: object) -> tuple[Solution, ScriptedClient]:
    """Answer i is answers[i]; the optimizer for hard questions says 99."""

    def path(prompt: Prompt) -> str:
        seed = prompt.sampling.seed or 0
        return f"The answer is {answers[seed] if seed < len(answers) else 99}."

    client = ScriptedClient(path, choices={"Yes": p_correct, "No": 1 - p_correct}, seconds_per_token=1.0)
    return await Auto(hard="single", **options).optimize(QUESTION, client), client


@pytest.mark.parametrize(
    ("answers", "p_correct", "answer", "steps", "selection"),
    [
        ("78978", 0.95, "The answer is 7.", STEPS + 1, "the first answer is sure: P(correct) 0.950"),
        ("78878", 0.5, "8", 2 * STEPS + 1, "3 of 5 paths agree"),
        ("78979", 0.5, "The answer is 99.", 3 * STEPS + 1, "the only completion"),
    ],
    ids=["sure", "agreed", "hard"],
)
async def test_each_level_is_entered_only_if_the_one_before_leaves_the_question_open(
    answers: str, p_correct: float, answer: str, steps: int, selection: str
) -> None:
    found, client = await route(answers, p_correct)
    assert (found.answer, found.metadata["selection"]) == (answer, selection)
    assert client.clock() == client.stats().steps == steps


async def test_the_first_answer_has_a_vote_and_is_not_sampled_again() -> None:
    _, client = await route("77777", 0.5)
    sampled = [prompt.sampling.seed for prompt in client.prompts if prompt.log_tag != "verdict"]
    assert sorted(seed or 0 for seed in sampled) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "calls"), [({"sure": 0.5}, 2), ({"agreed": 0.4}, 6), ({"n": 3}, 5), ({"scorer": "logprob"}, 6)]
)
async def test_thresholds_decide_how_far_it_goes(options: dict[str, object], calls: int) -> None:
    _, client = await route("78979", 0.5, **options)
    assert len(client.prompts) == calls


async def test_each_candidate_is_on_record_once() -> None:
    with open_run() as run:
        await route("78979", 0.5)
    assert len(run.solutions) == 5 + 1


@pytest.mark.parametrize(
    ("options", "answers", "selection", "discarded"),
    [
        ({}, "7----", "the only completion", 0),  # who states nothing agrees with nobody
        ({}, "7xyz7", "the only completion", 1),  # 3 of 5 cannot agree once four have differed
        ({"agreed": 0.8}, "77789", "the only completion", 0),
        ({"agreed": 0.8}, "77778", "4 of 4 paths agree; 1 aborted once enough paths agreed", 1),
        ({"agreed": 0.3}, "78788", "3 of 5 paths agree", 0),  # 2 of 5 were enough, but could be overtaken
    ],
)
async def test_a_vote_counts_if_enough_of_all_answers_agree(
    options: dict[str, object], answers: str, selection: str, discarded: int
) -> None:
    def path(prompt: Prompt) -> str:
        place = prompt.sampling.seed or 0
        if place >= len(answers) or answers[place] == "-":
            return PROSE
        return "so " * place + f"The answer is {answers[place]}."

    client = ScriptedClient(path, choices={"Yes": 0.5, "No": 0.5})
    result = await asolve(QUESTION, create("auto", hard="single", **options), client=client)
    assert result.selection == selection and (result.usage.discarded > 2) == bool(discarded)


async def test_a_sure_answer_is_returned_whole_and_not_its_last_number() -> None:
    letter = "Dear Ann,\nI shall be there in 5 minutes.\nBob"
    client = ScriptedClient(lambda prompt: letter, choices={"Yes": 1.0, "No": 0.0})
    assert (await Auto().optimize("Write to Ann.", client)).answer == letter


async def test_the_vote_stands_in_for_an_optimizer_that_has_no_solution() -> None:
    def path(prompt: Prompt) -> str:
        return f"The answer is {prompt.sampling.seed}." if (prompt.sampling.seed or 0) < 5 else ""

    client = ScriptedClient(path, choices={"Yes": 0.5, "No": 0.5})
    best = await Auto(hard="best_of_n").optimize(QUESTION, client)
    assert best.metadata["selection"] == "1 of 5 paths agree"


@pytest.mark.parametrize("name", ["rubbish", "single@rubbish"])
def test_an_optimizer_that_does_not_exist_is_refused_at_once(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match="rubbish"):
        create("auto", hard=name)


def test_any_combination_may_be_the_last_resort() -> None:
    assert isinstance(create("auto", hard="best_of_n@self_consistency"), Auto)
