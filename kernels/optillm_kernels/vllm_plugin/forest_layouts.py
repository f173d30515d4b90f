"""How vLLM's CPU attention stores a block of the KV cache, undone.

Per block and head there are the keys of all its tokens, then their values. Each half is packed for the
instructions that read it; these orders were read back from what `cpu_attn_reshape_and_cache` of vLLM 0.32 writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    Half = Float[Tensor, "blocks kv_heads packed"]
    Unpack = Callable[[Half, Half, int, int], tuple[Tensor, Tensor]]


def _vector(keys: Half, values: Half, tokens: int, dim: int) -> tuple[Tensor, Tensor]:
    """Keys: dim by token, so that one load has a dimension of many tokens. Values: token by dim."""
    return keys.reshape(*keys.shape[:2], dim, tokens).mT, values.reshape(*values.shape[:2], tokens, dim)


def _tiles(keys: Half, values: Half, tokens: int, dim: int) -> tuple[Tensor, Tensor]:
    """AMX, 16-bit types: tiles of 16 columns whose rows have pairs of the dimension that is summed over."""
    lead = keys.shape[:2]
    keys = keys.reshape(*lead, tokens // 16, dim // 2, 16, 2).permute(0, 1, 2, 4, 3, 5)
    values = values.reshape(*lead, dim // 16, tokens // 2, 16, 2).permute(0, 1, 3, 5, 2, 4)
    return keys.reshape(*lead, tokens, dim), values.reshape(*lead, tokens, dim)


UNPACK: Mapping[str, Unpack] = {"vec": _vector, "vec16": _vector, "amx": _tiles}
"""By vLLM's name of the instruction set; others are left to vLLM's own attention."""


def unpacked(
    cache: Float[Tensor, "blocks kv_heads block_size two_dim"],
    blocks: Int[Tensor, " wanted"],
    isa: str,
    into: Float[Tensor, "blocks kv_heads block_size two_dim"],
) -> None:
    """Copy `blocks` to the same places of `into`: K in `[..., :dim]`, V in `[..., dim:]`, token by token."""
    tokens, dim = cache.shape[2], cache.shape[3] // 2
    keys, values = cache[blocks].flatten(2).chunk(2, dim=-1)
    into[blocks] = torch.cat(UNPACK[isa](keys, values, tokens, dim), dim=-1)
