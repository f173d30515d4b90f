"""How the engine is set up: defaults, then a TOML file, then the environment, then arguments."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from optillm_local.core.errors import InvalidConfiguration, did_you_mean


class EngineSettings(BaseSettings):
    """Settings of the engine. Each can be set as `OPTILLM_LOCAL_<NAME>` in the environment.

    None means: decided from the hardware and the model when the engine starts.
    """

    model_config = SettingsConfigDict(
        env_prefix="OPTILLM_LOCAL_", frozen=True, extra="forbid", env_ignore_empty=True, validate_default=True
    )

    model: str | None = Field(None, min_length=1, description="path or Hugging Face id; None: the embedded model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on CPUs without bf16 units, else what the model was saved in"
    )
    max_model_len: int | None = Field(None, ge=16, description="context length in tokens; None: the model's own")
    max_num_seqs: int = Field(256, ge=1, description="most sequences in one batch")
    max_num_batched_tokens: int | None = Field(
        None, ge=64, description="most tokens in one step; None: 2048 on a CPU, 16384 on a GPU"
    )
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of GPU memory the engine may take")
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="size of the KV cache; None: 2 GiB or 1/8 of memory on a CPU, the rest of the GPU",
    )
    kv_cache_dtype: str = Field("auto", description="such as fp8")
    quantization: str | None = Field(None, description="such as fp8, awq, gptq; None: what the model says")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share each layer")
    pipeline_parallel_size: int = Field(1, ge=1, description="groups of GPUs that share the layers")
    seed: int = Field(0, ge=0, description="of the engine; requests bring seeds of their own")
    batch_invariant: bool = Field(False, description="same tokens whatever else is in the batch; slower; GPU only")
    enforce_eager: bool | None = Field(None, description="no CUDA graphs, no compilation; None: on CPUs only")
    kernels: bool | None = Field(
        None,
        description="measure confidence within the step and score in float32 with optillm_kernels; None: on CPUs, "
        "where this is tested",
    )
    forest_attention: bool = Field(
        False, description="read KV that sequences share once per decode step, where that pays; needs kernels"
    )
    attention_backend: str | None = Field(None, description="vLLM's name of it; None: vLLM decides")
    speculative_config: dict[str, Any] | None = Field(None, description="passed to vLLM as it is")
    lora_modules: dict[str, Path] = Field({}, description="adapters by name; a prompt picks one with `adapter`")
    chat_template_kwargs: dict[str, Any] = Field({}, description="such as {'enable_thinking': false}")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    max_logprobs: int = Field(20, ge=1, description="most alternatives a request may ask for per token")
    handle: Literal["auto", "inprocess", "async"] = Field(
        "auto", description="engine in this process, or in a process of its own; auto: in this one on a CPU"
    )

    @classmethod
    def load(cls, path: Path | None = None, **overrides: Any) -> EngineSettings:
        """Settings from a TOML file (if given), the environment and `overrides`; the later ones win.

        Raises:
            InvalidConfiguration: an unknown name ("did you mean"), a value that cannot work, an unreadable file.
        """
        given = {**_from_environment(cls), **{k: v for k, v in overrides.items() if v is not None}}
        merged = {**(_from_file(path) if path else {}), **given}
        for name in merged:
            if name not in cls.model_fields:
                raise InvalidConfiguration(f"setting {name}", merged[name], did_you_mean(name, cls.model_fields))
        try:
            return cls(**merged)
        except ValidationError as error:
            raise InvalidConfiguration.of(error, lambda setting: f"setting {setting}") from None


def _from_environment(kind: type[EngineSettings]) -> dict[str, Any]:
    """What the environment sets, so that it wins over a file: pydantic lets arguments win over both."""
    try:
        return kind().model_dump(exclude_unset=True)
    except ValidationError as error:
        raise InvalidConfiguration.of(error, lambda setting: f"OPTILLM_LOCAL_{setting.upper()}") from None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidConfiguration("settings file", str(path), f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration("settings file", str(path), f"is not valid TOML: {error}") from None
