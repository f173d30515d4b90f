"""The benchmark of the free wins: one part as its users run it, and the counts on the session's engine."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optillm_local import Prompt
from optillm_local.engine import VLLMClient
from optillm_local.engine.batch import Batch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough here: what is counted is the engine's."""
    return "asyncio"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the benchmark."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return runpy.run_path(str(BENCHMARKS / "free_wins.py"))


def test_every_way_to_record_alternatives_is_timed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(BENCHMARKS / "free_wins.py"),
        "--parts",
        "host",
        "--quick",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "dictionary, no text" in done.stdout and "7/7" in done.stdout
    [record] = [json.loads(line) for line in (tmp_path / "free_wins.jsonl").read_text().splitlines()]
    spent = {way: row["us"] for way, row in record["host"].items()}
    assert len(spent) == 5 and all(0 < us < 10_000 for us in spent.values())


async def test_the_engine_makes_the_text_but_not_that_of_alternatives(engine: VLLMClient) -> None:
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=4, logprobs=3, flat_logprobs=True, ignore_eos=True)
    [output] = await Batch(engine._handle, [engine.render(Prompt.of("Hello."))], [params], [None]).finish()
    [said] = output.outputs
    assert said.text and len(said.logprobs) == 4 and set(said.logprobs.decoded_tokens) == {None}


async def test_siblings_asked_in_turns_are_neighbours_in_the_batch(
    engine: VLLMClient, program: dict[str, Any]
) -> None:
    found = await program["order"](engine, 3, 3, lambda: None)
    turns, beside = found["in turns"], found["side by side"]
    assert (turns["neighbours at first"], beside["neighbours at first"]) == (0, 1)
    assert beside["neighbours"] > 0.5 > turns["neighbours"]
    assert turns["cached prompt tokens"] == beside["cached prompt tokens"] > 0


async def test_agents_share_what_stands_before_their_differences(
    engine: VLLMClient, program: dict[str, Any]
) -> None:
    found = await program["layout"](engine, lambda: None)
    for step in ("explore", "judge"):
        first, last = (found[f"{step}, differences {way}"] for way in ("first", "last"))
        assert last["computed prompt tokens"] < first["computed prompt tokens"] / 3
        assert first["cached prompt tokens"] == 0 < last["cached prompt tokens"]
