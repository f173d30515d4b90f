"""vLLM's worker for GPUs, whose runner scores exactly."""

from __future__ import annotations

from typing import Any

from optillm_kernels.vllm_plugin.scoring import install
from vllm.v1.worker.gpu_worker import Worker


class GPUWorker(Worker):  # type: ignore[misc]
    """vLLM's; 0.32 has no hook between loading a model and its first step."""

    def load_model(self, **options: Any) -> None:
        """Load the model, and let the runner score with its head."""
        super().load_model(**options)
        install(self.model_runner)
