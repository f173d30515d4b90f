"""The recorder as a logits processor of vLLM's second model runner, the one of GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcessor, LogitsProcRequestState

from optillm_kernels.vllm_plugin.recorder import Ask, Recorder

if TYPE_CHECKING:
    from torch import Tensor
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class RecordingProcessor(LogitsProcessor):  # type: ignore[misc]
    """Measures the rows whose requests ask; see `recorder`.

    The statistics go from the device straight into the arena, which is mapped there: they are in place when the
    step is over, and so before its tokens are handed out.
    """

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        self._prompt_len, self._prefill_len = req_states.prompt_len, req_states.prefill_len
        self._recorder = Recorder(req_states.max_num_reqs, req_states.device)
        self._asking: set[int] = set()  # slots

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """A request takes a slot; whether it asks."""
        ask = Ask.of(sampling_params.extra_args)
        if ask is None:
            self._asking.discard(req_idx)
            return False
        self._asking.add(req_idx)
        self._recorder.admit(req_idx, ask)
        return True

    def apply(self, logits: Tensor, ctx: LogitsContext) -> Tensor:
        """The logits, with the rows of sequences that are too unsure masked to their end."""
        # Without speculative decoding, a request has one row.
        asking = [(row, slot) for row, slot in enumerate(ctx.idx_mapping_np.tolist()) if slot in self._asking]
        if asking:
            rows, slots = map(list, zip(*asking, strict=True))
            slot, tokens = ctx.expanded_idx_mapping, ctx.pos + 1
            drawn = tokens - self._prompt_len.gpu[slot]
            # Prefilling in parts, also of what was drawn before a preemption, draws nothing.
            positions = torch.where(tokens >= self._prefill_len.gpu[slot], drawn, -1)
            self._recorder.record(logits, rows, slots, positions.to(torch.int64))
        return logits
