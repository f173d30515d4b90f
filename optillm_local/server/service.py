"""What the endpoints share."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, field

from optillm_local.core.budget import Budget
from optillm_local.core.client import ModelClient
from optillm_local.core.errors import EngineDead
from optillm_local.openai.calls import Completions
from optillm_local.server.errors import Told, told
from optillm_local.server.log import ConversationLog
from optillm_local.server.metrics import Metrics
from optillm_local.server.queue import Queue
from optillm_local.server.security import Keys, Limits

logger = logging.getLogger("optillm_local.server")


@dataclass
class Service:
    """One model, those who may ask it, and the account of what they asked.

    Attributes:
        engine_dead: nothing can be answered any more.
    """

    client: ModelClient
    calls: Completions
    keys: Keys
    limits: Limits
    queue: Queue
    log: ConversationLog | None = None
    metrics: Metrics = field(default_factory=Metrics)
    engine_dead: bool = False

    @property
    def budget(self) -> Budget:
        """Of one request."""
        return Budget(self.limits.tokens, self.limits.seconds)

    def tell(self, error: Exception) -> Told:
        """How to tell a client of an error. Those that are not its own fault are logged, by place only."""
        self.engine_dead |= isinstance(error, EngineDead)
        about = told(error)
        if about.status >= 500:
            # The message may quote a request. Where it happened cannot.
            where = ["", *traceback.format_tb(error.__traceback__)] if about.status == 500 else []
            logger.error("%s: %s%s", about.code, type(error).__name__, "\n".join(where))
        return about
