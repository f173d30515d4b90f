"""The engine: vLLM inside this program. The only package that imports vllm, and only when a client is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optillm_local.engine.embedded import EMBEDDED_MODEL
from optillm_local.engine.settings import EngineSettings

if TYPE_CHECKING:
    from optillm_local.engine.vllm_client import VLLMClient

__all__ = ["EMBEDDED_MODEL", "EngineSettings", "VLLMClient"]


def __getattr__(name: str) -> Any:
    if name == "VLLMClient":
        from optillm_local.engine.vllm_client import VLLMClient

        return VLLMClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
