"""What every optimizer owes its caller; MARS, which has more to say, is in a folder of its own.

That whatever the model says gives a solution or an error of ours is in test_degraded.py.
"""

from collections.abc import Mapping, Sequence

import anyio
import pytest

from optillm_local import Budget, Message, Optimizer, Prompt, ScriptedClient, asolve, create
from optillm_local.core.errors import BudgetExceeded
from optillm_local.optimizers.candidates import is_whole

SMALL: Mapping[str, Mapping[str, int | str]] = {
    "single": {},
    "best_of_n": {},
    "self_consistency": {},
    "majority_voting": {},
    "adaptive_consistency": {"n": 12, "width": 4},
    "genselect": {},
    "diverse_sampling": {},
    "pvg": {"n": 2},
    "auto": {"hard": "genselect"},
    "moa": {"layers": 2},
    "re2": {},
    "cot_reflection": {},
    "rto": {},
    "leap": {},
    "plansearch": {"n": 2},
    "deepthink": {},
    "cepo": {"n": 2, "plans": 3, "executions": 2},
    "rsa": {"population": 4, "subset": 2, "loops": 2},
    "mcts": {"simulations": 5},
    "rstar": {"rollouts": 6, "parallel": 2, "depth": 2},
    "tot": {"breadth": 2, "proposals": 3, "steps": 2},
    "beam_search": {"beam_width": 2, "expansion": 2, "max_steps": 4},
    "particle_filtering": {"n": 3, "max_steps": 4},
    "ab_mcts": {"trials": 6, "parallel": 2},
    "thinkdeeper": {"min_thinking": 12, "max_thinking": 30},
    "autothink": {},
    "cot_decoding": {"k": 3},
    "entropy_decoding": {},
    "deepconf": {"warmup": 4, "max_traces": 8},
}
ALL = [create(name, **options) for name, options in SMALL.items()]
TALK = (
    Message("system", "Be exact."),
    Message("user", "Think of 3 and 4."),
    Message("assistant", "Done."),
    Message("user", "What is their product?"),
)
QUESTION = Prompt.of(TALK, seed=7)
SAYS = {
    "examples": '<output>[{"question":"1+1?","answer":"2"},{"question":"3+3?","answer":"6"}]</output>',
    "mistake": "One too many. <output>7</output>",
    "principle": "<output>Count twice.</output>",
    "principles": "<output>1. Count twice.\n2. Say it.</output>",
    "select": "[1, 5, 9]",
    "adapt": "1. Add.\n2. Check.",
    "implement": '{"sum": "add the numbers"}',
}
LATE = {"leap", "plansearch", "deepthink", "cepo", "autothink", "cot_decoding"}
"""Optimizers whose first steps are no candidates: a budget that ends there leaves nothing to return."""

each_optimizer = pytest.mark.parametrize("optimizer", ALL, ids=lambda one: one.name)


def says(prompt: Prompt) -> str:
    """A plausible reply to any step. Lengths differ, so that few end in the same step, and so do the answers."""
    seed = prompt.sampling.seed or 0
    return "so " * (seed % 11) + SAYS.get(prompt.log_tag or "", f"The answer is {seed % 5}.")


def unsure(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    """Rather no than yes, and rather a later option than an earlier one."""
    return {option: place for place, option in enumerate(options, start=1)}


def scripted() -> ScriptedClient:
    return ScriptedClient(says, choices=unsure, seconds_per_token=1.0)


@each_optimizer
async def test_every_call_has_all_earlier_turns_and_needs_no_log_probabilities(optimizer: Optimizer) -> None:
    client = scripted()
    result = await asolve(QUESTION.but(logprobs=None), optimizer, client=client)
    assert result.answer and result.selection
    for prompt in client.prompts:
        assert prompt.messages[:3] == TALK[:3] and prompt.messages[3].role == "user"


@each_optimizer
async def test_the_same_seed_repeats_the_run_and_no_two_samples_share_theirs(optimizer: Optimizer) -> None:
    asked = []
    for _ in range(2):
        client = scripted()
        await optimizer.optimize(QUESTION, client)
        asked.append(sorted(map(repr, client.prompts)))
        drawn = [p.sampling.seed for p in client.prompts if p.log_tag not in ("verdict", "lineup")]
        if not any((p.log_tag or "").startswith("grade") for p in client.prompts):
            assert len(set(drawn)) == len(drawn)
    assert asked[0] == asked[1]


@each_optimizer
async def test_whenever_a_budget_ends_the_best_so_far_is_returned(optimizer: Optimizer) -> None:
    total = (await asolve(QUESTION, optimizer, client=scripted())).usage.completion
    for tokens in {1, *(total * part // 8 for part in range(1, 8)), total - 1}:
        client = scripted()
        try:
            result = await asolve(QUESTION, optimizer, client=client, budget=Budget(tokens=tokens))
        except BudgetExceeded:
            assert optimizer.name in LATE
            continue
        assert result.answer and (result.budget_exhausted or result.usage.completion < tokens)
        assert result.usage.completion == client.stats().generated_tokens
        written = [one.completion for one in result.solutions if one.completion]
        best = result.solution.completion
        assert best and (is_whole(best) or not any(map(is_whole, written))), f"of {tokens} tokens"


@each_optimizer
async def test_a_run_that_is_cancelled_leaves_nothing_running(optimizer: Optimizer) -> None:
    whole = scripted()
    await optimizer.optimize(QUESTION, whole)
    for steps in range(1, whole.stats().steps, max(1, whole.stats().steps // 3)):
        client = scripted()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(optimizer.optimize, QUESTION, client)
            while client.stats().steps < steps:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert client.stats().running == 0


@pytest.mark.parametrize("name", ["moa", "rto", "leap", "plansearch", "deepthink", "cepo", "rsa"])
async def test_one_step_that_is_cut_off_does_not_fail_the_run(name: str) -> None:
    optimizer, client = create(name, **SMALL[name]), scripted()
    await optimizer.optimize(QUESTION, client)
    for tag in {prompt.log_tag for prompt in client.prompts} - {"propose", "code", "apply"}:

        def broken(prompt: Prompt, tag: str | None = tag) -> str:
            return "nonsense " * 40 if prompt.log_tag == tag else says(prompt)

        result = await asolve(QUESTION.but(max_tokens=25), optimizer, client=ScriptedClient(broken))
        assert result.answer, f"{tag} failed"


@pytest.mark.parametrize(
    ("name", "options", "rounds", "reads"),
    [
        ("moa", {"n": 9, "layers": 4}, 6, 0),
        ("plansearch", {"n": 9}, 4, 1),
        ("deepthink", {"discover": False, "n": 9}, 1, 0),
        ("cepo", {"n": 9}, 4, 1),
        ("rsa", {"population": 16, "subset": 4, "loops": 2, "scorer": "verifier"}, 3, 1),
        ("pvg", {"n": 9, "rounds": 4}, 7, 4),
        ("genselect", {"n": 9}, 1, 1),
        ("diverse_sampling", {"n": 9}, 1, 1),
    ],
)
async def test_more_of_them_take_no_longer(
    name: str, options: Mapping[str, object], rounds: int, reads: int
) -> None:
    def as_long(prompt: Prompt) -> str:
        said = SAYS.get(prompt.log_tag or "", f"Draw {prompt.sampling.seed}. The answer is 7.")
        return "so " * (12 - len(said.split())) + said

    client = ScriptedClient(as_long, seconds_per_token=1.0)
    await create(name, **options).optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == rounds * 12 + reads
