"""What this machine lets the program have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_GROUP = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """Bytes of main memory; 0 where the machine does not say."""

    total: int
    available: int


def memory() -> Memory:
    """Memory of the machine, or of the container where that has less."""
    total, available = parse_meminfo(read_text("/proc/meminfo"))
    limit, used = (read_text(_GROUP / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdigit() and used.isdigit():  # "max" is no limit
        free = max(0, int(limit) - int(used) + _page_cache())
        total, available = min(total, int(limit)), min(available, free)
    return Memory(total, available)


def cpu_flags() -> frozenset[str]:
    """Names of the CPU's features, such as avx2."""
    for line in read_text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def parse_meminfo(text: str) -> Memory:
    """Of /proc/meminfo."""
    kib = {k: int(v.split()[0]) for k, _, v in (line.partition(":") for line in text.splitlines()) if v.split()}
    return Memory(kib.get("MemTotal", 0) * 1024, kib.get("MemAvailable", 0) * 1024)


def read_text(path: str | os.PathLike[str]) -> str:
    """The file's text; empty if there is none to be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _page_cache() -> int:
    """Bytes that count as used by the container, and that the kernel gives back when they are needed."""
    pairs = (line.split() for line in read_text(_GROUP / "memory.stat").splitlines())
    return sum(int(value) for name, value in pairs if name == "inactive_file")
