"""One kernel's machine code, as the disassembler in Triton's wheel tells it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from optillm_kernels.variants import Variant

HOPPER = 90
"""The capability that limits are written for: sm_90, an H100 or H200."""

WATCHED = ("HGMMA", "UTCHMMA", "HMMA", "LDGSTS", "UTMALDG", "LDG", "LDL", "STL")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)
USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
SHARED_MEMORY = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}
"""Bytes of shared memory per SM. Each block takes 1 KiB more than it asks for."""


@dataclass(frozen=True)
class Report:
    """One variant, compiled.

    Attributes:
        name: the variant's.
        triton: version that compiled it, with the assembler in its wheel.
        capability: 80, 90 or 100.
        ptx, cubin: how long they are, in characters and bytes; 0 where it does not compile.
        registers, stack: per thread; the stack in bytes.
        shared: bytes of shared memory per block.
        blocks: thread blocks that fit on an SM at the same time, by registers, shared memory and warps.
        instructions: in the whole kernel, without no-ops; 0 where the disassembler does not know the architecture.
        opcodes: how many there are of each instruction in `WATCHED`.
        wide_loads: instructions that bring 16 bytes per thread, or a whole tile, from global memory.
        broken: the limits that it does not keep, in words.
    """

    name: str
    triton: str
    capability: int
    ptx: int = 0
    cubin: int = 0
    registers: int = 0
    stack: int = 0
    shared: int = 0
    blocks: int = 0
    instructions: int = 0
    opcodes: Mapping[str, int] = field(default_factory=dict)
    wide_loads: int = 0
    broken: tuple[str, ...] = ()

    def count(self, *opcodes: str) -> int:
        return sum(self.opcodes.get(opcode, 0) for opcode in opcodes)

    @property
    def spills(self) -> int:
        """Loads from and stores to the thread's own memory, which is where registers spill."""
        return self.count("LDL", "STL")

    @property
    def loads(self) -> int:
        """Instructions that read global memory, of any width."""
        return self.count("LDG", "LDGSTS", "UTMALDG")


def read(cubin: bytes) -> tuple[int, int, list[str]]:
    """Registers and bytes of stack per thread, and every instruction's name with its modifiers.

    No instructions where the disassembler of this wheel does not know the architecture.
    """
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (dump(knobs.nvidia.cuobjdump.path, option, file.name) for option in ("-res-usage", "-sass"))
    found = USAGE.search(usage)
    registers, stack = (int(found[1]), int(found[2])) if found else (0, 0)
    return registers, stack, INSTRUCTION.findall(code)


def dump(cuobjdump: str, option: str, path: str) -> str:
    done = subprocess.run([cuobjdump, option, path], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout if done.returncode == 0 else ""


def is_wide_load(opcode: str) -> bool:
    name, *modifiers = opcode.split(".")
    return name == "UTMALDG" or (name in ("LDG", "LDGSTS") and ("128" in modifiers or "256" in modifiers))


def blocks_per_sm(registers: int, shared: int, num_warps: int, capability: int) -> int:
    """Occupancy, as the CUDA programming guide counts it: registers are given to a warp by 256 at a time."""
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = 65536 // (per_warp * num_warps) if registers else 32
    return min(by_registers, SHARED_MEMORY[capability] // (shared + 1024), 64 // num_warps, 32)


def broken_limits(variant: Variant, report: Report) -> Iterator[str]:
    """In words. Limits are for sm_90; elsewhere it is enough to compile."""
    if not (report.ptx and report.cubin):
        yield "no PTX or no cubin"
    if report.capability != HOPPER:
        return
    if not report.instructions:
        yield "cannot be disassembled"
        return
    if report.registers > variant.registers:
        yield f"{report.registers} registers, at most {variant.registers}"
    if report.spills or report.stack:
        yield f"spills: {report.spills} instructions, {report.stack} bytes of stack"
    if not report.blocks:
        yield "does not fit on an SM"
    if variant.wgmma and not report.count("HGMMA"):
        yield "no HGMMA"
    if variant.wide_loads and not report.wide_loads:
        yield "no 16-byte load"
