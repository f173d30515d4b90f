"""What may be spent."""

import math
from typing import Any

import pytest

from optillm_local import Budget, Prompt, ScriptedClient, Stop
from optillm_local.core.budget import Meter
from optillm_local.core.errors import BudgetExceeded, InvalidConfiguration
from optillm_local.core.span import open_run

QUESTION = Prompt.of("Count.", seed=0)


def talker(words: int = 50) -> ScriptedClient:
    return ScriptedClient(lambda prompt: "word " * words, seconds_per_token=1.0)


@pytest.mark.parametrize("field", ["tokens", "seconds"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "9"])
def test_a_limit_that_cannot_work_is_refused(field: str, value: Any) -> None:
    with pytest.raises(
        InvalidConfiguration, match=rf"budget {field}=.*(finite number above 0|whole number of at least 1)"
    ):
        Budget(**{field: value})


def test_no_limit_is_never_spent() -> None:
    meter = Meter(Budget(), started=0.0)
    meter.add(10**12)
    assert not meter.spent(now=1e12)
    assert (meter.remaining_tokens(), meter.remaining_seconds(1e12)) == (None, math.inf)


def test_what_remains_is_never_negative() -> None:
    meter = Meter(Budget(tokens=10, seconds=5.0), started=100.0)
    assert (meter.remaining_tokens(), meter.remaining_seconds(103.0)) == (10, 2.0)
    meter.add(12)
    assert (meter.remaining_tokens(), meter.remaining_seconds(106.0)) == (0, 0.0)


@pytest.mark.parametrize(
    ("budget", "tokens", "now", "message"),
    [
        (Budget(tokens=10), 10, 0.0, "10 tokens is spent .10 used"),
        (Budget(tokens=10, seconds=9.0), 12, 0.0, "10 tokens is spent .12 used"),
        (Budget(seconds=5.0), 0, 105.0, "5 seconds is spent .105 used"),
        (Budget(tokens=10, seconds=5.0), 0, 106.0, "5 seconds is spent .106 used"),
    ],
)
def test_a_spent_budget_says_which_limit_and_remembers_it(
    budget: Budget, tokens: int, now: float, message: str
) -> None:
    meter = Meter(budget, started=0.0)
    meter.check(0.0)
    meter.add(tokens)
    with pytest.raises(BudgetExceeded, match=message):
        meter.check(now)
    assert meter.exhausted and meter.spent(0.0)


async def test_one_sequence_is_cut_exactly_at_the_token_budget() -> None:
    client = talker()
    with open_run(meter=Meter(Budget(tokens=7), client.clock())) as run:
        [one] = await client.sample(QUESTION)
    assert one.finish_reason != "stop"
    assert one.usage.completion == run.usage.completion == client.stats().generated_tokens == 7


async def test_siblings_are_aborted_one_step_after_the_budget_is_spent_at_the_latest() -> None:
    client = talker()
    with open_run(meter=Meter(Budget(tokens=10), client.clock())) as run:
        group = await client.sample(QUESTION, n=4)
    assert {one.finish_reason for one in group} == {"abort"}
    assert 10 <= run.usage.completion == run.usage.discarded <= 10 + 4


async def test_time_ends_a_sequence_on_the_clients_clock() -> None:
    client = talker()
    with open_run(meter=Meter(Budget(seconds=5.0), client.clock())):
        [one] = await client.sample(QUESTION)
    assert (one.finish_reason, one.usage.completion, client.clock()) == ("abort", 5, 5.0)


async def test_discarded_tokens_count_too() -> None:
    client = talker(words=3)
    meter = Meter(Budget(tokens=99), client.clock())
    with open_run(meter=meter) as run:
        await client.sample(QUESTION, n=2, on_delta=lambda index, delta: Stop.SEQUENCE if index else None)
        await client.choose(QUESTION, ["Yes", "No"])
        await client.score(QUESTION, ["a", "b"])
    assert meter.tokens == run.usage.completion > 0 < run.usage.discarded


@pytest.mark.parametrize("verb", ["sample", "choose", "score"])
async def test_nothing_may_be_asked_once_the_budget_is_spent(verb: str) -> None:
    client = talker()
    meter = Meter(Budget(tokens=1), client.clock(), tokens=1)
    asks = {
        "sample": lambda: client.sample(QUESTION),
        "choose": lambda: client.choose(QUESTION, ["Yes", "No"]),
        "score": lambda: client.score(QUESTION, ["a"]),
    }
    with open_run(meter=meter), pytest.raises(BudgetExceeded):
        await asks[verb]()
    assert client.prompts == []
