"""The reports of `optillm_kernels.aot` as a table for a terminal, and as the page docs/kernels.md."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from optillm_kernels.variants import Variant

if TYPE_CHECKING:
    from optillm_kernels.machine_code import Report

BROKEN = "(!)"
COLUMNS = {
    "variant": "operation, kernel, element type, tile: as it ships",
    "registers": "per thread, and the most it may use; fewer let more blocks share an SM",
    "spills": "instructions that move a register to memory or back, and bytes of stack per thread; must be 0",
    "shared": "shared memory per block",
    "blocks": "that fit on an SM at once, by registers, shared memory and warps: what hides the wait for memory",
    "SASS": "machine instructions in the whole kernel",
    "tensor cores": "matrix instructions; HGMMA is Hopper's, by warp group; `must` where only that will do",
    "async": "copies to shared memory past the registers: LDGSTS by each thread, UTMALDG a whole tile",
    "16 B": "global loads that bring 16 bytes per thread, of all; `must` where there has to be one",
}
LEGEND = f"{BROKEN} marks what breaks its limit. Limits hold on sm_90; elsewhere it is enough to compile."


def text(variants: Sequence[Variant], reports: Sequence[Report]) -> str:
    """Aligned columns, one table for each triton, and what the columns mean."""
    parts = []
    for version, of_version in groupby(reports, attrgetter("triton")):
        found = list(of_version)
        lines = [list(COLUMNS), *rows(variants, found)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        parts += [f"triton {version}, sm_{found[0].capability}", *table, ""]
    parts += [f"{name + ':':14}{meaning}" for name, meaning in COLUMNS.items()] + [LEGEND]
    broken = [
        f"{report.name} (triton {report.triton}): {'; '.join(report.broken)}"
        for report in reports
        if report.broken
    ]
    parts += ["", f"{len(reports)} compiled, {len(broken)} broken" + (":" if broken else ""), *broken]
    return "\n".join(parts) + "\n"


def rows(variants: Sequence[Variant], reports: Sequence[Report]) -> Iterator[list[str]]:
    """The cells of one triton's table."""
    reported = {report.name: report for report in reports}
    for variant in variants:
        if report := reported.get(variant.name):
            yield cells(variant, report)


def cells(variant: Variant, report: Report) -> list[str]:
    if not report.cubin:
        return [variant.name, f"does not compile {BROKEN}", *[""] * (len(COLUMNS) - 2)]
    hopper, crowded = report.capability == 90, report.registers > variant.registers
    tensor = [f"{count} {name}" for name in ("HGMMA", "UTCHMMA", "HMMA") if (count := report.count(name))]
    copies = [f"{count} {name}" for name in ("LDGSTS", "UTMALDG") if (count := report.count(name))]
    spilt = report.spills or report.stack
    return [
        variant.name,
        limited(f"{report.registers}", f"{'>' if crowded else '<='} {variant.registers}", crowded, hopper),
        limited(f"{report.spills} + {report.stack} B" if spilt else "0", "", bool(spilt), hopper),
        f"{report.shared} B" if report.shared < 1024 else f"{report.shared / 1024:.0f} KiB",
        limited(f"{report.blocks}", "", not report.blocks, hopper),
        f"{report.instructions or '?'}",
        limited(
            " ".join(tensor) or "-", "must" * variant.wgmma, variant.wgmma and not report.count("HGMMA"), hopper
        ),
        " ".join(copies) or "-",
        limited(
            f"{report.wide_loads} of {report.loads}",
            "must" * variant.wide_loads,
            variant.wide_loads and not report.wide_loads,
            hopper,
        ),
    ]


def limited(value: str, limit: str, broken: bool, applies: bool) -> str:
    return " ".join(part for part in (value, limit * applies, BROKEN * (broken and applies)) if part)


def page(variants: Sequence[Variant], reports: Sequence[Report]) -> str:
    """docs/kernels.md."""
    parts = [described(variants)]
    for version, of_version in groupby(reports, attrgetter("triton")):
        parts.append(f"### triton {version}\n\n" + markdown([list(COLUMNS), *rows(variants, list(of_version))]))
    return "\n".join(parts)


def described(variants: Sequence[Variant]) -> str:
    """The part of the page that no version of triton changes: operations, kernels, variants with their limits."""
    parts = [HEAD]
    for operation, of_operation in groupby(variants, lambda variant: variant.name.split("/")[0]):
        parts.append(section(operation, list(of_operation)))
    parts.append(MEASURED + "".join(f"* *{name}*: {meaning}.\n" for name, meaning in list(COLUMNS.items())[1:]))
    return "\n".join(parts)


HEAD = """# The kernels

Written by `python -m optillm_kernels.aot --markdown`, with a `--triton-path` for each of the versions below. The
tests compile every variant anew with each triton they find, and hold it to the limits given here.
"""

MEASURED = f"""## What the compiler makes of them

For sm_90 (H100, H200), counted in the machine code; nothing here is a time. {LEGEND}

"""


def section(operation: str, variants: Sequence[Variant]) -> str:
    """Each kernel of one operation in words, each variant with its limits."""
    path = function(variants[0]).__module__.split(".")  # optillm_kernels.<operation>...
    about = inspect.getdoc(importlib.import_module(".".join(path[: path.index(operation) + 1])))
    kernels = {function(variant).__name__: inspect.getdoc(function(variant)) or "" for variant in variants}
    in_words = [[f"`{name}`", " ".join(doc.split("\n\n")[0].split())] for name, doc in kernels.items()]
    return "\n".join(
        [
            f"## {operation}\n\n{about or ''}\n",
            markdown([["kernel", "what it does"], *in_words]),
            markdown([["variant", "warps", "stages", "registers, at most", "must use"], *map(limits, variants)]),
        ]
    )


def function(variant: Variant) -> Callable[..., object]:
    """The Python function under `@triton.jit`."""
    python: Callable[..., object] = variant.kernel.fn
    return python


def limits(variant: Variant) -> list[str]:
    musts = ["HGMMA"] * variant.wgmma + ["16-byte loads"] * variant.wide_loads
    return [
        variant.name,
        str(variant.num_warps),
        str(variant.num_stages),
        str(variant.registers),
        ", ".join(musts) or "-",
    ]


def markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body]) + "\n"
