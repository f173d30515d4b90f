"""Engines that end, are ended, or never start: nobody waits forever, and the message says what to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from optillm_local import Prompt
from optillm_local.core.errors import EngineDead, EngineOutOfMemory, ModelNotFound
from optillm_local.engine import VLLMClient
from optillm_local.engine.embedded import embedded_model
from optillm_local.store import read_events

pytestmark = pytest.mark.timeout(400)

ENDLESS = Prompt.of("Count to a million.", temperature=1.0, max_tokens=1500)


async def ending(client: VLLMClient, end: Callable[[], Awaitable[None]]) -> list[str]:
    """What three callers in the middle of a sample get when `end` ends the client."""
    got: list[str] = []

    async def ask() -> None:
        try:
            got.append({one.finish_reason for one in await client.sample(ENDLESS, n=2)}.pop())
        except EngineDead:
            got.append("engine dead")

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.sleep(1)
        await end()
    return got


def test_closing_ends_requests_in_flight(mortal: VLLMClient) -> None:
    async def main() -> list[str]:
        got = await ending(mortal, mortal.close)
        await mortal.close()
        with pytest.raises(EngineDead, match="closed"):
            await mortal.sample(ENDLESS)
        return got

    assert anyio.run(main) == ["abort"] * 3


def test_closing_one_engine_leaves_another_alone(engine: VLLMClient, mortal: VLLMClient) -> None:
    async def main() -> int:
        await mortal.sample(ENDLESS, max_tokens=2)
        await mortal.close()
        [one] = await engine.sample(ENDLESS, max_tokens=2)
        return one.usage.completion

    assert anyio.run(main) == 2


def test_an_engine_that_dies_tells_every_caller(mortal: VLLMClient) -> None:
    async def main() -> list[str]:
        got = await ending(mortal, lambda: kill(mortal))
        with pytest.raises(EngineDead):
            await mortal.sample(ENDLESS)
        await mortal.close()
        return got

    assert anyio.run(main) == ["engine dead"] * 3


async def kill(client: VLLMClient) -> None:
    """End the engine's process; where it has none, take away what its next step needs."""
    engine = client._handle._engine  # type: ignore[attr-defined]
    resources = getattr(engine.engine_core, "resources", None)
    if resources is None:
        engine.engine_core.engine_core.scheduler.running = None
    else:
        for process in resources.engine_manager.processes:
            os.kill(process.pid, signal.SIGKILL)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelNotFound, match="/no/such/model"):
        VLLMClient(model="/no/such/model")


def test_a_damaged_weights_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(embedded_model(), broken)
    weights = broken / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size - 1000)
    with pytest.raises(ModelNotFound, match=r"broken/model\.safetensors"):
        VLLMClient(model=str(broken))
    weights.write_bytes(b"not weights at all")
    with pytest.raises(ModelNotFound, match=r"broken/model\.safetensors"):
        VLLMClient(model=str(broken))


def test_a_cache_too_small_for_the_context_says_what_to_lower() -> None:
    with pytest.raises(EngineOutOfMemory, match="max_model_len"):
        VLLMClient(kv_cache_gib=0.01, max_model_len=8192)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from optillm_local.cli import main; sys.exit(main())", *arguments]


def test_the_command_prints_one_object_on_stdout(tmp_path: Path) -> None:
    record = tmp_path / "events.jsonl"
    asked = command("solve", "What is 2 + 2?", "--json", "-o", "n=4", "--max-tokens=24", f"--events={record}")
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["usage"]["completion"] == result["engine"]["generated_tokens"] > 0
    assert result["usage"]["prompt"] - result["usage"]["cached"] == result["engine"]["computed_prompt_tokens"]
    assert [event.event for event in read_events(record)][-1] == "run_completed"


def test_control_c_keeps_the_events(tmp_path: Path) -> None:
    record = tmp_path / "events.jsonl"
    asked = command(
        "solve", "Count to a million.", "--max-tokens=1500", "--temperature=2", f"--events={record}"
    )  # babbles on
    running = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while "sequence_started" not in (record.read_text() if record.exists() else ""):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "Traceback" not in said
    ended = [event for event in read_events(record) if event.event == "sequence_completed"]
    assert [one.finish_reason for one in ended] == ["abort"] * 5
