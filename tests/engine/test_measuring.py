"""How sure the model is, measured by the engine: the numbers and answers that listed alternatives give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optillm_local import Prompt, asolve
from optillm_local.confidence import measures
from optillm_local.core.completion import Completed, OutputTextDelta
from optillm_local.core.concurrency import each
from optillm_local.core.errors import InvalidConfiguration, RequestRejected
from optillm_local.core.prompt import Sampling
from optillm_local.core.statistics import COLUMNS, Floor
from optillm_local.engine import EngineSettings, VLLMClient
from optillm_local.engine.measuring import V1, Measuring
from optillm_local.engine.start import with_kernels

pytestmark = pytest.mark.timeout(400)

QUESTION = Prompt.of("Name a colour, and say why you like it.", temperature=0.9, seed=3, max_tokens=32)
MEASURES = {
    "confidence": measures.token_confidence,
    "margin": measures.margin,
    "entropy": measures.entropy,
    "varentropy": measures.varentropy,
    "self_certainty": measures.self_certainty,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["engine", "async_engine"])
def either(request: pytest.FixtureRequest) -> VLLMClient:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("k", [2, 20])
async def test_what_is_measured_is_what_the_listed_alternatives_say(either: VLLMClient, k: int) -> None:
    listed = await either.sample(QUESTION, n=5, logprobs=k)
    measured = await either.sample(QUESTION, n=5, statistics=k)
    for with_list, without in zip(listed, measured, strict=True):
        assert without.token_ids == with_list.token_ids
        assert without.top_logprobs == () and without.statistics is not None
        for column, measure in MEASURES.items():
            np.testing.assert_allclose(
                without.statistics.of(column), measure(with_list), atol=2e-4, err_msg=column
            )
        assert without.confidence == pytest.approx(with_list.confidence, abs=1e-4)


async def test_the_whole_vocabulary_has_more_entropy_than_the_list(engine: VLLMClient) -> None:
    [one] = await engine.sample(QUESTION, statistics=20, logprobs=20)
    assert one.statistics is not None and len(one.top_logprobs[0]) == 20
    assert (one.statistics.of("full_entropy") >= one.statistics.of("entropy") - 1e-4).all()
    assert (one.statistics.of("full_self_certainty") > 0).all()


async def test_measured_and_plain_sequences_of_one_batch_do_not_disturb_each_other(engine: VLLMClient) -> None:
    asked: list[dict[str, Any]] = [{"statistics": 20}, {}, {"statistics": 5}, {"logprobs": 3}, {"max_tokens": 3}]
    alone = [await engine.sample(QUESTION.but(**how), n=3) for how in asked]
    choice = await engine.choose(QUESTION, ["Yes", "No"])
    together = await each(
        lambda how: engine.sample(QUESTION.but(**how), n=3) if how else engine.choose(QUESTION, ["Yes", "No"]),
        asked,
    )
    for how, group, others in zip(asked, alone, together, strict=True):
        if not how:
            assert others["Yes"] == pytest.approx(choice["Yes"], abs=1e-3)  # type: ignore[index]
            continue
        for one, other in zip(group, others, strict=True):  # type: ignore[arg-type]
            assert one.token_ids == other.token_ids
            assert (one.statistics is None) == ("statistics" not in how)
            if one.statistics is not None:
                np.testing.assert_allclose(one.statistics.values, other.statistics.values, atol=1e-3)


async def test_deltas_carry_the_statistics_of_their_tokens(either: VLLMClient) -> None:
    pieces, done = [], None
    async for event in either.stream(QUESTION.but(statistics=20)):
        if isinstance(event, OutputTextDelta) and event.token_ids:
            assert event.statistics is not None and len(event.statistics) == len(event.token_ids)
            pieces.append(event.statistics.values)
        elif isinstance(event, Completed):
            done = event.completion
    assert done is not None and done.statistics is not None
    np.testing.assert_array_equal(np.concatenate(pieces), done.statistics.values)
    assert done.statistics.values.shape == (len(done.token_ids), len(COLUMNS))


@pytest.mark.parametrize("window", [1, 4])
async def test_a_sequence_ends_at_the_token_that_makes_a_group_too_unsure(either: VLLMClient, window: int) -> None:
    whole = await either.sample(QUESTION, n=4, statistics=20)
    groups = [measures.group_confidence(measures.token_confidence(one), window) for one in whole]
    floor = float(np.median(np.concatenate(groups)))
    ended = await either.sample(QUESTION, n=4, statistics=20, floor=Floor(floor, window))
    for one, full, means in zip(ended, whole, groups, strict=True):
        below = np.flatnonzero(means < floor)
        if not below.size:
            assert one == full
            continue
        tokens = int(below[0]) + window
        assert (one.finish_reason, len(one.token_ids), one.usage.discarded) == ("abort", tokens, tokens)
        assert one.token_ids[:-1] == full.token_ids[: tokens - 1]
        assert one.token_ids[-1] == either.tokenizer.eos_token_id
    assert any(one.finish_reason == "abort" for one in ended)


async def test_an_aborted_sequence_keeps_what_was_measured(engine: VLLMClient) -> None:
    async with engine.generate([QUESTION.but(statistics=20, max_tokens=200)]) as group:
        async for index, event in group:
            if isinstance(event, Completed):
                assert event.completion.statistics is not None
                assert len(event.completion.statistics) == len(event.completion.token_ids)
            elif event.token_ids:
                group.stop(index)


async def test_rows_come_back_however_a_group_ends(engine: VLLMClient) -> None:
    assert engine._measuring is not None
    arena = engine._measuring._arena
    asked, free = QUESTION.but(statistics=20), list(arena._free)
    for refused in ({"statistics": 21}, {"logprobs": 21}):
        with pytest.raises(RequestRejected, match="at most 20"):
            async with engine.generate([asked, asked, asked.but(**refused)]):
                pass
    with pytest.raises(RequestRejected, match="adapter"):
        await engine.sample(replace(asked, adapter="none"), n=3)
    async with engine.generate(asked.but(max_tokens=200).fan(3)) as group:
        await anext(group)
    await engine.sample(asked, n=3)
    assert arena._free == free


async def test_where_it_cannot_be_measured_alternatives_are_listed(engine: VLLMClient) -> None:
    [one] = await engine.sample(QUESTION, statistics=5, presence_penalty=0.5)
    assert one.statistics is None and len(one.top_logprobs[0]) == 5


@pytest.mark.parametrize("how", [{"max_tokens": 1 << 22}, {"statistics": None}, {"frequency_penalty": 0.1}])
def test_a_sequence_gets_no_tape(how: dict[str, Any]) -> None:
    measuring = Measuring(1 << 23, end=None)
    assert measuring.tape(Sampling(**{"statistics": 20, **how}), 10) is None
    measuring.close()


def test_kernels_can_be_left_out() -> None:
    args = {"model": "somewhere", "speculative_config": None}
    plain = EngineSettings(kernels=False)
    assert with_kernels(args, plain, on_cpu=True) == with_kernels(args, EngineSettings(), on_cpu=False) == args
    assert with_kernels(args, EngineSettings(), on_cpu=True)["logits_processors"] == [V1]
    speculating = EngineSettings(speculative_config={"method": "ngram"})
    assert "logits_processors" not in with_kernels({**args, "speculative_config": {}}, speculating, on_cpu=True)
    with pytest.raises(InvalidConfiguration, match="forest_attention=True: also set kernels"):
        with_kernels(args, EngineSettings(kernels=False, forest_attention=True), on_cpu=True)


SOLVED = [
    ("deepconf", {"max_traces": 10, "warmup": 4, "variant": "high"}),
    ("deepconf", {"mode": "offline", "max_traces": 6}),
    ("cot_decoding", {"k": 4}),
    ("entropy_decoding", {}),
    ("best_of_n", {"n": 4, "scorer": "self_certainty"}),
    ("best_of_n", {"n": 4, "scorer": "lowest_group"}),
    ("best_of_n", {"n": 4, "scorer": "answer_span"}),
]


@pytest.mark.parametrize(("name", "options"), SOLVED)
async def test_answers_are_the_same_with_and_without_it(
    engine: VLLMClient, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]
) -> None:
    question = Prompt.of("What is 12 * 3? Think, then state the answer.", seed=1, max_tokens=64, temperature=0.7)
    measured = await asolve(question, name, client=engine, **options)
    monkeypatch.setattr(engine, "_measuring", None)
    listed = await asolve(question, name, client=engine, **options)
    assert measured.solution.reasoning == listed.solution.reasoning
    assert (measured.answer, measured.selection) == (listed.answer, listed.selection)
