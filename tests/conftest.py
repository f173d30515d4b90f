"""What tests share: both event loops, and one real engine of each kind for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anyio
import pytest

if TYPE_CHECKING:
    from optillm_local.engine import VLLMClient

os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton: kernels run on the CPU, program by program


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both event loops; the engine does not care whose loop asks."""
    return request.param


def start(handle: str) -> VLLMClient:
    """The embedded model on an engine of that kind; in float32, whatever the CPU, so that tolerances hold."""
    from optillm_local.engine import VLLMClient

    return VLLMClient(handle=handle, max_model_len=2048, kv_cache_gib=1, dtype="float32")


@pytest.fixture(scope="session")
def engine() -> Iterator[VLLMClient]:
    """The engine in this process."""
    client = start("inprocess")
    yield client
    anyio.run(client.close)


@pytest.fixture(scope="session")
def async_engine() -> Iterator[VLLMClient]:
    """The engine in a process of its own, as on a GPU."""
    client = start("async")
    yield client
    anyio.run(client.close)


@pytest.fixture(params=["inprocess", "async"])
def mortal(request: pytest.FixtureRequest) -> VLLMClient:
    """An engine of its own, for a test that ends it."""
    return start(request.param)
