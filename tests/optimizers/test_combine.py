"""Optimizers made of optimizers: in turn, side by side, and one inside another."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from optillm_local import Budget, Message, ModelClient, Optimizer, Prompt, ScriptedClient, Solution, asolve, create
from optillm_local.clients import Reply
from optillm_local.core.errors import BudgetExceeded, InvalidConfiguration, NoSolutions
from optillm_local.core.events import Event, SequenceCompleted, StoppedEarly
from optillm_local.core.options import frozen_options
from optillm_local.core.span import open_run
from optillm_local.optimizers.adaptive_consistency import AdaptiveConsistency
from optillm_local.optimizers.best_of_n import BestOfN
from optillm_local.optimizers.combine import Over, Then, Vote
from optillm_local.optimizers.sampled_by import SampledBy
from optillm_local.optimizers.self_consistency import SelfConsistency
from optillm_local.optimizers.single import Single
from optillm_local.registry import options_as_dict

TALK = (
    Message("system", "Be exact."),
    Message("user", "Think of 3 and 4."),
    Message("assistant", "Done."),
    Message("user", "What is their product?"),
)
QUESTION = Prompt.of(TALK, seed=0)
STEPS = 4
SPELLED = [
    "best_of_n&self_consistency",
    "best_of_n|self_consistency|single",
    "self_consistency@best_of_n",
    "best_of_n@self_consistency@single",
    "best_of_n&single|self_consistency@single",
]


def says(prompt: Prompt) -> str:
    """An answer that differs from seed to seed, in STEPS tokens."""
    return f"The answer is {(prompt.sampling.seed or 0) % 3}."


class Stops:
    """An event sink: how many sequences were stopped for which reason, and how many were aborted."""

    def __init__(self) -> None:
        self.reasons, self.aborted = Counter[str](), 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StoppedEarly):
            self.reasons[event.reason] += len(event.sequence_ids)
        self.aborted += isinstance(event, SequenceCompleted) and event.finish_reason == "abort"


@frozen_options
class Lost(Optimizer):
    """Has no solution."""

    name: ClassVar[str] = "lost"
    description: ClassVar[str] = "for tests"

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        raise NoSolutions("lost")


@frozen_options
class Poor(Optimizer):
    """Has the budget for a short answer."""

    name: ClassVar[str] = "poor"
    description: ClassVar[str] = "for tests"

    async def optimize(self, query: str | Prompt, client: ModelClient) -> Solution:
        solution = await Single().optimize(query, client)
        if solution.token_count > 4:
            raise BudgetExceeded("tokens", solution.token_count, 4)
        return solution


# -- spelling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "made"),
    [
        ("single&best_of_n", Then(members=(Single(), BestOfN()))),
        ("single | best_of_n", Vote(members=(Single(), BestOfN()))),
        ("best_of_n@single", Over(members=(BestOfN(), Single()))),
        ("single&single&single", Then(members=(Single(), Single(), Single()))),
        (
            "best_of_n&single|self_consistency@single",
            Vote(members=(Then(members=(BestOfN(), Single())), Over(members=(SelfConsistency(), Single())))),
        ),
    ],
)
def test_at_binds_tightest_then_and_then_or(spelling: str, made: Optimizer) -> None:
    assert create(spelling) == made and create(spelling).name == spelling.replace(" ", "")


@pytest.mark.parametrize(
    ("spelling", "options", "n"),
    [
        ("best_of_n&single", {"n": "7"}, [7]),
        ("best_of_n&self_consistency", {"best_of_n.n": 7}, [7, 5]),
        ("best_of_n|self_consistency", {"self_consistency.n": 7, "best_of_n.n": 2}, [2, 7]),
        ("best_of_n&single|self_consistency@single", {"self_consistency.n": 7}, [3, 7]),
        ("best_of_n&single|best_of_n@single", {"n": 7}, [7, 7]),
        ("best_of_n@self_consistency", {"weights": "probability", "enough": 0.5, "best_of_n.n": 2}, [2, 5]),
    ],
)
def test_an_option_goes_to_the_part_that_has_it(spelling: str, options: dict[str, Any], n: list[int]) -> None:
    told = json.dumps(options_as_dict(create(spelling, **options)))
    assert [int(found) for found in re.findall(r'"n": (\d+)', told)] == n


@pytest.mark.parametrize(
    ("spelling", "options", "message"),
    [
        ("best_of_n|self_consistency", {"n": 3}, r"option n=3: say which: best_of_n\.n or self_consistency\.n"),
        (
            "best_of_n&single|self_consistency",
            {"n": 3},
            r"option n=3: say which: best_of_n\.n or self_consistency\.n",
        ),
        ("best_of_n&single", {"scorrer": 3}, r"scorrer=3: unknown\. Did you mean 'scorer'"),
        ("best_of_n&single", {"best_of_n.scorrer": 3}, r"unknown\. Did you mean 'best_of_n\.scorer'"),
        ("best_of_n&single", {"mars.n": 3}, r"mars\.n=3: unknown"),
        ("single&single", {"n": 3}, r"n=3: unknown\. Known: none"),
        ("best_of_n&single", {"n": "many"}, "best_of_n option n='many': .*valid integer"),
        ("best_of_n&singel", {}, r"optimizer='singel': unknown\. Did you mean 'single'"),
        ("best_of_n&", {}, "on both sides of '&'"),
        ("@", {}, "on both sides of '@'"),
    ],
)
def test_what_cannot_work_is_refused_by_name_with_a_remedy(
    spelling: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        create(spelling, **options)


# -- what holds for all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", [*SPELLED, "mars|single"])
async def test_a_result_tells_what_it_was_made_of_and_counts_everything_once(spelling: str) -> None:
    client = ScriptedClient(says)
    result = await asolve(QUESTION, spelling, client=client)
    told = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    made_of = re.split("[|]", spelling) if "|" in spelling else re.split("[&@]", spelling)
    assert [member["name"] for member in told["options"]["members"]] == made_of
    assert result.usage.completion == client.stats().generated_tokens
    assert result.usage.prompt == client.stats().computed_prompt_tokens


@pytest.mark.parametrize("spelling", SPELLED)
async def test_the_conversation_is_kept_in_every_call(spelling: str) -> None:
    client = ScriptedClient(says)
    await create(spelling).optimize(QUESTION, client)
    assert all(prompt.messages[:4] == TALK for prompt in client.prompts)


@pytest.mark.parametrize("spelling", SPELLED)
@pytest.mark.parametrize("text", ["nonsense", "<think>never closed", "12 " * 99])
async def test_whatever_the_model_says_there_is_a_solution(spelling: str, text: str) -> None:
    client = ScriptedClient(lambda prompt: text)
    assert isinstance(await create(spelling).optimize(QUESTION.but(max_tokens=32), client), Solution)


@pytest.mark.parametrize("spelling", SPELLED)
@pytest.mark.parametrize("tokens", [1, 8, 30])
async def test_a_spent_budget_gives_the_best_so_far(spelling: str, tokens: int) -> None:
    client = ScriptedClient(lambda prompt: "Hm. " * ((prompt.sampling.seed or 0) % 7) + says(prompt))
    result = await asolve(QUESTION, spelling, client=client, budget=Budget(tokens=tokens))
    assert result.answer and (result.budget_exhausted or result.usage.completion < tokens)
    assert result.usage.completion == client.stats().generated_tokens


@pytest.mark.parametrize("spelling", SPELLED)
async def test_the_same_seed_asks_the_same_and_no_two_sequences_share_one(spelling: str) -> None:
    runs = []
    for _ in range(2):
        client = ScriptedClient(says, choices={"Yes": 0.5, "No": 0.5})
        await create(spelling).optimize(QUESTION, client)
        runs.append(
            sorted((p.log_tag or "", p.sampling.seed or 0) for p in client.prompts if p.log_tag != "verdict")
        )
    assert runs[0] == runs[1]
    seeds = [seed for _, seed in runs[0]]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("spelling", "steps"),
    [
        ("single&single", 2 * STEPS),
        ("single|single|single", STEPS + 1),
        ("self_consistency@single", STEPS),
        ("self_consistency@best_of_n", STEPS + 1),
        ("best_of_n@self_consistency", STEPS + 1),
    ],
)
async def test_only_what_depends_on_an_answer_waits_for_it(spelling: str, steps: int) -> None:
    client = ScriptedClient(
        lambda prompt: "The answer is 7.", choices={"Yes": 0.5, "No": 0.5}, seconds_per_token=1
    )
    await create(spelling).optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == steps


# -- then --------------------------------------------------------------------------------------------------------


async def test_the_next_goes_on_from_the_tokens_of_the_draft() -> None:
    client = ScriptedClient(says)
    await Then(members=(Single(), Single())).optimize(QUESTION, client)
    *before, draft, ask = client.prompts[1].messages
    assert tuple(before) == TALK and "draft" in ask.content
    assert (draft.role, len(draft.token_ids), draft.content) == ("assistant", STEPS, says(client.prompts[0]))


async def test_an_answer_that_was_voted_on_is_handed_on_with_its_reasoning() -> None:
    client = ScriptedClient(lambda prompt: "Three times four. The answer is 12.")
    await create("self_consistency&single").optimize(QUESTION, client)
    assert client.prompts[-1].messages[-2].content == "Three times four. The answer is 12."


# -- vote --------------------------------------------------------------------------------------------------------


def believes(**words: float) -> Any:
    """P(Yes) by a word of the answer."""

    def choices(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
        p = next(p for word, p in words.items() if word in prompt.messages[-2].content)
        return {"Yes": p, "No": 1 - p}

    return choices


@pytest.mark.parametrize(
    ("weights", "answer", "selection"),
    [
        ({"seven": 0.4, "eight": 0.7}, "seven", "2 of 3 optimizers agree"),
        ({"seven": 0.4, "eight": 0.9}, "eight", "1 of 3 optimizers agree"),
    ],
)
async def test_equal_answers_add_up_by_what_the_verifier_thinks_of_them(
    weights: dict[str, float], answer: str, selection: str
) -> None:
    answers = iter(["seven", "eight", "seven"])
    client = ScriptedClient(lambda prompt: next(answers), choices=believes(**weights))
    found = await Vote(members=(Single(), Single(), Single())).optimize(QUESTION, client)
    assert (found.answer, found.metadata["selection"]) == (answer, selection)


async def test_a_vote_that_is_decided_aborts_the_rest() -> None:
    answers = iter(["seven", "seven", "word " * 500])
    client = ScriptedClient(lambda prompt: next(answers), choices={"Yes": 1.0})
    stopped = Stops()
    result = await asolve(QUESTION, Vote(members=(Single(),) * 3), client=client, sinks=[stopped])
    assert result.selection == "2 of 2 optimizers agree; 1 aborted once the vote was decided"
    assert stopped.reasons == {"the vote was decided": 1}
    assert client.stats().steps < 10 and client.stats().running == 0
    assert result.usage.completion == client.stats().generated_tokens


async def test_a_tie_that_the_first_member_may_still_win_is_waited_for() -> None:
    client = ScriptedClient(
        lambda prompt: "Hm. eight" if prompt.sampling.seed == first.sampling.seed else "seven",
        choices={"Yes": 1.0},
    )
    first = QUESTION.step("single", 0)
    found = await Vote(members=(Single(), Single())).optimize(QUESTION, client)
    assert (found.answer, found.metadata["selection"]) == ("Hm. eight", "1 of 2 optimizers agree")


async def test_the_candidates_on_record_learn_their_weights() -> None:
    client = ScriptedClient(lambda prompt: "seven", choices={"Yes": 0.3, "No": 0.7})
    with open_run() as run:
        await Vote(members=(Single(), Single())).optimize(QUESTION, client)
    assert [one.verification_score for one in run.solutions] == pytest.approx([0.3, 0.3])


async def test_who_has_no_solution_abstains() -> None:
    client = ScriptedClient(lambda prompt: "seven")
    found = await Vote(members=(Lost(), Single())).optimize(QUESTION, client)
    assert (found.answer, found.metadata["selection"]) == (
        "seven",
        "1 of 1 optimizers agree; 1 without a solution",
    )
    with pytest.raises(NoSolutions, match="none of the optimizers"):
        await Vote(members=(Lost(), Lost())).optimize(QUESTION, client)


async def test_who_has_no_budget_left_for_a_solution_abstains() -> None:
    client = ScriptedClient(
        lambda prompt: "word " * 30 if prompt.log_tag == "propose" else "The answer is 7.", choices={"Yes": 1.0}
    )
    result = await asolve(QUESTION, "single|moa", client=client, budget=Budget(tokens=60))
    assert result.selection == "1 of 1 optimizers agree; 1 without a solution" and result.budget_exhausted


# -- over --------------------------------------------------------------------------------------------------------


async def test_every_sample_is_the_answer_of_the_inner_optimizer() -> None:
    def answers(prompt: Prompt) -> Reply:
        sure = (prompt.sampling.seed or 0) % 5 == 0
        return Reply("The answer is 12." if sure else "The answer is 7.", -0.01 if sure else -1.0)

    client = ScriptedClient(answers)
    spelled = create("self_consistency@best_of_n", **{"best_of_n.n": 40, "scorer": "logprob"})
    found = await spelled.optimize(QUESTION, client)
    assert (found.answer, found.metadata["share"]) == ("12", 1.0)


@pytest.mark.parametrize(
    ("outer", "because"),
    [
        (SelfConsistency(n=8), "the vote was decided"),
        (AdaptiveConsistency(n=8), "the majority was certain enough"),
    ],
)
async def test_a_sample_that_is_no_longer_needed_ends_the_inner_optimizer_midway(
    outer: Optimizer, because: str
) -> None:
    calls = iter(range(99))
    client, stopped = ScriptedClient(lambda _: "The answer is 7." if next(calls) < 8 else "word " * 500), Stops()
    with open_run([stopped]):
        found = await Over(members=(outer, BestOfN(n=2, scorer="logprob"))).optimize(QUESTION, client)
    assert found.answer == "7" and client.stats().running == 0
    assert client.stats().steps < 20
    assert (stopped.reasons, stopped.aborted) == ({because: 8}, 8)


async def test_a_sample_that_there_is_none_of_is_empty() -> None:
    client = SampledBy(Lost(), ScriptedClient([]))
    assert [(one.text, one.finish_reason) for one in await client.sample(QUESTION, n=2)] == [("", "stop")] * 2
    with pytest.raises(NoSolutions, match="wrote nothing"):
        await SelfConsistency().optimize(QUESTION, client)


async def test_samples_that_the_budget_does_not_suffice_for_are_aborted() -> None:
    client = SampledBy(Poor(), ScriptedClient(["long " * 9, "short", "long " * 9]))
    found = [(one.text, one.finish_reason) for one in await client.sample(QUESTION, n=3)]
    assert sorted(found) == [("", "abort"), ("", "abort"), ("short", "stop")]


@pytest.mark.parametrize("n", [1, 3])
async def test_a_budget_that_suffices_for_no_sample_is_the_error(n: int) -> None:
    client = SampledBy(Poor(), ScriptedClient(["long " * 9] * 3))
    with pytest.raises(BudgetExceeded, match="4 tokens"):
        await client.sample(QUESTION, n=n)


async def test_probabilities_are_the_models_and_counted_once() -> None:
    client = ScriptedClient(says, choices={"Yes": 0.25, "No": 0.75})
    inner = SampledBy(Single(), SampledBy(Single(), client))
    with open_run() as run:
        assert (await inner.choose(QUESTION, ["Yes", "No"]))["Yes"] == 0.25
        [score] = await inner.score(QUESTION, ["12"])
    assert (run.usage.completion, client.stats().generated_tokens, score.total < 0) == (2, 2, True)
    assert (inner.model, inner.virtual_time, inner.clock()) == ("scripted", True, client.clock())
