"""vLLM's FlashAttention with decode steps through the forest.

Nobody has run this on a GPU yet; it is written from the source of vLLM 0.32 and its parts are tested on the CPU.

Whether a step goes through the forest is decided on the host, step by step, so the attention cannot be inside a
full CUDA graph: with the option on, the builder says so and vLLM captures everything but the attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm import envs
from vllm.logger import init_logger
from vllm.v1.attention.backend import AttentionCGSupport, AttentionType
from vllm.v1.attention.backends import flash_attn
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadata,
    FlashAttentionMetadataBuilder,
)
from vllm.v1.attention.ops.merge_attn_states import merge_attn_states

from optillm_kernels.forest_attention import Plan, forest_attention
from optillm_kernels.vllm_plugin.forest_steps import Grove, Options, Planner, Step, statistics
from optillm_kernels.vllm_plugin.forest_two_pass import Groups, Suffixes, two_pass

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy.typing import NDArray
    from torch import Tensor
    from vllm.config import VllmConfig
    from vllm.v1.attention.backend import CommonAttentionMetadata
    from vllm.v1.kv_cache_interface import KVCacheSpec

    Slots = NDArray[np.integer[Any]]

logger = init_logger(__name__)


@dataclass(kw_only=True)
class FlashStep(Step):
    """With what the layers need: a plan for the kernel, or what the two passes read."""

    work: Plan | tuple[Groups, Suffixes]


class ForestFlashMetadataBuilder(FlashAttentionMetadataBuilder):  # type: ignore[misc]
    """vLLM's, which also says whether a step goes through the forest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = _options(self.vllm_config)
        self._planner: Planner | None = None
        if options and not self.fa4_hd256 and self._has_plain_layers():
            one_level = options.route == "two_pass"
            self._planner = Planner(options, self.block_size, self.num_heads_kv, one_level=one_level)
        self._who: Slots | None = None
        self._lengths: Slots | None = None
        self._grove: Grove | None = None
        self._on_device: tuple[Grove, Plan | Groups] | None = None

    @classmethod
    def get_cudagraph_support(cls, vllm_config: VllmConfig, kv_cache_spec: KVCacheSpec) -> AttentionCGSupport:
        """None with the option on: see the module."""
        if _options(vllm_config):
            return AttentionCGSupport.NEVER
        return super().get_cudagraph_support(vllm_config, kv_cache_spec)

    def _has_plain_layers(self) -> bool:
        """Whether any layer can use a plan: those with sliding windows, for one, are a group of their own."""
        layers = flash_attn.get_layers_from_vllm_config(self.vllm_config, flash_attn.Attention, self.layer_names)
        impls = (impl for layer in layers.values() for impl in layer.impl.get_impl_variants())
        return any(isinstance(impl, ForestFlashImpl) and impl.is_plain() for impl in impls)

    def build(self, *args: Any, **kwargs: Any) -> FlashAttentionMetadata:
        """vLLM's metadata, with the step of the forest in `.forest`, or None there."""
        metadata = super().build(*args, **kwargs)
        common = args[1] if len(args) > 1 else kwargs["common_attn_metadata"]
        metadata.forest = self._step(self._planner, common) if self._planner else None
        statistics.stock_steps += self._planner is not None and metadata.forest is None
        return metadata

    def _step(self, planner: Planner, common: CommonAttentionMetadata) -> FlashStep | None:
        if not _decodes_only(common):
            self._who = None
            return None
        rows = common.num_reqs
        who, lengths = common.req_idx[:rows], common.seq_lens_cpu_upper_bound[:rows].numpy()
        if lengths.min() < 1:  # a dummy batch
            self._who = None
            return None
        grove = self._grove_of(planner, common.block_table_tensor, who, lengths)
        if not planner.pays(grove):
            return None
        held = self._on_device[1] if self._on_device and self._on_device[0] is grove else None
        if held is None or (isinstance(held, Plan) and held.outgrown(lengths)):
            held = self._work(planner, grove, lengths)
            self._on_device = grove, held
        work: Plan | tuple[Groups, Suffixes]
        if isinstance(held, Plan):
            work = held
        else:
            tables, starts = common.block_table_tensor[:rows], common.query_start_loc[: rows + 1]
            own = common.seq_lens[:rows]
            work = held, Suffixes.of(held, tables, own, starts, int(lengths.max()), self.block_size)
        return FlashStep(grove=grove, tokens=int(lengths.sum()), work=work)

    def _work(self, planner: Planner, grove: Grove, lengths: Slots) -> Plan | Groups:
        """On the device. Never in buffers of before: a step that reads those may still be under way."""
        if planner.one_level:
            return Groups.of(grove.runs, len(lengths), self.block_size, self.device)
        forest = grove.forest.grown(lengths)
        return Plan.of(forest, heads=self.num_heads_q, kv_heads=self.num_heads_kv, device=self.device)

    def _grove_of(self, planner: Planner, tables: Tensor, who: Slots, lengths: Slots) -> Grove:
        """The forest so far while the same slots of the runner grow by one token each; else a new one.

        A slot that changed hands shows: its new request is prefilled first, in a step that is not ours. If some
        sequences left, what the others share is known. Only if some joined are the block tables copied to the
        host, which waits for the device.
        """
        before = self._before(who, lengths)
        if self._grove is None or before is None:
            held = tables[: len(who), : -(-int(lengths.max()) // self.block_size)].cpu()
            self._grove = planner.planted(held, torch.from_numpy(lengths.copy()))
        elif not np.array_equal(before, np.arange(len(self._grove.forest.seq_lens))):
            forest = self._grove.forest
            held, known = torch.from_numpy(forest.tables[before]), torch.from_numpy(forest.seq_lens[before])
            self._grove = planner.planted(held, known)
        self._who, self._lengths = who.copy(), lengths.copy()
        return self._grove

    def _before(self, who: Slots, lengths: Slots) -> Slots | None:
        """Each row's place in the step before, if all were there and had one token fewer."""
        if self._who is None or self._lengths is None:
            return None
        order = np.argsort(self._who)
        places = order[np.searchsorted(self._who, who, sorter=order).clip(max=len(order) - 1)]
        same = (self._who[places] == who) & (self._lengths[places] + 1 == lengths)
        return places if same.all() else None


def _options(config: VllmConfig) -> Options | None:
    """What is asked of the forest, where the engine's other settings leave room for it."""
    options = Options.of(config.additional_config)
    plain = (
        config.use_v2_model_runner  # the first one does not say which rows are which sequences
        and config.parallel_config.decode_context_parallel_size == 1
        and config.model_config.rswa_window is None
        and config.speculative_config is None  # lengths on the host are exact
        and not envs.VLLM_BATCH_INVARIANT  # what else is in the batch decides what is read together
    )
    if options and not plain:
        logger.warning_once("forest attention: not with these settings of the engine; vLLM's attention runs")
    return options if plain else None


def _decodes_only(common: CommonAttentionMetadata) -> bool:
    """Whether every row is one token of a sequence that the runner identifies. Only the V2 runner does."""
    return bool(
        common.max_query_len == 1
        and common.num_actual_tokens == common.num_reqs
        and common.causal is True
        and common.req_idx is not None
        and common.seq_lens_cpu_upper_bound is not None
        and common.is_prefilling is not None
        and not common.is_prefilling[: common.num_reqs].any()
        and common.mm_req_doc_ranges is None
    )


class ForestFlashImpl(FlashAttentionImpl):  # type: ignore[misc]
    """vLLM's, except for steps that the builder sends through the forest."""

    def forward(
        self,
        layer: torch.nn.Module,
        query: Float[Tensor, "tokens heads dim"],
        key: Float[Tensor, "tokens kv_heads dim"],
        value: Float[Tensor, "tokens kv_heads dim"],
        kv_cache: Float[Tensor, "blocks kv_heads block_size two_dim"],
        attn_metadata: FlashAttentionMetadata,
        output: Float[Tensor, "tokens heads dim"],
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Attention into `output`."""
        step: FlashStep | None = getattr(attn_metadata, "forest", None)
        if step is None or output_scale is not None or not self.is_plain():
            stock: Tensor = super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
            )
            return stock
        rows = attn_metadata.num_actual_tokens
        step.count()
        if isinstance(step.work, Plan):
            forest_attention(
                query[:rows],
                kv_cache,
                step.work,
                attn_metadata.seq_lens,
                scale=self.scale,
                soft_cap=self.logits_soft_cap,
                block_tables=attn_metadata.block_table,
                out=output[:rows],
            )
            return output
        keys, values = kv_cache.transpose(1, 2).chunk(2, dim=-1)
        two_pass(
            query[:rows],
            flash_attn.canonicalize_singleton_dim_strides(keys),
            flash_attn.canonicalize_singleton_dim_strides(values),
            output[:rows],
            *step.work,
            attend=flash_attn.flash_attn_varlen_func,
            merge=merge_attn_states,
            softmax_scale=self.scale,
            softcap=self.logits_soft_cap,
            fa_version=self.vllm_flash_attn_version,
        )
        return output

    def is_plain(self) -> bool:
        """Whether this layer does nothing that the forest cannot."""
        return (
            self.attn_type == AttentionType.DECODER
            and self.alibi_slopes is None
            and self.sinks is None
            and self.sliding_window == (-1, -1)
            and not flash_attn.is_quantized_kv_cache(self.kv_cache_dtype)
        )


class ForestFlashBackend(FlashAttentionBackend):  # type: ignore[misc]
    """Takes the place of `FLASH_ATTN`."""

    @staticmethod
    def get_impl_cls() -> type[ForestFlashImpl]:
        """The implementation."""
        return ForestFlashImpl

    @staticmethod
    def get_builder_cls() -> type[ForestFlashMetadataBuilder]:
        """The builder of metadata."""
        return ForestFlashMetadataBuilder
