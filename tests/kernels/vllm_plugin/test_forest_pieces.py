"""Pieces of forest attention inside vLLM that need no engine: layouts of the cache, options, two passes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")

from optillm_kernels.forest_attention import Forest, Plan, forest_attention
from optillm_kernels.vllm_plugin.forest_layouts import unpacked
from optillm_kernels.vllm_plugin.forest_steps import KEY, Options, Planner
from optillm_kernels.vllm_plugin.forest_two_pass import Groups, Suffixes, best_cut, two_pass


@pytest.mark.parametrize(
    ("isa", "dtype", "dim", "block_size"),
    [
        ("vec", torch.float32, 64, 32),
        ("vec", torch.bfloat16, 128, 64),
        ("vec16", torch.float32, 80, 32),
        ("amx", torch.bfloat16, 64, 32),
        ("amx", torch.bfloat16, 128, 96),
        ("amx", torch.float16, 64, 64),
    ],
)
def test_what_vllm_writes_into_the_cache_is_read_back(
    isa: str, dtype: torch.dtype, dim: int, block_size: int
) -> None:
    from vllm import _custom_ops as ops

    heads, tokens = 3, 2 * block_size - 5
    cache = torch.zeros(4, heads, block_size, 2 * dim, dtype=dtype)
    keys, values = torch.randn(2, tokens, heads, dim).to(dtype)
    slots = torch.cat([torch.arange(block_size) + 2 * block_size, torch.arange(tokens - block_size) + block_size])
    halves = cache.view(4, heads, 2 * block_size, dim).chunk(2, dim=2)
    ops.cpu_attn_reshape_and_cache(keys, values, *halves, slots, isa)
    plain = torch.empty_like(cache)
    unpacked(cache, torch.tensor([2, 1]), isa, plain)
    read = plain[[2, 1]].transpose(1, 2).flatten(0, 1)[:tokens]
    assert torch.equal(read, torch.cat([keys, values], dim=-1))


def test_without_the_key_nobody_asked() -> None:
    assert Options.of({}) is None
    assert Options.of({KEY: {}}) == Options()
    assert Options.of({KEY: {"min_saved_tokens": 1}}) == Options(min_saved_tokens=1)


@pytest.mark.parametrize(("given", "said"), [({"depth": 1}, "depth"), ({"route": "fast"}, "two_pass or triton")])
def test_options_that_do_not_exist_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Options.of({KEY: given})


def attend(q: Any, k: Any, v: Any, **how: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Paged attention in plain torch, with the arguments of flash_attn_varlen_func."""
    starts, lengths = how["cu_seqlens_q"].tolist(), how["seqused_k"].tolist()
    out, lse = torch.zeros_like(q), torch.zeros(q.shape[1], q.shape[0], dtype=q.dtype)
    for i, length in enumerate(lengths):
        rows = slice(starts[i], starts[i + 1])
        assert rows.stop - rows.start <= how["max_seqlen_q"] and length <= how["max_seqlen_k"]
        keys, values = (c[how["block_table"][i].long()].flatten(0, 1)[:length] for c in (k, v))
        share = q.shape[1] // keys.shape[1]
        scores = torch.einsum("qhd,khd->hqk", q[rows], keys.repeat_interleave(share, 1)) * how["softmax_scale"]
        lse[:, rows] = scores.logsumexp(-1)
        out[rows] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values.repeat_interleave(share, 1))
    return out, lse


def test_two_passes_equal_one() -> None:
    from vllm.v1.attention.ops.merge_attn_states import merge_attn_states

    noise = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 20, 16, 2, 8, generator=noise)
    query = torch.randn(5, 6, 8, generator=noise)
    tables = torch.tensor(
        [[3, 4, 5, 0], [9, 10, 0, 0], [3, 4, 6, 7], [1, 2, 0, 0], [9, 11, 12, 0]], dtype=torch.int32
    )
    lengths = torch.tensor([40, 17, 64, 20, 33], dtype=torch.int32)
    starts = torch.arange(6, dtype=torch.int32)
    expected, _ = attend(
        query, keys, values, cu_seqlens_q=starts, seqused_k=lengths, max_seqlen_q=1, max_seqlen_k=64,
        block_table=tables, softmax_scale=0.3,
    )  # fmt: skip
    groups = Groups.of([([0, 2], [3, 4]), ([4, 1], [9])], 5, 16, torch.device("cpu"))
    suffixes = Suffixes.of(groups, tables, lengths, starts, 64, 16)
    output = torch.empty_like(query)
    two_pass(
        query, keys, values, output, groups, suffixes, attend=attend, merge=merge_attn_states, softmax_scale=0.3
    )
    assert torch.allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("tables", "runs", "saved"),
    [
        ([[1, 2, 3], [1, 2, 4], [1, 2, 5]], [([0, 1, 2], [1, 2])], 4),
        ([[1, 2, 3, 9], [1, 2, 3, 8], [1, 4, 5, 7], [1, 4, 5, 6]], [([0, 1], [1, 2, 3]), ([2, 3], [1, 4, 5])], 6),
        ([[1, 2, 3, 9], [1, 2, 3, 8], [1, 4, 0, 0], [1, 5, 0, 0], [1, 6, 0, 0]], [([0, 1, 2, 3, 4], [1])], 4),
        ([[1, 2], [3, 4]], [], 0),
    ],
)
def test_the_best_cut_saves_the_most(tables: list[list[int]], runs: list[Any], saved: int) -> None:
    lengths = [16 * sum(block > 0 for block in table) for table in tables]
    found, tokens = best_cut(Forest.of(tables, lengths, 16))
    assert sorted((sorted(rows), blocks) for rows, blocks in found) == runs
    assert tokens == saved * 16


HELD = [[3, 4, 5, 20, 21], [3, 4, 6, 22, 23], [3, 4, 6, 24, 25], [9, 10, 26, 27], [3, 28, 29]]
TABLES = torch.tensor([blocks + [0] * (8 - len(blocks)) for blocks in HELD], dtype=torch.int32)


STARTS = torch.arange(6, dtype=torch.int32)


def gpu_builder(route: Any) -> tuple[Any, Planner]:
    """Without a GPU the builder cannot be made, only what its steps need."""
    from optillm_kernels.vllm_plugin.forest_cuda import ForestFlashMetadataBuilder

    builder = object.__new__(ForestFlashMetadataBuilder)
    held = {"num_heads_q": 6, "num_heads_kv": 2, "block_size": 16, "device": torch.device("cpu")}
    vars(builder).update(held, _who=None, _lengths=None, _grove=None, _on_device=None)
    return builder, Planner(Options(min_saved_tokens=1, route=route), 16, 2, one_level=route == "two_pass")


def common_of(who: list[int], lengths: torch.Tensor, tables: torch.Tensor, prefilling: int = -1) -> Any:
    """What the V2 runner says of a batch."""
    rows = len(who)
    return SimpleNamespace(
        max_query_len=1, num_actual_tokens=rows, num_reqs=rows, causal=True, req_idx=np.array(who),
        seq_lens=lengths, seq_lens_cpu_upper_bound=lengths, is_prefilling=torch.arange(rows) == prefilling,
        mm_req_doc_ranges=None, block_table_tensor=tables, query_start_loc=STARTS[: rows + 1],
    )  # fmt: skip


def assert_read(step: Any, lengths: torch.Tensor, tables: torch.Tensor) -> None:
    """What the step reads gives what plain attention gives."""
    from vllm.v1.attention.ops.merge_attn_states import merge_attn_states

    rows, cache = len(lengths), torch.randn(32, 2, 16, 16)
    keys, values = cache.transpose(1, 2).chunk(2, dim=-1)
    query, output = torch.randn(rows, 6, 8), torch.empty(rows, 6, 8)
    if isinstance(step.work, Plan):
        forest_attention(query, cache, step.work, lengths, scale=0.3, block_tables=tables, out=output)
    else:
        two_pass(
            query, keys, values, output, *step.work,
            attend=attend, merge=merge_attn_states, softmax_scale=0.3,
        )  # fmt: skip
    expected, _ = attend(
        query, keys, values, cu_seqlens_q=STARTS[: rows + 1], seqused_k=lengths, max_seqlen_q=1, max_seqlen_k=128,
        block_table=tables, softmax_scale=0.3,
    )  # fmt: skip
    assert torch.allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("route", ["two_pass", "triton"])
def test_steps_of_the_gpu_builder_read_what_they_should(route: Any) -> None:
    builder, planner = gpu_builder(route)
    lengths, groves = torch.tensor([40, 50, 47, 33, 20], dtype=torch.int32), set()
    for _ in range(20):
        step = builder._step(planner, common_of([4, 2, 0, 1, 7], lengths, TABLES))
        groves.add(id(step.grove))
        assert_read(step, lengths, TABLES)
        lengths = lengths + 1
    assert len(groves) == 1


@pytest.mark.parametrize("route", ["two_pass", "triton"])
def test_who_left_or_moved_costs_no_copy_of_the_block_tables(route: Any) -> None:
    builder, planner = gpu_builder(route)
    lengths = torch.tensor([40, 50, 47, 33, 20], dtype=torch.int32)
    builder._step(planner, common_of([4, 2, 0, 1, 7], lengths, TABLES))
    builder._step(planner, common_of([4, 2, 0, 1, 7], lengths + 1, TABLES))
    stay, unseen = [2, 4, 0], torch.empty(3, 8, dtype=torch.int32, device="meta")  # cannot be copied to the host
    grove = builder._grove_of(planner, unseen, np.array([0, 7, 4]), (lengths[stay] + 2).numpy())
    assert [set(node.sequences.tolist()) for node in grove.forest.nodes if node.shared] == [{0, 1, 2}, {0, 2}]
    step = builder._step(planner, common_of([0, 7, 4], lengths[stay] + 3, TABLES[stay]))
    assert step.grove is grove
    assert_read(step, lengths[stay] + 3, TABLES[stay])


def test_a_slot_that_changed_hands_is_looked_at_again() -> None:
    builder, planner = gpu_builder("two_pass")
    lengths = torch.tensor([40, 50], dtype=torch.int32)
    first = builder._step(planner, common_of([4, 2], lengths, TABLES[:2]))
    assert builder._step(planner, common_of([4, 2], lengths + 1, TABLES[:2], prefilling=1)) is None
    assert builder._step(planner, common_of([4, 2], lengths + 2, TABLES[:2])).grove is not first.grove
