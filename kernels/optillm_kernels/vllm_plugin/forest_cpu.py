"""vLLM's CPU attention with decode steps through the reference of forest attention: the same answers, fewer reads.

It shows on any machine that the forest is right inside vLLM. It is not faster there: the cache of CPUs is packed
in another order, so the blocks that a step needs are copied first.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
)

from optillm_kernels.forest_attention import Plan, forest_attention
from optillm_kernels.vllm_plugin.forest_layouts import UNPACK, unpacked
from optillm_kernels.vllm_plugin.forest_steps import Grove, Options, Planner, Step, statistics

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor
    from vllm.v1.attention.backend import CommonAttentionMetadata

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class CPUStep(Step):
    """With what the layers need: `blocks` are those that any of the sequences has tokens in."""

    plan: Plan
    tables: Int[Tensor, "rows blocks"]
    lengths: Int[Tensor, " rows"]
    blocks: Int[Tensor, " read"]


class ForestCPUMetadataBuilder(CPUAttentionMetadataBuilder):  # type: ignore[misc]
    """vLLM's, which also says whether a step goes through the forest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = Options.of(self.vllm_config.additional_config)
        if options and self.isa not in UNPACK:
            logger.warning(
                "forest attention: the cache's order for %r is not known; vLLM's attention runs", self.isa
            )
            options = None
        self._planner = Planner(options, self.block_size, self.num_kv_heads, one_level=False) if options else None
        self._planted: tuple[Grove, Plan] | None = None

    def build(self, *args: Any, **kwargs: Any) -> CPUAttentionMetadata:
        """vLLM's metadata, with the step of the forest in `.forest`, or None there."""
        metadata = super().build(*args, **kwargs)
        common = args[1] if len(args) > 1 else kwargs["common_attn_metadata"]
        metadata.forest = self._step(self._planner, common) if self._planner else None
        statistics.stock_steps += self._planner is not None and metadata.forest is None
        return metadata

    def _step(self, planner: Planner, common: CommonAttentionMetadata) -> CPUStep | None:
        rows = common.num_reqs
        if common.max_query_len != 1 or common.num_actual_tokens != rows or common.causal is not True:
            return None
        tables, lengths = common.block_table_tensor[:rows], common.seq_lens[:rows]
        if int(lengths.min()) < 1:  # a dummy batch
            return None
        grove = planner.grown(tables, lengths) or planner.planted(tables, lengths)
        if not planner.pays(grove):
            return None
        if self._planted is None or self._planted[0] is not grove:
            self._planted = grove, Plan.of(grove.forest, heads=self.num_heads, kv_heads=self.num_kv_heads)
        held = torch.arange(tables.shape[1]) * self.block_size < lengths[:, None]
        return CPUStep(
            grove=grove,
            tokens=int(lengths.sum()),
            plan=self._planted[1],
            tables=tables,
            lengths=lengths,
            blocks=tables[held].unique().long(),
        )


class ForestCPUImpl(CPUAttentionBackendImpl):  # type: ignore[misc]
    """vLLM's, except for steps that the builder sends through the forest."""

    _plain_cache: ClassVar[Tensor | None] = None  # for all layers: one is done with it before the next one runs

    def forward(
        self,
        layer: torch.nn.Module,
        query: Float[Tensor, "tokens heads dim"],
        key: Float[Tensor, "tokens kv_heads dim"],
        value: Float[Tensor, "tokens kv_heads dim"],
        kv_cache: Float[Tensor, "blocks kv_heads block_size two_dim"],
        attn_metadata: CPUAttentionMetadata | None,
        output: Float[Tensor, "tokens heads dim"],
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Attention into `output`."""
        step: CPUStep | None = getattr(attn_metadata, "forest", None)
        if step is None or output_scale is not None or not self._plain():
            stock: Tensor = super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
            )
            return stock
        step.count()
        rows = len(step.lengths)
        forest_attention(
            query[:rows],
            self._unpacked(layer, kv_cache, step.blocks),
            step.plan,
            step.lengths,
            scale=self.scale,
            soft_cap=self.logits_soft_cap,
            block_tables=step.tables,
            out=output[:rows],
        )
        return output

    @classmethod
    def _unpacked(cls, layer: Any, kv_cache: Tensor, blocks: Tensor) -> Tensor:
        """A cache that has `blocks` in the order that the forest reads; the rest of it is undefined."""
        plain = cls._plain_cache
        if plain is None or plain.shape != kv_cache.shape or plain.dtype != kv_cache.dtype:
            plain = cls._plain_cache = torch.empty_like(kv_cache)
        unpacked(kv_cache, blocks, layer.isa, plain)
        return plain

    def _plain(self) -> bool:
        """Whether this layer does nothing that the forest cannot."""
        return (
            self.attn_type == AttentionType.DECODER
            and self.alibi_slopes is None
            and self.sinks is None
            and self.sliding_window == -1
            and not self.is_fp8_kv_cache
        )


class ForestCPUBackend(CPUAttentionBackend):  # type: ignore[misc]
    """Takes the place of `CPU_ATTN`."""

    @staticmethod
    def get_impl_cls() -> type[ForestCPUImpl]:
        """The implementation."""
        return ForestCPUImpl

    @staticmethod
    def get_builder_cls() -> type[ForestCPUMetadataBuilder]:
        """The builder of metadata."""
        return ForestCPUMetadataBuilder
