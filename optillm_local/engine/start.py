"""Starts an engine from settings, and turns what can go wrong into errors that say what to do."""

from __future__ import annotations

import json
import logging
import os
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optillm_local.core.errors import (
    ClientError,
    EngineOutOfMemory,
    InvalidConfiguration,
    ModelNotFound,
    OptillmError,
)
from optillm_local.core.machine import cpu_flags, memory
from optillm_local.engine.embedded import EMBEDDED_MODEL, embedded_model
from optillm_local.engine.handle import EngineHandle
from optillm_local.engine.measuring import V1, V2
from optillm_local.engine.settings import EngineSettings

Progress = Callable[[str], None]
GIB = 1 << 30

_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about settings that are chosen here on purpose
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout belongs to the answer
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process for the engine, none for its worker
    # The engine's process is started from a thread; a fork would copy locks that other threads hold.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "TOKENIZERS_PARALLELISM": "false",
}


def model_name(settings: EngineSettings) -> str:
    """What results and records call the model."""
    return settings.model or EMBEDDED_MODEL


def start_engine(settings: EngineSettings, progress: Progress) -> EngineHandle:
    """Load the model and start the engine. Blocks for seconds (embedded model) to minutes (large ones).

    Raises:
        ModelNotFound: no such model, or files that cannot be used; names the file.
        EngineOutOfMemory: weights or KV cache do not fit; says what to lower.
        InvalidConfiguration: vLLM refuses a setting.
        ClientError: vllm is not installed.
    """
    path = model_path(settings, progress)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())  # vLLM sets it after its imports
    progress("importing vLLM")
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise ClientError(
            f"vLLM cannot be imported ({error}); install it with pip install 'optillm-local[cuda]' on a GPU box, "
            "or see the README for CPUs"
        ) from error
    on_cpu = current_platform.is_cpu()
    if settings.batch_invariant and on_cpu:
        raise InvalidConfiguration("setting batch_invariant", True, "vLLM has it on GPUs only")
    if settings.batch_invariant:
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    in_process = settings.handle == "inprocess" or (settings.handle == "auto" and on_cpu)
    progress(f"loading {model_name(settings)}")
    args = engine_args(settings, path, on_cpu=on_cpu)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries of vLLM on what they deprecate in each other
            return _handle(with_kernels(args, settings, on_cpu=on_cpu), in_process)
    except OptillmError:
        raise
    except Exception as error:
        raise _explained(error, settings, path) from error


def _handle(args: dict[str, Any], in_process: bool) -> EngineHandle:
    if in_process:
        from vllm import EngineArgs

        from optillm_local.engine.inprocess import InprocessHandle

        return InprocessHandle(EngineArgs(**args))
    from vllm import AsyncEngineArgs

    from optillm_local.engine.async_llm import AsyncHandle

    return AsyncHandle(AsyncEngineArgs(**args, enable_log_requests=False))


def engine_args(settings: EngineSettings, model: str, *, on_cpu: bool) -> dict[str, Any]:
    """vLLM's arguments. Whatever shapes batches or caching is said and not left to vLLM's defaults."""
    args: dict[str, Any] = {
        "model": model,
        "served_model_name": model_name(settings),
        "dtype": _dtype(settings, on_cpu),
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens or (2048 if on_cpu else 16384),
        "enable_prefix_caching": True,
        "long_prefill_token_threshold": 0,  # above 0, siblings prefill their prefix again
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "quantization": settings.quantization,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "seed": settings.seed,
        "enforce_eager": on_cpu if settings.enforce_eager is None else settings.enforce_eager,
        "speculative_config": settings.speculative_config,
        "trust_remote_code": settings.trust_remote_code,
        "max_logprobs": settings.max_logprobs,
        "disable_log_stats": False,  # the counters are stat loggers
        "use_tqdm_on_load": False,
    }
    if settings.kv_cache_gib or on_cpu:
        args["kv_cache_memory_bytes"] = int((settings.kv_cache_gib or _cpu_cache_gib()) * GIB)
    if on_cpu:
        args["worker_cls"] = "optillm_local.engine.cpu_worker.CPUWorker"
        args["block_size"] = 32  # the smallest the CPU attention takes; vLLM's 128 would rarely share a prefix
    if settings.attention_backend:
        args["attention_backend"] = settings.attention_backend
    if settings.lora_modules:
        # vLLM's CPU kernels take row -1 of the adapters for "none", which is the last one: one more stays empty.
        slots = len(settings.lora_modules) + on_cpu
        args |= {"enable_lora": True, "max_loras": slots, "max_lora_rank": _lora_rank(settings.lora_modules)}
    return args


def with_kernels(args: dict[str, Any], settings: EngineSettings, *, on_cpu: bool) -> dict[str, Any]:
    """vLLM's arguments with what joins `optillm_kernels` to it, if it is wanted."""
    wanted = on_cpu if settings.kernels is None else settings.kernels
    if not wanted:
        if settings.forest_attention:
            raise InvalidConfiguration("setting forest_attention", True, "also set kernels")
        return args
    options: dict[str, Any] = {"optillm_kernels": True}
    if settings.forest_attention:
        if settings.attention_backend:
            remedy = "leave it out: forest_attention takes the place of the platform's own"
            raise InvalidConfiguration("setting attention_backend", settings.attention_backend, remedy)
        from optillm_kernels.vllm_plugin.forest import KEY, register

        register()
        options[KEY] = {}
    args = {**args, "additional_config": options}
    if not on_cpu:
        args["worker_cls"] = "optillm_local.engine.gpu_worker.GPUWorker"
        if settings.forest_attention:
            args["attention_backend"] = "FLASH_ATTN"  # whose place it takes
    if not settings.speculative_config:  # vLLM refuses the first, and the second has several rows per request
        args["logits_processors"] = [V1 if on_cpu else _processor(args)]
    return args


def _processor(args: dict[str, Any]) -> str:
    """The one for the model runner that vLLM is going to choose."""
    from vllm import EngineArgs

    return V2 if EngineArgs(**args).create_engine_config().use_v2_model_runner else V1


def model_path(settings: EngineSettings, progress: Progress = lambda message: None) -> str:
    """What vLLM is to load: a checked directory, or a Hugging Face id."""
    if settings.model is None:
        return str(embedded_model(progress=progress))
    path = Path(settings.model).expanduser()
    if path.is_dir():
        check_weights(path)
        return str(path)
    looks_local = settings.model.startswith((".", "/", "~")) or settings.model.count("/") > 1
    if looks_local or path.exists():
        raise ModelNotFound(f"model={settings.model!r}: no such directory; pass a Hugging Face directory or id")
    return settings.model


def check_weights(directory: Path) -> None:
    """Open each safetensors file far enough to see that it is whole.

    Raises:
        ModelNotFound: names the file and what is wrong with it.
    """
    if not (directory / "config.json").is_file():
        raise ModelNotFound(f"{directory / 'config.json'}: missing; this is not a Hugging Face model directory")
    files = sorted(directory.glob("*.safetensors"))
    if not files and not any(directory.glob("*.bin")):
        raise ModelNotFound(f"{directory}: holds no weights (*.safetensors); fetch them")
    index = directory / "model.safetensors.index.json"
    named = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set()
    if missing := sorted(named - {file.name for file in files}):
        raise ModelNotFound(f"{directory / missing[0]}: missing, though {index.name} names it; fetch it")
    for file in files:
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 0 < length <= min(file.stat().st_size, 1 << 27):
                raise ModelNotFound(f"{file}: not a safetensors file; fetch it again")
            try:
                header = json.loads(stream.read(length))
                end = max(
                    (t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ModelNotFound(f"{file}: its header is corrupt; fetch it again") from None
        if file.stat().st_size != 8 + length + end:
            raise ModelNotFound(
                f"{file}: {file.stat().st_size} bytes where {8 + length + end} are announced; fetch it again"
            )


def _dtype(settings: EngineSettings, on_cpu: bool) -> str:
    if settings.dtype != "auto" or not on_cpu:
        return settings.dtype
    # Without such units bf16 is emulated, ten times slower than float32.
    return "auto" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "float32"


def _cpu_cache_gib() -> float:
    return min(2.0, memory().total / GIB / 8)


def _lora_rank(modules: Mapping[str, Path]) -> int:
    """The smallest rank vLLM offers that holds every adapter.

    Raises:
        ModelNotFound: an adapter is not there, or not a LoRA; found later, it would take the engine down.
    """
    rank = 1
    for name, path in modules.items():
        file = path.expanduser() / "adapter_config.json"
        try:
            config = json.loads(file.read_text())
            rank = max(rank, int(config["r"]), *map(int, config.get("rank_pattern", {}).values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelNotFound(f"LoRA module {name!r}: {file} cannot be used: {error!r}") from None
    return next((offered for offered in _LORA_RANKS if offered >= rank), rank)


def _explained(error: Exception, settings: EngineSettings, path: str) -> ClientError | InvalidConfiguration:
    """vLLM's failure as one of our errors."""
    said = str(error)
    low = said.lower()
    if re.search(
        r"out of memory|available kv cache|kv cache memory|cache blocks|memory utilization|allocate", low
    ):
        return EngineOutOfMemory(
            f"{_first_line(said)}\nLower max_model_len or max_num_seqs, choose a quantization, set kv_cache_gib, "
            "or spread the model with tensor_parallel_size."
        )
    if "engine core initialization failed" in low:  # vLLM does not hand over what its process said
        return ClientError(
            "the engine's process did not start; what it said is above. If memory ran out, lower max_model_len, "
            "max_num_seqs or gpu_memory_utilization; handle=inprocess shows other causes here"
        )
    if isinstance(error, FileNotFoundError) or re.search(r"\brepo\b|hugging ?face|config\.json", low):
        return ModelNotFound(
            f"model={settings.model!r}: cannot be loaded ({_first_line(said)}). Without a network, pass the "
            "path of a directory with its files."
        )
    if "safetensor" in low:
        return ModelNotFound(f"{path}: its weights cannot be read ({_first_line(said)})")
    if isinstance(error, ValueError):
        return InvalidConfiguration("engine settings", model_name(settings), f"vLLM refuses them: {said}")
    return ClientError(f"the engine did not start: {type(error).__name__}: {said}")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), text)
