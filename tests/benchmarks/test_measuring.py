"""The benchmark of measuring, on the session's engine: counts only."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from optillm_local.engine import VLLMClient

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return runpy.run_path(str(BENCHMARKS / "measuring.py"))


async def test_the_engine_ends_the_same_sequences_sooner(engine: VLLMClient, program: dict[str, Any]) -> None:
    found = await program["ended"](engine, 6, 40, lambda: None)
    assert found["engine"]["same verdict"] == "6 of 6"
    assert found["engine"]["ended"] >= found["reader"]["ended"] > 0
    assert found["engine"]["generated"] < found["reader"]["generated"] <= found["nobody"]["generated"]


async def test_every_way_is_timed(engine: VLLMClient, program: dict[str, Any]) -> None:
    rounds: list[None] = []
    found = await program["cost"](engine, 2, 4, 1, lambda: rounds.append(None))
    assert set(found) == set(program["WAYS"])
    assert len(rounds) == 2 * len(found)
    assert found["nothing"]["of nothing"] == 1
