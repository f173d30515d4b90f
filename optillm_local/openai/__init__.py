"""The OpenAI API over a `ModelClient`: what the drop-in client and the server share.

Imported on request only: it needs the `openai` package, whose types it returns (extra `serve`).
"""

from optillm_local.openai.calls import Completions
from optillm_local.openai.client import AsyncOpenAI, OpenAI

__all__ = ["AsyncOpenAI", "Completions", "OpenAI"]
