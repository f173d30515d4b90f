"""What the compiler makes of every shipped kernel, read off the machine code. Needs no GPU and no driver.

    python -m optillm_kernels.aot [--capability 90] [--triton-path DIR ...] [--json | --markdown]

A kernel can be right and still be slow for a reason that shows in its machine code: registers that spill, loads of
2 bytes where 16 would do, a matrix product without tensor cores. Triton's wheel carries the assembler and the
disassembler of every architecture, so all of this is checked ahead of time, on any machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from optillm_kernels import aot_tables
from optillm_kernels.machine_code import (
    HOPPER,
    SHARED_MEMORY,
    WATCHED,
    Report,
    blocks_per_sm,
    broken_limits,
    is_wide_load,
    read,
)
from optillm_kernels.variants import Variant

MODULES = tuple(f"optillm_kernels.{name}.variants" for name in ("uncertainty", "forest_attention", "scoring"))


def all_variants(modules: Sequence[str] = MODULES) -> tuple[Variant, ...]:
    """The `VARIANTS` of the modules, in their order.

    Raises:
        ValueError: two have the same name.
    """
    found = [variant for module in modules for variant in importlib.import_module(module).VARIANTS]
    twice = [name for name, count in Counter(variant.name for variant in found).items() if count > 1]
    if twice:
        raise ValueError(f"names of variants must be unique; given twice: {', '.join(twice)}")
    return tuple(found)


def compile_variant(variant: Variant, capability: int = HOPPER) -> Report:
    """Compile for `sm_<capability>` and read the machine code.

    Raises:
        RuntimeError: TRITON_INTERPRET is set, under which `@triton.jit` compiles nothing.
        ValueError: the variant does not say what each argument of its kernel is, or names one it lacks.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if interpreted():
        raise RuntimeError(INTERPRETED)
    target = GPUTarget("cuda", capability, 32)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    compiled = triton.compile(ASTSource(variant.kernel, *arguments(variant)), target=target, options=options)
    registers, stack, opcodes = read(compiled.asm["cubin"])
    shared = compiled.metadata.shared
    report = Report(
        name=variant.name,
        triton=triton.__version__,
        capability=capability,
        registers=registers,
        stack=stack,
        shared=shared,
        ptx=len(compiled.asm["ptx"]),
        cubin=len(compiled.asm["cubin"]),
        blocks=blocks_per_sm(registers, shared, variant.num_warps, capability),
        instructions=len(opcodes) - opcodes.count("NOP"),
        opcodes={name: n for name in WATCHED if (n := sum(opcode.split(".")[0] == name for opcode in opcodes))},
        wide_loads=sum(is_wide_load(opcode) for opcode in opcodes),
    )
    return replace(report, broken=tuple(broken_limits(variant, report)))


INTERPRETED = (
    "TRITON_INTERPRET is set, and under Triton's interpreter nothing is compiled: "
    "unset it (env -u TRITON_INTERPRET python -m optillm_kernels.aot)"
)


def interpreted() -> bool:
    """Whether `@triton.jit` makes functions for the interpreter."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def arguments(variant: Variant) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Signature, constants and attributes, as `ASTSource` takes them: what the just-in-time compiler would see."""
    names = list(variant.kernel.arg_names)
    given = {**variant.signature, **variant.constants}
    wrong = sorted(given.keys() ^ set(names)) + [
        name for name in variant.divisible if name not in variant.signature
    ]
    if wrong:
        raise ValueError(
            f"{variant.name}: the kernel takes {', '.join(names)}; "
            f"missing, unknown or not of run time: {', '.join(wrong)}"
        )
    signature = {name: variant.signature.get(name, "constexpr") for name in names}
    aligned = [name for name in names if name in variant.divisible or signature[name].startswith("*")]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    return signature, dict(variant.constants), attributes


def compile_all(variants: Sequence[Variant], capability: int) -> list[Report]:
    """Every variant, with a line on stderr as each is done. One that does not compile breaks a limit."""
    import triton

    reports = []
    for done, variant in enumerate(variants, start=1):
        began = time.perf_counter()
        try:
            report = compile_variant(variant, capability)
        except Exception as error:  # one that fails must not hide what became of the others
            sys.stderr.write(f"{error}\n")
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), repr(error))
            report = Report(variant.name, triton.__version__, capability, broken=(f"does not compile: {reason}",))
        reports.append(report)
        sys.stderr.write(
            f"[{done}/{len(variants)}] triton {report.triton} sm_{capability} {variant.name}: "
            f"{'; '.join(report.broken) or 'ok'} ({time.perf_counter() - began:.1f} s)\n"
        )
        sys.stderr.flush()
    return reports


def use_triton_of(folder: Path) -> None:
    """Import triton from where `pip install --target` put it.

    Raises:
        RuntimeError: there is none, or another is imported already.
    """
    sys.path.insert(0, str(folder.resolve()))
    import triton

    if not Path(triton.__file__).is_relative_to(folder.resolve()):
        raise RuntimeError(f"no triton in {folder} (pip install --no-deps --target {folder} triton==VERSION)")


def in_a_process_each(folders: Sequence[Path], capability: int, modules: Sequence[str]) -> list[Report]:
    """The same for several tritons; a process can import only one."""
    reports: list[Report] = []
    for folder in folders:
        options = ["--json", "--capability", str(capability), "--triton-path", str(folder), "--variants", *modules]
        command = [sys.executable, "-m", "optillm_kernels.aot", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
        if done.returncode not in (0, 1):
            raise RuntimeError(f"compiling with {folder} ended with exit status {done.returncode}")
        reports += [Report(**{**one, "broken": tuple(one["broken"])}) for one in json.loads(done.stdout)]
    return reports


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m optillm_kernels.aot", description=__doc__.split("\n")[0])
    made.add_argument(
        "--capability", type=int, default=HOPPER, choices=sorted(SHARED_MEMORY), help="of the GPU: 90 is Hopper"
    )
    made.add_argument(
        "--triton-path",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a triton to compile with, in place of the installed one; may be repeated",
    )
    made.add_argument("--variants", nargs="+", default=MODULES, metavar="MODULE", help="modules with VARIANTS")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the reports, for programs")
    form.add_argument("--markdown", action="store_true", help="the page docs/kernels.md")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if every variant keeps its limits, 1 if one does not, 2 if nothing could be compiled."""
    args = parser().parse_args(argv)
    try:
        if len(args.triton_path) == 1:
            use_triton_of(args.triton_path[0])
        if interpreted():
            raise RuntimeError(INTERPRETED)
        variants = all_variants(args.variants)
        if len(args.triton_path) > 1:
            reports = in_a_process_each(args.triton_path, args.capability, args.variants)
        else:
            reports = compile_all(variants, args.capability)
    except (ImportError, RuntimeError, ValueError) as error:
        sys.stderr.write(f"optillm_kernels.aot: {error}\n")
        return 2
    if args.json:
        sys.stdout.write(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
    else:
        sys.stdout.write((aot_tables.page if args.markdown else aot_tables.text)(variants, reports))
    return int(any(report.broken for report in reports))


if __name__ == "__main__":
    sys.exit(main())
