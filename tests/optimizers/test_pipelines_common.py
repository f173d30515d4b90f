"""What holds of every optimizer that works in steps: its depth, the conversation, bad replies, budgets, seeds."""

import pytest

from optillm_local import Budget, Message, Optimizer, Prompt, ScriptedClient, asolve
from optillm_local.core.errors import BudgetExceeded, OptillmError
from optillm_local.optimizers.cepo import CerebrasPlanning
from optillm_local.optimizers.cot_reflection import ChainOfThoughtReflection
from optillm_local.optimizers.deepthink import DeepThink
from optillm_local.optimizers.leap import LearningPrinciples
from optillm_local.optimizers.moa import MixtureOfAgents
from optillm_local.optimizers.plansearch import PlanSearch
from optillm_local.optimizers.re2 import ReReading
from optillm_local.optimizers.rsa import RecursiveSelfAggregation
from optillm_local.optimizers.rto import RoundTripOptimization

STEPS = 24
EXAMPLES = '[{"question":"1+1?","answer":"2"},{"question":"3+3?","answer":"6"}]'
SAYS = {
    "examples": f"<output>{EXAMPLES}</output>",
    "mistake": "One too many. <output>7</output>",
    "principle": "<output>Count twice.</output>",
    "principles": "<output>1. Count twice.\n2. Say it.</output>",
    "select": "[1, 5, 9]",
    "adapt": "1. Add.\n2. Check.",
    "implement": '{"sum": "add the numbers"}',
}
DEFAULTS: list[Optimizer] = [
    MixtureOfAgents(),
    ReReading(),
    ChainOfThoughtReflection(),
    RoundTripOptimization(),
    LearningPrinciples(),
    PlanSearch(),
    DeepThink(),
    CerebrasPlanning(),
    RecursiveSelfAggregation(),
]
BARE_ANSWERS = {"propose", "code", "apply", "reread", "reflect"}
"""Steps that others build on, or that stand alone: without them there is nothing."""

every_optimizer = pytest.mark.parametrize("optimizer", DEFAULTS, ids=lambda one: one.name)


def says(prompt: Prompt) -> str:
    """A plausible reply of exactly STEPS words to any step."""
    said = SAYS.get(prompt.log_tag or "", f"Draw {prompt.sampling.seed}. The answer is 7.")
    return "so " * (STEPS - len(said.split())) + said


@pytest.mark.parametrize(
    ("optimizer", "depth", "reads"),
    [
        (MixtureOfAgents(), 3, 0),
        (MixtureOfAgents(n=9, layers=4), 6, 0),
        (ReReading(), 1, 0),
        (ChainOfThoughtReflection(), 1, 0),
        (RoundTripOptimization(), 4, 0),
        (LearningPrinciples(), 5, 0),
        (PlanSearch(), 4, 0),
        (PlanSearch(n=9), 4, 1),
        (DeepThink(), 4, 0),
        (DeepThink(discover=False, n=9), 1, 0),
        (CerebrasPlanning(), 4, 1),
        (CerebrasPlanning(n=1), 4, 0),
        (RecursiveSelfAggregation(), 4, 0),
        (RecursiveSelfAggregation(population=16, subset=4, loops=2, scorer="verifier"), 3, 1),
    ],
    ids=lambda one: one.name if isinstance(one, Optimizer) else str(one),
)
async def test_what_does_not_depend_on_an_answer_waits_for_none(
    optimizer: Optimizer, depth: int, reads: int
) -> None:
    client = ScriptedClient(says, seconds_per_token=1.0)
    await optimizer.optimize(Prompt.of("What is 3 + 4?", seed=0), client)
    assert client.clock() == client.stats().steps == depth * STEPS + reads


@every_optimizer
async def test_every_call_has_the_system_message_and_the_earlier_turns(optimizer: Optimizer) -> None:
    earlier = (Message("system", "Be kind."), Message("user", "Hello"), Message("assistant", "Hi"))
    client = ScriptedClient(says)
    await optimizer.optimize(Prompt.of([*earlier, Message("user", "What is 3 + 4?")], seed=0), client)
    for prompt in client.prompts:
        assert prompt.messages[:3] == earlier
        assert prompt.messages[3].role == "user"


@every_optimizer
@pytest.mark.parametrize(
    "reply",
    [
        *("", " ", "nonsense", "<think>", "<output>", "<output>[[[", "<output>[1, {}, []]</output>", "{}", "```"),
        *("[" * 5000, "<output>" * 500, '{"a": NaN}', "[99999999999999999999]", "1. ", "- \n- \n"),
    ],
    ids=lambda text: repr(text[:12]),
)
@pytest.mark.parametrize("max_tokens", [1024, 1])
async def test_a_bad_reply_gives_a_solution_or_an_error_of_ours(
    optimizer: Optimizer, reply: str, max_tokens: int
) -> None:
    client = ScriptedClient(lambda prompt: reply)
    try:
        result = await asolve(Prompt.of("What is 3 + 4?", max_tokens=max_tokens), optimizer, client=client, seed=0)
    except OptillmError:
        assert reply.strip() in ("", "<think>")
    else:
        assert isinstance(result.answer, str)


@every_optimizer
@pytest.mark.parametrize("bad", ["", "nonsense " * 200])
async def test_one_step_that_fails_does_not_fail_the_run(optimizer: Optimizer, bad: str) -> None:
    client = ScriptedClient(says)
    await optimizer.optimize(Prompt.of("What is 3 + 4?", seed=0), client)
    for tag in {str(prompt.log_tag) for prompt in client.prompts} - BARE_ANSWERS:

        def broken(prompt: Prompt, tag: str = tag) -> str:
            return bad if prompt.log_tag == tag else says(prompt)

        result = await asolve(Prompt.of("What is 3 + 4?", max_tokens=64), optimizer, client=ScriptedClient(broken))
        assert result.answer, f"{tag} failed"


@every_optimizer
async def test_a_budget_gives_the_best_so_far(optimizer: Optimizer) -> None:
    question = Prompt.of("What is 3 + 4?", seed=0)
    total = (await asolve(question, optimizer, client=ScriptedClient(says))).usage.completion
    for tokens in (STEPS // 2, total // 3, total // 2, total - 1):
        try:
            result = await asolve(question, optimizer, client=ScriptedClient(says), budget=Budget(tokens=tokens))
        except BudgetExceeded:
            assert isinstance(optimizer, LearningPrinciples | PlanSearch | DeepThink | CerebrasPlanning)
        else:
            assert result.answer and result.budget_exhausted


@every_optimizer
async def test_the_same_seed_repeats_the_run(optimizer: Optimizer) -> None:
    runs = [await asolve("What is 3 + 4?", optimizer, client=ScriptedClient(uneven), seed=11) for _ in range(2)]
    assert runs[0].answer == runs[1].answer and runs[0].usage == runs[1].usage


def uneven(prompt: Prompt) -> str:
    """Replies of different lengths, so that none end in the same step, which trio would shuffle."""
    return "so " * ((prompt.sampling.seed or 0) % 211) + says(prompt)
