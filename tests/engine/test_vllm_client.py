"""What only a real engine can show: shared prefixes, exact scores, aborts, and neighbours left unharmed."""

from __future__ import annotations

import random
import resource
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
import torch

from optillm_local import Message, Prompt, Stop, asolve
from optillm_local.core.concurrency import each
from optillm_local.core.errors import RequestRejected
from optillm_local.core.span import open_run
from optillm_local.engine import VLLMClient
from optillm_local.engine.scoring import variants

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough here: the contract tests run the engine on both."""
    return "asyncio"


@pytest.fixture(params=["engine", "async_engine"])
def either(request: pytest.FixtureRequest) -> VLLMClient:
    """Both forms of the engine, for what may differ between them."""
    return request.getfixturevalue(request.param)


LONG = "Here is a list of numbers that matter to nobody: " + ", ".join(str(n) for n in range(60)) + ". "
QUESTION = Prompt.of(LONG + "Which of them is the largest?", temperature=0.8, max_tokens=16)


@pytest.fixture(scope="module")
def reference(engine: VLLMClient) -> Any:
    """The same weights in transformers, float32."""
    from transformers import AutoModelForCausalLM

    from optillm_local.engine.embedded import embedded_model

    return AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32).eval()


def reference_logprobs(model: Any, prefix: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """log P of each token after the prefix and the tokens before it."""
    ids = torch.tensor([[*prefix, *tokens]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prefix) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


async def test_siblings_prefill_their_prompt_once(engine: VLLMClient) -> None:
    fresh = Prompt.of(f"Number {random.random()}. " + LONG, max_tokens=16, temperature=0.8)
    before = engine.stats()
    group = await engine.sample(fresh, n=8, seed=3)
    spent = engine.stats() - before
    length = len(engine.render(fresh))
    assert length > 200
    assert spent.computed_prompt_tokens <= length + 7 * 32  # each sibling adds at most its last, partial block
    assert spent.steps <= 16 + 1
    assert sum(one.usage.cached for one in group) == spent.cached_prompt_tokens >= 7 * (length - 32)


@pytest.mark.parametrize("text", ["59", " The largest is 59, I think.", "Größe: 🙂 naïve"])
async def test_scores_equal_a_transformers_reference(either: VLLMClient, reference: Any, text: str) -> None:
    prefix = either.render(QUESTION)
    for _ in range(2):  # the second time everything is cached, which is where runners go wrong
        [score] = await either.score(QUESTION, [text])
        expected = reference_logprobs(reference, prefix, score.token_ids)
        assert torch.allclose(torch.tensor(score.logprobs), expected, atol=1e-3)


async def test_scores_asked_twice_are_counted_twice(either: VLLMClient) -> None:
    before = either.stats()
    with open_run() as run:
        for _ in range(3):
            await either.score(QUESTION, ["Sixty, or so, and that is what I have to say about it, sir."] * 2)
    spent = either.stats() - before
    assert run.usage.completion == spent.generated_tokens
    assert run.usage.prompt == spent.computed_prompt_tokens + spent.cached_prompt_tokens


async def test_scores_after_a_prefix_of_whole_blocks(either: VLLMClient, reference: Any) -> None:
    question = next(asked for n in range(64) if len(either.render(asked := Prompt.of(LONG + "so " * n))) % 32 == 0)
    prefix = either.render(question)
    long = "one two three four five six seven eight nine ten " * 8
    for _ in range(3):
        [score] = await either.score(question, [long])
        expected = reference_logprobs(reference, prefix, score.token_ids)
        assert torch.allclose(torch.tensor(score.logprobs), expected, atol=1e-3)


async def test_sampled_logprobs_are_those_of_the_model(engine: VLLMClient, reference: Any) -> None:
    [one] = await engine.sample(QUESTION, seed=11)
    expected = reference_logprobs(reference, engine.render(QUESTION), one.token_ids)
    assert torch.allclose(torch.tensor(one.logprobs), expected, atol=1e-3)


async def test_choices_sum_over_spellings_and_several_tokens(engine: VLLMClient, reference: Any) -> None:
    prompt = Prompt.of("Is ice cold? Say Yes, or Not at all.")
    prefix = engine.render(prompt)
    options = ["Yes", "Not at all"]
    choice = await engine.choose(prompt, options)
    weights = []
    for option in options:
        spelled = {
            ids
            for text in variants(option)
            if len(ids := tuple(engine.tokenizer.encode(text, add_special_tokens=False))) == 1
            or text.strip() == option  # another case counts where it costs no further request
        }
        weights.append(sum(reference_logprobs(reference, prefix, ids).sum().exp().item() for ids in spelled))
    assert choice.label_mass == pytest.approx(sum(weights), abs=1e-4)
    assert choice["Yes"] == pytest.approx(weights[0] / sum(weights), abs=1e-3)


async def test_options_of_one_token_cost_one_request(engine: VLLMClient) -> None:
    choice = await engine.choose(QUESTION, ["Yes", "No"])  # YES would be two tokens here
    assert choice.usage.completion == 1 and choice.usage.prompt == len(engine.render(QUESTION))
    assert (await engine.choose(QUESTION, ["CORRECT", "INCORRECT"])).usage.completion > 1


async def test_label_reads_and_alternatives_do_not_disturb_each_other(engine: VLLMClient) -> None:
    quiet_choice = await engine.choose(QUESTION, ["Yes", "No"])
    [quiet] = await engine.sample(QUESTION, temperature=0.0, logprobs=5)
    mixed: dict[str, Any] = {}

    async def sample() -> None:
        [mixed["sample"]] = await engine.sample(QUESTION, temperature=0.0, logprobs=5)

    async def choose(after: float) -> None:
        await anyio.sleep(after)
        mixed[f"choice {after}"] = await engine.choose(QUESTION, ["Yes", "No"])

    await each(lambda job: job(), [lambda: choose(0), sample, lambda: choose(0.05), lambda: choose(0.2)])
    for row, (expected, found) in enumerate(zip(quiet.top_logprobs, mixed["sample"].top_logprobs, strict=True)):
        assert [i for i, _ in found] == [i for i, _ in expected], row
    for after in (0, 0.05, 0.2):
        assert mixed[f"choice {after}"]["Yes"] == pytest.approx(quiet_choice["Yes"], abs=1e-3)


async def test_aborted_siblings_stop_within_two_steps(engine: VLLMClient) -> None:
    lengths = [0] * 8

    def stop_the_others(index: int, delta: Any) -> Stop | None:
        lengths[index] += len(delta.token_ids)
        return Stop.SEQUENCE if index and lengths[index] >= 5 else None

    before = engine.stats()
    with open_run() as run:
        group = await engine.sample(QUESTION, n=8, seed=1, max_tokens=24, on_delta=stop_the_others)
    aborted = [one for one in group if one.finish_reason == "abort"]
    assert len(aborted) >= 6  # one or two may have said all they had to say
    assert all(5 <= one.usage.completion <= 7 for one in aborted)
    assert run.usage.discarded == sum(one.usage.completion for one in aborted)
    spent = engine.stats() - before
    assert run.usage.completion == spent.generated_tokens
    # What the scheduler ran, whoever counted the tokens: the aborted ones are out two steps after their fifth.
    assert spent.running_steps <= sum(min(one.usage.completion, 7) if one in aborted else 24 for one in group)


async def test_a_follow_up_continues_from_the_generated_ids(either: VLLMClient) -> None:
    [answer] = await either.sample(QUESTION, seed=4, max_tokens=70, temperature=1.0)
    follow_up = QUESTION.then(answer.message(), Message("user", "Are you sure?"))
    first, second = either.render(QUESTION), either.render(follow_up)
    assert second[: len(first) + len(answer.token_ids)] == [*first, *answer.token_ids]
    [again] = await either.sample(follow_up, max_tokens=4)
    assert again.usage.cached >= (len(first) + len(answer.token_ids) - 1) // 32 * 32


async def test_a_rendered_history_is_the_template_s_text(engine: VLLMClient) -> None:
    [answer] = await engine.sample(Prompt.of("Say hello."), temperature=0.0, max_tokens=64)
    assert answer.finish_reason == "stop"
    spliced = Prompt.of([Message("user", "Say hello."), answer.message(), Message("user", "Again.")])
    plain = Prompt.of(
        [Message("user", "Say hello."), Message("assistant", answer.text), Message("user", "Again.")]
    )
    assert engine.tokenizer.decode(engine.render(spliced)) == engine.tokenizer.decode(engine.render(plain))


async def test_an_opened_thought_is_continued_and_counted(engine: VLLMClient) -> None:
    opened = QUESTION.then(Message("assistant", "<think>\nLet me see: the list ends with 59, so"))
    [one] = await engine.sample(opened, temperature=0.0)
    assert one.reasoning == one.text.strip() and one.answer == ""
    assert one.usage.reasoning == one.usage.completion > 0


async def test_a_prompt_beyond_the_context_says_both_lengths(engine: VLLMClient) -> None:
    with pytest.raises(RequestRejected, match=r"\d{4} tokens.*context holds 2048"):
        await engine.sample(Prompt.of("word " * 3000))


async def test_a_refused_request_leaves_its_neighbours_alone(engine: VLLMClient) -> None:
    async def ask(logprobs: int) -> str:
        try:
            [one] = await engine.sample(QUESTION, logprobs=logprobs)
        except RequestRejected as refused:
            return refused.field
        return one.finish_reason

    outcomes = await each(ask, [0, 999, 0])
    assert outcomes[1] == "logprobs" and {outcomes[0], outcomes[2]} <= {"stop", "length"}


async def test_best_of_n_adds_one_step_to_its_longest_answer(engine: VLLMClient) -> None:
    result = await asolve(QUESTION, "best_of_n", client=engine, n=4, seed=2)
    assert result.engine.steps <= 16 + 4
    assert result.engine.mean_batch > 2
    assert result.usage.completion == result.engine.generated_tokens
    assert all(0 <= s.verification_score <= 1 for s in result.solutions)


async def test_two_hundred_requests_with_random_cancellations(either: VLLMClient) -> None:
    rng = random.Random(7)
    resident = []

    async def ask(job: int) -> str:
        with anyio.move_on_after(rng.random() * 2 if rng.random() < 0.5 else None):
            [one] = await either.sample(
                Prompt.of(LONG[: rng.randrange(20, 300)]), max_tokens=rng.randrange(1, 24), temperature=1.0
            )
            return one.finish_reason
        return "cancelled"

    for _ in range(3):
        before = either.stats()
        with open_run() as run:
            ended = await each(ask, range(200))
        spent = either.stats() - before
        assert len(ended) == 200 and "cancelled" in ended and "abort" not in ended
        assert (run.usage.completion, run.usage.cached) == (spent.generated_tokens, spent.cached_prompt_tokens)
        assert run.usage.prompt == spent.computed_prompt_tokens + spent.cached_prompt_tokens
        assert either._handle._live == {}
        resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert resident[2] < resident[0] * 1.05  # the peak of the first round is the peak of all
