"""What a step's logits leave in the arena, and which rows are ended."""

from collections.abc import Iterator

import pytest
import torch
from optillm_kernels.uncertainty import measure
from optillm_kernels.vllm_plugin.arena import Arena
from optillm_kernels.vllm_plugin.recorder import LONGEST_WINDOW, Ask, Recorder

END = 3
FLAT, SHARP = torch.zeros(11), torch.tensor([9.0, *[0.0] * 10])


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(64)
    yield arena
    arena.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(4, torch.device("cpu"))


def ask(arena: Arena, first: int, **how: float) -> Ask:
    return Ask.of(Ask(arena.path, first, 8, **{"k": 4, "end": END, **how}).packed())  # type: ignore[arg-type, return-value]


def step(
    recorder: Recorder, logits: torch.Tensor, rows: list[int], slots: list[int], at: list[int]
) -> torch.Tensor:
    batch = logits.clone()
    recorder.record(batch, rows, slots, torch.tensor(at))
    return batch


def test_only_rows_that_ask_are_written_each_where_its_token_belongs(arena: Arena, recorder: Recorder) -> None:
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(0))
    recorder.admit(2, ask(arena, 10))
    recorder.admit(0, ask(arena, 20, k=2))
    after = step(recorder, logits, [0, 2], [2, 0], [5, 0, 1])
    found, narrow = measure(logits[:1], 4), measure(logits[2:], 2)
    assert torch.equal(after, logits)
    written = arena.values.any(axis=1).nonzero()[0].tolist()
    assert written == [15, 21]
    assert arena.values[15, 0] == pytest.approx(found.confidence.item(), abs=1e-6)
    assert arena.values[15, 5] == pytest.approx(found.entropy.item(), abs=1e-6)
    assert arena.values[21, 1] == pytest.approx(narrow.margin.item(), abs=1e-6)


@pytest.mark.parametrize("position", [-3, 8, 100])
def test_a_token_that_is_none_of_the_requests_is_nobodys(arena: Arena, recorder: Recorder, position: int) -> None:
    recorder.admit(1, ask(arena, 10))
    step(recorder, SHARP[None], [0], [1], [position])
    assert not arena.values[1:].any()


def test_a_sequence_ends_where_a_whole_group_is_below_the_floor(arena: Arena, recorder: Recorder) -> None:
    recorder.admit(1, ask(arena, 10, threshold=4.0, window=2))
    ends = []
    for at, row in enumerate([SHARP, SHARP, FLAT, FLAT]):
        after = step(recorder, torch.stack([SHARP, row]), [1], [1], [-1, at])
        assert torch.equal(after[0], SHARP)
        ends.append(after[1].isfinite().nonzero().flatten().tolist() == [END])
    assert ends == [False, False, False, True]
    assert arena.values[10:14, -1].tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("how", [{"end": -1}, {"window": LONGEST_WINDOW + 1}, {"threshold": float("nan")}, {}])
def test_a_floor_that_cannot_be_kept_ends_nothing(arena: Arena, recorder: Recorder, how: dict[str, float]) -> None:
    recorder.admit(0, ask(arena, 10, **({"threshold": 99.0, **how} if how else {})))
    assert torch.equal(step(recorder, FLAT[None], [0], [0], [0]), FLAT[None])


def test_a_sequence_as_sure_as_its_floor_goes_on(arena: Arena, recorder: Recorder) -> None:
    for seed in range(8):  # float32 is above the floor about as often as below
        rows = torch.randn(3, 11, generator=torch.Generator().manual_seed(seed))
        floor = measure(rows, 4).confidence.double().mean().item()
        recorder.admit(0, ask(arena, 10, threshold=floor * (1 - 1e-9), window=3))
        assert not any(step(recorder, row[None], [0], [0], [at]).isinf().any() for at, row in enumerate(rows))


def test_whoever_takes_a_slot_starts_afresh(arena: Arena, recorder: Recorder) -> None:
    recorder.admit(0, ask(arena, 10, threshold=4.0, window=1))
    assert step(recorder, FLAT[None], [0], [0], [0]).isinf().any()
    recorder.admit(0, ask(arena, 20, threshold=4.0, window=2))
    assert not step(recorder, FLAT[None], [0], [0], [0]).isinf().any()
    recorder.admit(0, ask(arena, 30))
    assert not step(recorder, FLAT[None], [0], [0], [0]).isinf().any()


def test_a_request_that_asks_nothing_has_no_ask() -> None:
    assert Ask.of(None) is None
    assert Ask.of({"other": 1}) is None
