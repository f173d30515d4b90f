"""Requests keep their slots while vLLM moves them through the batch, and only tokens that are drawn count."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optillm_kernels.uncertainty import measure
from optillm_kernels.vllm_plugin.arena import Arena
from optillm_kernels.vllm_plugin.recorder import Ask

pytest.importorskip("vllm")

from optillm_kernels.vllm_plugin import logits_v1, logits_v2
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.sample.logits_processor.state import BatchUpdateBuilder

SLOTS = 6
FLAT, SHARP = torch.zeros(11), torch.tensor([9.0, *[0.0] * 10])


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    arena = Arena(4096)
    yield arena
    arena.close()


def asking(arena: Arena, first: int, **how: Any) -> SamplingParams:
    return SamplingParams(extra_args=Ask(arena.path, first, 16, 4, end=3, **how).packed())


def processor_v1() -> logits_v1.RecordingProcessor:
    config: Any = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=SLOTS))
    return logits_v1.RecordingProcessor(config, torch.device("cpu"), False)


class Runner:
    """A batch that changes as that of vLLM's V1 runner does, by vLLM's own account of changes."""

    def __init__(self) -> None:
        self.processor, self.builder = processor_v1(), BatchUpdateBuilder()
        self.rows: list[tuple[int | None, list[int]] | None] = []  # (first row of the arena, output)

    def step(
        self, gone: set[int], new: list[tuple[int | None, SamplingParams]], swaps: list[tuple[int, int]]
    ) -> None:
        for row in gone:
            self.rows[row] = None
            self.builder.removed_append(row)
        for first, params in new:
            at = self.builder.pop_removed()
            self.rows += [None] * (at is None)
            row = len(self.rows) - 1 if at is None else at
            self.rows[row] = first, []
            self.builder.added.append((row, params, None, self.rows[row][1]))  # type: ignore[index]
        self._condense()
        for one, other in swaps:
            self.rows[one], self.rows[other] = self.rows[other], self.rows[one]
            self.builder.moved.append((one, other, MoveDirectionality.SWAP))
        self.processor.update_state(self.builder.get_and_reset(len(self.rows)))

    def _condense(self) -> None:
        empty, last = self.builder.removed, len(self.rows) - 1
        while empty:
            while last in empty:
                last -= 1
            if self.builder.peek_removed() >= last:  # type: ignore[operator]
                break
            target = self.builder.pop_removed()
            self.rows[target], self.rows[last] = self.rows[last], None  # type: ignore[index]
            self.builder.moved.append((last, target, MoveDirectionality.UNIDIRECTIONAL))  # type: ignore[arg-type]
            last -= 1
        self.rows = [row for row in self.rows if row is not None]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_wherever_a_request_stands_its_own_rows_are_written(arena: Arena, data: st.DataObject) -> None:
    runner, firsts = Runner(), iter(range(1, 4096, 16))
    for _ in range(data.draw(st.integers(1, 8))):
        batch = len(runner.rows)
        gone = data.draw(st.sets(st.integers(0, batch - 1))) if batch else set()
        free = SLOTS - batch + len(gone)
        asks = [next(firsts) if ask else None for ask in data.draw(st.lists(st.booleans(), max_size=free))]
        new = [(first, asking(arena, first) if first else SamplingParams()) for first in asks]
        left = batch - len(gone) + len(new)
        swap = st.tuples(st.integers(0, left - 1), st.integers(0, left - 1)).filter(
            lambda pair: pair[0] != pair[1]
        )
        runner.step(gone, new, data.draw(st.lists(swap, max_size=2)) if left > 1 else [])
        arena.values[:] = 0
        logits = torch.randn(left, 11)
        runner.processor.apply(logits)
        asked = [(row, first, out) for row, (first, out) in enumerate(filter(None, runner.rows)) if first]
        assert (arena.values[1:].any(axis=1).nonzero()[0] + 1).tolist() == sorted(f + len(o) for _, f, o in asked)
        for row, first, output in asked:
            confidence = measure(logits[row : row + 1], 4).confidence.item()
            assert arena.values[first + len(output), 0] == pytest.approx(confidence, abs=1e-5)
            output.append(7)
        assert len(set(runner.processor._free)) == SLOTS - len(asked)


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_of_a_prompt_are_not_held_against_a_sequence(arena: Arena, parts: int) -> None:
    processor, output = processor_v1(), list[int]()
    params = asking(arena, 1, threshold=4.0, window=2)
    processor.update_state(BatchUpdate(1, [], [(0, params, None, output)], []))
    for _ in range(parts):
        processor.apply(FLAT[None].clone())
    ended = []
    for row in (SHARP, SHARP, FLAT, FLAT):
        ended.append(bool(processor.apply(row[None].clone()).isinf().any()))
        output.append(0)
    assert ended == [False, False, False, True]


def test_the_second_runner_counts_tokens_from_the_prompt(arena: Arena) -> None:
    arena.values[:] = 0
    lengths = {
        "prompt_len": [5, 5, 9, 5],
        "prefill_len": [5, 8, 9, 8],
    }  # slots 1 and 3 resume with three tokens drawn
    buffers = {name: SimpleNamespace(gpu=torch.tensor(values)) for name, values in lengths.items()}
    state: Any = SimpleNamespace(max_num_reqs=4, device=torch.device("cpu"), **buffers)
    processor = logits_v2.RecordingProcessor(SimpleNamespace(), state)  # type: ignore[arg-type]
    firsts = [1, 101, 201, 301]
    assert all(processor.add_request(slot, asking(arena, first)) for slot, first in enumerate(firsts))
    order, fed = [3, 1, 0, 2], [6, 8, 5, 4]  # tokens computed after this step, by row
    slots = torch.tensor(order)
    context: Any = SimpleNamespace(
        expanded_idx_mapping=slots, idx_mapping_np=np.array(order), pos=torch.tensor(fed) - 1
    )
    processor.apply(torch.randn(4, 11), context)
    assert arena.values[1:].any(axis=1).nonzero()[0].tolist() == [0, 103]  # of row 1 and 104
    assert processor.add_request(0, SamplingParams()) is False
