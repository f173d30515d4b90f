"""AB-MCTS writes new answers and refinements in batches, and returns the best."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from optillm_local import Message, Prompt, ScriptedClient
from optillm_local.core.errors import InvalidConfiguration, NoSolutions
from optillm_local.core.span import open_run
from optillm_local.optimizers.ab_mcts import AdaptiveBranching

QUESTION = Prompt.of([Message("system", "Be brief."), Message("user", "How good?")], seed=0)
STEPS = 4


async def test_without_treequest_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "treequest", None)
    with pytest.raises(InvalidConfiguration, match=r"pip install 'optillm-local\[search\]'"):
        await AdaptiveBranching().optimize(QUESTION, ScriptedClient([]))


@pytest.mark.parametrize(("name", "why"), [("pairwise", "compares candidates"), ("logprob", "between 0 and 1")])
def test_a_scorer_whose_scores_the_tree_cannot_use_is_refused(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AdaptiveBranching(scorer=name)


async def test_refinements_of_good_answers_win() -> None:
    client = ScriptedClient(improves, choices=grades, seconds_per_token=1.0)
    with open_run() as run:
        best = await AdaptiveBranching(trials=20, parallel=5).optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == 20 / 5 * (STEPS + 1)
    assert best.verification_score == max(one.verification_score for one in run.solutions) > 0.3
    assert best.parents and best.phase == "refine"
    assert len(run.solutions) == 20


async def test_a_seed_repeats_the_search_and_the_programs_own_draws_are_left_alone() -> None:
    np.random.seed(3)
    runs = []
    for _ in range(2):
        client = ScriptedClient(improves, choices=grades)
        await AdaptiveBranching().optimize(QUESTION, client)
        runs.append(
            sorted((p.log_tag or "", p.messages[-2].content, str(p.sampling.seed)) for p in client.prompts)
        )
    drawn = np.random.random()
    np.random.seed(3)
    assert runs[0] == runs[1] and drawn == np.random.random()


async def test_a_refinement_sees_the_question_and_the_answer_alone() -> None:
    client = ScriptedClient(improves, choices=grades)
    await AdaptiveBranching().optimize(QUESTION, client)
    refined = [prompt for prompt in client.prompts if prompt.log_tag == "refine"]
    assert refined and {len(prompt.messages) for prompt in refined} == {4}
    assert all(prompt.messages[:2] == QUESTION.messages for prompt in client.prompts)


async def test_silence_is_no_solution() -> None:
    with pytest.raises(NoSolutions):
        await AdaptiveBranching().optimize(QUESTION, ScriptedClient(lambda prompt: ""))


def improves(prompt: Prompt) -> str:
    """How good an answer is stands at its end; a refinement is better."""
    before = int(prompt.messages[-2].content[-1]) if prompt.log_tag == "refine" else 0
    return f"as good as {min(9, before + 3)}"


def grades(prompt: Prompt, options: Sequence[str]) -> Mapping[str, float]:
    p = int(prompt.messages[-2].content[-1]) / 10
    return {"Yes": p, "No": 1 - p}
