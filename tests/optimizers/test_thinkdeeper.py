"""The model thinks as long as it must and no longer than it may, and then answers."""

import re

import pytest

from optillm_local import Budget, Message, Prompt, ScriptedClient, asolve, create
from optillm_local.clients import Reply
from optillm_local.core.errors import BudgetExceeded, InvalidConfiguration, NoSolutions
from optillm_local.optimizers.thinkdeeper import ThinkDeeper

QUESTION = Prompt.of("What is 3 * 4?", seed=0, max_tokens=100)
ANSWER = "The answer is 12."


def thinker(words: int = 8, answer: str = ANSWER) -> ScriptedClient:
    """Thinks so many words and closes the thought, every time it may; then answers."""

    def say(prompt: Prompt) -> str:
        return " hm" * words + "</think>" if prompt.log_tag == "think" else answer

    return ScriptedClient(say, seconds_per_token=1.0)


def thought(text: str) -> str:
    return text.removeprefix("<think>\n").partition("</think>")[0]


async def test_an_end_that_comes_too_early_is_replaced_until_enough_is_thought() -> None:
    client = thinker()
    solution = await ThinkDeeper(min_thinking=20, max_thinking=60).optimize(QUESTION, client)
    assert (solution.answer, solution.metadata["thoughts"]) == (ANSWER, 3)
    assert re.findall(r"(?<=\n)\w+,", thought(solution.reasoning)) == ["Wait,", "Alternatively,"]
    assert solution.reasoning.count("</think>") == 1
    assert solution.metadata["thinking_tokens"] == 8 + 1 + 8 + 1 + 8


@pytest.mark.parametrize(("effort", "most"), [("low", 33), ("medium", 66), ("high", 90)])
async def test_a_thought_without_end_is_ended_by_effort(effort: str, most: int) -> None:
    solution = await ThinkDeeper(effort=effort).optimize(QUESTION, thinker(words=500))
    assert (solution.metadata["thinking_tokens"], solution.metadata["thoughts"]) == (most, 1)
    assert solution.answer == ANSWER


async def test_each_call_goes_on_from_the_tokens_so_far_and_all_are_joined() -> None:
    client = thinker()
    solution = await ThinkDeeper(min_thinking=12).optimize(QUESTION, client)
    whole = solution.completion
    assert whole is not None and whole.text == client.decode(whole.token_ids) == solution.reasoning
    for prompt in client.prompts:
        begun = prompt.messages[-1]
        assert begun.token_ids == whole.token_ids[: len(begun.token_ids)] and not begun.appended
        assert client.decode(begun.token_ids) == begun.content
    assert len(whole.logprobs) == len(whole.token_ids)
    assert whole.usage.completion == client.stats().generated_tokens


async def test_its_calls_take_as_long_as_their_tokens() -> None:
    client = thinker()
    await ThinkDeeper(min_thinking=12).optimize(QUESTION, client)
    assert client.clock() == client.stats().steps == 8 + 8 + 4


@pytest.mark.parametrize("max_tokens", [1, 2, 4, 5, 6, 10, 20, 100])
@pytest.mark.parametrize("words", [0, 1, 7, 500])
async def test_thought_and_answer_together_keep_to_max_tokens(max_tokens: int, words: int) -> None:
    client = thinker(words, answer="word " * 500)
    deeper = ThinkDeeper(effort="high", min_thinking=30)
    solution = await deeper.optimize(QUESTION.but(max_tokens=max_tokens), client)
    assert solution.completion is not None
    assert (len(solution.completion.token_ids), solution.completion.finish_reason) == (max_tokens, "length")
    assert solution.metadata["thinking_tokens"] <= 0.9 * max_tokens


@pytest.mark.parametrize("max_thinking", [0, 1, 8, 9, 10, 29])
async def test_a_word_that_would_exceed_the_limit_is_not_put_in(max_thinking: int) -> None:
    deeper = ThinkDeeper(min_thinking=29, max_thinking=max_thinking)
    solution = await deeper.optimize(QUESTION, thinker(words=8))
    assert max_thinking - 1 <= solution.metadata["thinking_tokens"] <= max_thinking
    assert solution.answer == ANSWER


async def test_a_model_that_says_nothing_is_asked_a_limited_number_of_times() -> None:
    client = ScriptedClient(lambda prompt: "")
    with pytest.raises(NoSolutions, match="wrote nothing"):
        await ThinkDeeper(min_thinking=50, max_thoughts=5).optimize(QUESTION, client)
    assert len(client.prompts) == 5 + 1


async def test_the_conversation_is_kept_and_seeds_repeat() -> None:
    earlier = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello.")]
    prompt = Prompt.of([*earlier, *QUESTION.messages], seed=3)
    first, second = thinker(), thinker()
    await ThinkDeeper().optimize(prompt, first)
    await ThinkDeeper().optimize(prompt, second)
    assert all(asked.messages[:4] == prompt.messages for asked in first.prompts)
    assert first.prompts == second.prompts


@pytest.mark.parametrize("tokens", [3, 8, 12, 19])
async def test_a_budget_that_ends_midway_gives_what_was_said(tokens: int) -> None:
    result = await asolve(QUESTION, ThinkDeeper(min_thinking=20), client=thinker(), budget=Budget(tokens=tokens))
    assert result.budget_exhausted and "hm" in result.answer
    assert result.usage.completion <= tokens + 9


async def test_a_budget_that_is_spent_before_anything_is_said_is_the_error() -> None:
    many = create("self_consistency@thinkdeeper", n=8)  # what may become the closing tag is held back
    with pytest.raises(BudgetExceeded, match="8 tokens"):
        await asolve(QUESTION, many, client=thinker(), budget=Budget(tokens=8))


async def test_best_of_n_may_sample_so() -> None:
    def say(prompt: Prompt) -> Reply:
        sure = {0: -2.0, 1: -0.1}[prompt.sampling.seed % 2 if prompt.sampling.seed else 0]
        return Reply("hm </think>" if prompt.log_tag == "think" else f"The answer is {sure}.", sure)

    client = ScriptedClient(say)
    best = await create("best_of_n@thinkdeeper", n=4, min_thinking=10, scorer="logprob").optimize(QUESTION, client)
    assert best.answer.startswith("The answer is") and best.completion is not None
    assert "<think>" in best.completion.text
    assert sum(prompt.log_tag == "answer" for prompt in client.prompts) == 4
    assert client.peak_concurrency == 4


async def test_a_verdict_goes_on_from_the_joined_tokens() -> None:
    client = thinker()
    await create("best_of_n@thinkdeeper", n=2).optimize(QUESTION, client)
    verdicts = [prompt for prompt in client.prompts if prompt.log_tag == "verdict"]
    assert len(verdicts) == 2
    for verdict in verdicts:
        candidate = verdict.messages[1]
        assert client.decode(candidate.token_ids) == candidate.content and ANSWER in candidate.content


@pytest.mark.parametrize(
    "options", [{"phrases": ()}, {"phrases": ("",)}, {"effort": "none"}, {"min_thinking": -1}]
)
def test_options_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidConfiguration, match=next(iter(options))):
        create("thinkdeeper", **options)
