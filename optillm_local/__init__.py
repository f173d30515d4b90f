"""Test-time-compute optimizers on an in-process vLLM engine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from optillm_local.clients import ScriptedClient
from optillm_local.core.budget import Budget
from optillm_local.core.client import ModelClient, Stop
from optillm_local.core.completion import Choice, Completion, Score
from optillm_local.core.optimizer import Optimizer
from optillm_local.core.prompt import Message, Prompt, Sampling
from optillm_local.core.solution import Solution
from optillm_local.core.usage import EngineStats, TokenUsage
from optillm_local.registry import create, register
from optillm_local.run import Result, asolve, solve

if TYPE_CHECKING:
    from optillm_local.engine import EngineSettings, VLLMClient
    from optillm_local.openai import AsyncOpenAI, OpenAI
    from optillm_local.optimizers.mars import Mars, MarsConfig, MarsOutput

__version__ = "0.1.0"

__all__ = [
    "AsyncOpenAI",
    "Budget",
    "Choice",
    "Completion",
    "EngineSettings",
    "EngineStats",
    "Mars",
    "MarsConfig",
    "MarsOutput",
    "Message",
    "ModelClient",
    "OpenAI",
    "Optimizer",
    "Prompt",
    "Result",
    "Sampling",
    "Score",
    "ScriptedClient",
    "Solution",
    "Stop",
    "TokenUsage",
    "VLLMClient",
    "asolve",
    "create",
    "register",
    "solve",
]


_LAZY = {
    "AsyncOpenAI": "optillm_local.openai",
    "OpenAI": "optillm_local.openai",
    "EngineSettings": "optillm_local.engine",
    "VLLMClient": "optillm_local.engine",
    "Mars": "optillm_local.optimizers.mars",
    "MarsConfig": "optillm_local.optimizers.mars",
    "MarsOutput": "optillm_local.optimizers.mars",
}


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: without the engine the package needs neither torch nor vllm nor openai."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
