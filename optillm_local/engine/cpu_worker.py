"""vLLM's worker for CPUs, mended: a prompt that is prefilled in parts does not end the engine. It scores exactly.

Where a prompt does not fit into one step, the token that vLLM samples after the first part is thrown away, and the
request's own random generator is to be set back by the draw. CPU generators have no such offset: vLLM 0.32 raises,
and the engine is dead. Here these rows do not draw from their generators at all, which comes to the same.
"""

from __future__ import annotations

from typing import Any

from optillm_kernels.vllm_plugin.scoring import PromptScores
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker as VLLMWorker


class _Runner(CPUModelRunner):  # type: ignore[misc]
    """Keeps the generators of rows whose token will be thrown away out of a step."""

    def _sample(self, *args: Any) -> Any:
        rows = self.discard_request_mask.np[: self.input_batch.num_reqs].nonzero()[0].tolist()
        generators = self.input_batch.generators
        self._resting = {row: generators.pop(row) for row in rows if row in generators}
        return super()._sample(*args)

    def _bookkeeping_sync(self, *args: Any) -> Any:
        try:
            return super()._bookkeeping_sync(*args)
        finally:
            self.input_batch.generators.update(self._resting)


class _ExactRunner(PromptScores, _Runner):
    """Scores given tokens in float32."""


class CPUWorker(VLLMWorker):  # type: ignore[misc]
    """vLLM's, with the runner above."""

    def init_device(self) -> None:
        """Set up, and put the mended runner in the place of vLLM's."""
        super().init_device()
        if type(self.model_runner) is CPUModelRunner:
            exact = self.vllm_config.additional_config.get("optillm_kernels")
            self.model_runner.__class__ = _ExactRunner if exact else _Runner
