"""A backend is one async generator; every verb comes with it."""

from collections.abc import AsyncGenerator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from optillm_local import Budget, Prompt, Stop, TokenUsage
from optillm_local.core.budget import Meter
from optillm_local.core.completion import Completed, OutputTextDelta, ResponseEvent, Transcript
from optillm_local.core.errors import EngineDead, RequestRejected, Unsupported
from optillm_local.core.span import open_run
from optillm_local.core.streaming import StreamingClient

QUESTION = Prompt.of("a b c d", seed=0)


class Echo(StreamingClient):
    """Somebody else's backend: says the question word by word."""

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[ResponseEvent, None]:
        transcript = Transcript()
        for word in prompt.question.split():
            await checkpoint()
            transcript.add(delta := OutputTextDelta(word, (ord(word),)))
            yield delta
        yield Completed(transcript.finish("stop", prompt_tokens=4, seed=prompt.sampling.seed))


class Watched(Echo):
    """Notes which sequences were ended; the ones in `faults` fail after two words, the others never end."""

    def __init__(self, **faults: Exception) -> None:
        self.faults, self.ended = faults, list[int | None]()

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[ResponseEvent, None]:
        seed = prompt.sampling.seed
        try:
            for turn in range(10**6):
                await checkpoint()
                if turn == 2 and (fault := self.faults.get(f"seed{seed}")):
                    raise fault
                yield OutputTextDelta("x", (turn,))
        finally:
            self.ended.append(seed)


async def test_streaming_comes_as_written() -> None:
    *deltas, end = [event async for event in Echo().stream(QUESTION)]
    assert [delta.delta for delta in deltas] == ["a", "b", "c", "d"]
    assert isinstance(end, Completed) and end.completion.text == "abcd"


async def test_sampling_comes_for_free() -> None:
    group = await Echo().sample(QUESTION, n=3)
    assert [(one.text, one.seed, one.finish_reason) for one in group] == [("abcd", i, "stop") for i in range(3)]


@pytest.mark.parametrize("n", [1, 3])
async def test_stopping_comes_for_free_and_keeps_what_was_said(n: int) -> None:
    client = Watched()
    group = await client.sample(
        QUESTION, n=n, on_delta=lambda i, d: Stop.SEQUENCE if d.token_ids[0] == 4 else None
    )
    assert [one.finish_reason for one in group] == ["abort"] * n
    assert all(5 <= len(one.text) == one.usage.completion == one.usage.discarded < 10 for one in group)
    assert sorted(client.ended, key=str) == list(range(n))


async def test_stopping_the_group_ends_every_sequence() -> None:
    client = Watched()
    group = await client.sample(QUESTION, n=3, on_delta=lambda index, delta: Stop.GROUP)
    assert [one.finish_reason for one in group] == ["abort"] * 3
    assert sorted(client.ended, key=str) == [0, 1, 2]


@pytest.mark.parametrize("n", [1, 3])
async def test_cancelling_comes_for_free_and_is_counted(n: int) -> None:
    client = Watched()
    with open_run() as run, anyio.CancelScope() as scope:
        await client.sample(QUESTION, n=n, on_delta=lambda index, delta: scope.cancel())
    assert scope.cancelled_caught and sorted(client.ended, key=str) == list(range(n))
    assert run.usage.completion == run.usage.discarded > 0


async def test_accounting_comes_for_free() -> None:
    with open_run() as run:
        await Echo().sample(QUESTION, n=2)
    assert run.usage == TokenUsage(prompt=8, completion=8)


@pytest.mark.parametrize("n", [1, 3])
async def test_a_time_budget_comes_for_free(n: int) -> None:
    client = Watched()
    with open_run(meter=Meter(Budget(seconds=0.005), client.clock())):
        group = await client.sample(QUESTION, n=n)
    assert [one.finish_reason for one in group] == ["abort"] * n


@pytest.mark.parametrize("n", [1, 3])
async def test_a_failing_stream_raises_its_own_error_and_ends_the_others(n: int) -> None:
    fault = OSError("cable")
    client = Watched(seed0=fault)
    with pytest.raises(OSError, match="cable") as raised:
        await client.sample(QUESTION, n=n)
    assert raised.value is fault
    assert sorted(client.ended, key=str) == list(range(n))


@pytest.mark.parametrize("fault", [OSError, EngineDead])
async def test_of_several_failing_streams_one_is_raised(fault: type[Exception]) -> None:
    client = Watched(seed0=fault("cable"), seed2=fault("cable"))
    with pytest.raises(fault, match="cable"):
        await client.sample(QUESTION, n=3)
    assert sorted(client.ended, key=str) == [0, 1, 2]


async def test_the_tokens_of_failed_and_ended_streams_are_counted() -> None:
    with open_run() as run, pytest.raises(OSError):
        await Watched(seed1=OSError("cable")).sample(QUESTION, n=2)
    assert run.usage.completion == run.usage.discarded >= 4


async def test_leaving_a_group_early_ends_it() -> None:
    client = Watched()
    async with client.generate(QUESTION.fan(3)) as group:
        await anext(group)
    assert sorted(client.ended, key=str) == [0, 1, 2]


async def test_a_cancelled_read_of_a_group_loses_nothing() -> None:
    async with Echo().generate(QUESTION.fan(2)) as group:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(group)
        texts = {0: "", 1: ""}
        async for index, event in group:
            texts[index] += event.delta if isinstance(event, OutputTextDelta) else ""
    assert texts == {0: "abcd", 1: "abcd"}


async def test_a_stream_that_just_ends_counts_as_aborted() -> None:
    class Quits(Echo):
        async def _stream(self, prompt: Prompt) -> AsyncGenerator[ResponseEvent, None]:
            yield OutputTextDelta("x", (1,))

    [one] = await Quits().sample(QUESTION)
    assert (one.text, one.finish_reason, one.usage.discarded) == ("x", "abort", 1)


async def test_what_a_backend_cannot_do_is_named() -> None:
    with pytest.raises(Unsupported, match="Echo cannot read the probabilities"):
        await Echo().choose(QUESTION, ["Yes", "No"])
    with pytest.raises(Unsupported, match="Echo cannot score"):
        await Echo().score(QUESTION, ["a"])
    assert Echo().stats().steps == 0


async def test_a_group_of_nothing_is_refused() -> None:
    with pytest.raises(RequestRejected, match="prompts="):
        Echo().generate([])


async def test_a_client_is_a_context() -> None:
    async with Echo() as client:
        assert (await client.sample(QUESTION))[0].text == "abcd"
