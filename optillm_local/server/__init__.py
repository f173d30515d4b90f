"""The OpenAI-compatible server: every request shares one model and one batch.

Imported on request only: it needs Starlette, uvicorn and the `openai` package (extra `serve`).
"""

from optillm_local.server.app import check_approach, create_app
from optillm_local.server.log import ConversationLog
from optillm_local.server.security import Keys, Limits, check_host

__all__ = ["ConversationLog", "Keys", "Limits", "check_approach", "check_host", "create_app"]
