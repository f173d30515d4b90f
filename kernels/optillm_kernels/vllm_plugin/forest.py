"""Forest attention as vLLM's attention backend: decode steps read each shared run of the KV cache once.

`register` puts the backends of `forest_cpu` and `forest_cuda` in the place of vLLM's own. They do what vLLM's do,
until an engine asks for more with `additional_config={"optillm_forest": {...}}`, see `Options`.
"""

from __future__ import annotations

from optillm_kernels.vllm_plugin.forest_steps import KEY, Options, Statistics, statistics

__all__ = ["KEY", "Options", "Statistics", "register", "statistics"]


def register() -> None:
    """Register the backend of this platform with vLLM; idempotent. Every process of an engine needs it."""
    from vllm.platforms import current_platform
    from vllm.v1.attention import selector
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    folder = __package__
    if current_platform.is_cpu():
        backend, path = AttentionBackendEnum.CPU_ATTN, f"{folder}.forest_cpu.ForestCPUBackend"
    elif current_platform.is_cuda():
        backend, path = AttentionBackendEnum.FLASH_ATTN, f"{folder}.forest_cuda.ForestFlashBackend"
    else:
        return
    if backend.get_path() == path:
        return
    register_backend(backend, path)
    selector._cached_get_attn_backend.cache_clear()  # an engine before this one may have asked already
