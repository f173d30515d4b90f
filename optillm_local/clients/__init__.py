"""Model clients that need no engine of ours."""

from optillm_local.clients.scripted import Reply, ScriptedClient

__all__ = ["Reply", "ScriptedClient"]
