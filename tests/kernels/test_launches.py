"""What a launch compiles, as the just-in-time compiler decides it on a GPU; it needs none to decide.

A kernel that is compiled while sequences run holds all of them up, and one that is compiled while a CUDA graph is
captured breaks it. So nothing that changes from step to step may be compiled for: not the number of rows, nor how
the caller's vectors are aligned.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def keys() -> dict[str, dict[str, list[str]]]:
    """By kernel and shape, what is compiled. In a process without the interpreter, which compiles nothing."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, check=True)
    found: dict[str, dict[str, list[str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kernel", ["stream", "merge", "choose", "push_kernel", "fold_kernel", "target_kernel"])
def test_a_batch_of_another_size_compiles_nothing(keys: dict[str, dict[str, list[str]]], kernel: str) -> None:
    assert {shape: len(found) for shape, found in keys[kernel].items()} == dict.fromkeys(keys[kernel], 1)


def test_the_fused_kernel_has_a_tile_for_few_rows_and_one_for_more(keys: dict[str, dict[str, list[str]]]) -> None:
    assert len(keys["fused_kernel"]["score"]) == 2
    assert len(keys["finish_kernel"]["score"]) == 1


def _launch(seen: dict[str, dict[str, set[str]]], shape: list[str]) -> None:
    from optillm_kernels.scoring import State
    from optillm_kernels.scoring import triton as scoring
    from optillm_kernels.uncertainty import ConfidenceWindow, Draw
    from optillm_kernels.uncertainty import triton as uncertainty

    window, many = ConfidenceWindow(200, 64, "cpu"), torch.zeros(200)
    for rows in (1, 2, 3, 16, 33, 64):
        for start in (0, 1):
            floats, ints = many[start : start + rows], many.long()[start : start + rows]
            draw = Draw(floats, floats, floats, ints, ints, ints)
            for draws in (False, True):
                shape[0] = f"measured, drawn: {draws}"
                logits = torch.zeros(rows, 1024, dtype=torch.bfloat16)
                found = uncertainty.measure_and_draw(logits, draw)[0] if draws else uncertainty.measure(logits)
            shape[0] = "push"
            uncertainty.push(window, ints, found.confidence)
            uncertainty.push(window, ints, floats)
            shape[0] = "fold"
            scoring.fold(State.empty(rows, many.device), torch.zeros(rows, 1024), ints, floats, first=start)
            shape[0] = "score"
            hidden, weight = (torch.zeros(n, 64, dtype=torch.bfloat16) for n in (2 * rows, 2000))
            scoring.score(hidden, weight, many.long()[start : start + 2 * rows], splits=4)


def _record() -> dict[str, dict[str, list[str]]]:
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    class Hopper:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    shape = [""]

    def compiled(*, fn: Any, key: str, **_: Any) -> bool:
        seen[fn.jit_function.__name__][shape[0]].add(key)
        return True  # and is neither compiled nor launched

    driver.set_active(Hopper())
    knobs.runtime.jit_cache_hook = compiled
    _launch(seen, shape)
    return {name: {of: sorted(found) for of, found in shapes.items()} for name, shapes in seen.items()}


if __name__ == "__main__":
    json.dump(_record(), sys.stdout)
