"""What the kernels reach on this GPU: ceilings, checks against float64, times, and what they are compared with.

    python benchmarks/kernels/run.py --out DIR [--only uncertainty,scoring] [--quick] [--device cpu]

Each part is a process of its own, so that a kernel that faults or hangs costs no other part its figures. Whatever
is timed is checked first. A time is the median over replays of a CUDA graph, of two runs, divided by the calls in
the graph; buffers take turns where they would stay in the L2 cache, or the time is marked L2-warm. What a machine
lacks, and what the time did not suffice for, is named in the table and in the record with the reason.

It writes <out>/kernels_rows.jsonl (a line per figure, the moment it is there), <out>/kernels.jsonl (the record)
and <out>/kernels.png. `--device cpu --quick` runs the same path on tiny shapes with the references: nothing it
prints says anything about a GPU.

Bytes that memory and the L2 cache really move, with Nsight Compute on the box (the rows are not to be kept then):

    ncu --target-processes all --kernel-name 'regex:stream|merge|segment|combine|fold|score' --launch-count 40 \\
      --metrics gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,lts__t_bytes.sum \\
      python benchmarks/kernels/run.py --only forest_attention --out /tmp/ncu
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
sys.path.append(str(ROOT / "kernels"))

PARTS = {"checks": 2.0, "uncertainty": 2.5, "forest_attention": 2.5, "scoring": 2.0}
"""Shares of the time."""

SECONDS = 500.0
"""Of all parts; what a part leaves over is the others'."""

GRACE = 30.0
"""Seconds a part may overrun, within the step it is at, before it is ended."""

PACKAGES = ("triton", "flashinfer-python", "liger-kernel", "cut-cross-entropy", "optillm-local", "numpy")


def main() -> None:
    """Run the parts, print the table, leave the record and the plot."""
    options = _options()
    if options.part:
        _run_part(options)
        return
    # Only here: the parts import vllm, and so transformers, which would take the folder `kernels` for a package.
    sys.path += [str(ROOT / "benchmarks"), str(ROOT)]
    from plots import draw
    from records import append
    from report import bars, show
    from rich.console import Console

    rows_file = options.out / "kernels_rows.jsonl"
    rows_file.parent.mkdir(parents=True, exist_ok=True)
    began = rows_file.stat().st_size if rows_file.exists() else 0
    ended = _run_parts(options, rows_file)
    rows = _read(rows_file, began) if rows_file.exists() else []
    if not rows:
        sys.exit("nothing was measured, so there is no record")
    device = "cpu" if options.quick else options.device
    reached = bars(rows, device)
    console = Console(width=max(Console().width, 170))
    show(rows, reached, console)
    for part, how in ended.items():
        console.print(f"{part}: {how}", highlight=False)
    record = {
        "command": ["python", "benchmarks/kernels/run.py", *sys.argv[1:]],
        "device": options.device,
        "quick": options.quick,
        "ended": ended,
        "bars": [{**asdict(bar), "verdict": bar.verdict} for bar in reached],
        "packages": _versions(),
        "rows": [{**asdict(row), "share": row.share} for row in rows],
    }
    title = "A CPU, with the references: no figures of a GPU" if options.device == "cpu" else _device_of(rows)
    draw(rows, title, options.out / "kernels.png")
    console.print(f"record in {append('kernels', record, options.out)}", highlight=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "results", help="folder of the records")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, comma-separated: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that all of it runs")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu needs --quick (cuda)")
    parser.add_argument("--logits", type=Path, help="a saved tensor [rows, vocab] of real logits, measured first")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of all parts together ({SECONDS:.0f})")
    for hidden, kind in (("--part", str), ("--rows", Path), ("--ends", float)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.device == "cpu" and not options.quick:
        parser.error("a CPU would take hours at full shapes: add --quick")
    return options


def _run_parts(options: argparse.Namespace, rows_file: Path) -> dict[str, str]:
    """Each in a process; how each ended."""
    end, found = time.monotonic() + options.seconds, {}
    environment = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    for index, part in enumerate(options.only):
        now = time.monotonic()
        weights = [PARTS[one] for one in options.only[index:]]
        seconds = max(0.0, end - now) * weights[0] / sum(weights)
        print(f"== {part}: {seconds:.0f} s", flush=True)
        hidden = ["--part", part, "--rows", str(rows_file), "--ends", str(now + seconds)]
        command = [sys.executable, str(HERE), *sys.argv[1:], *hidden]
        try:
            done = subprocess.run(command, env=environment, timeout=seconds + GRACE)
            found[part] = "complete" if done.returncode == 0 else f"ended early, exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            found[part] = f"ended after {seconds + GRACE:.0f} s: what came after the last row was not reached"
    return found


_MISLEADING = ("TRITON_INTERPRET", "OPTILLM_KERNELS")
"""Variables under which the times would not be those of the kernels."""


def _run_part(options: argparse.Namespace) -> None:
    """In the process of one part: its rows, each printed and appended as it is found."""
    for row in _rows(options):
        with options.rows.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
        print(f"{row.operation} | {row.case} | {row.contender} | {_said(row)}", flush=True)


def _rows(options: argparse.Namespace) -> Iterator[Any]:
    import torch
    from ceilings import Ceilings
    from contest import Contest, Row
    from optillm_kernels.backend import use_triton

    device, quick = options.device, options.quick
    if device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("there is no GPU here; --device cpu --quick runs the references on tiny shapes")
        if not use_triton(torch.empty(1, device=device)):
            sys.exit("triton is not installed: there is nothing to time")
    if options.part == "checks":
        import checks

        yield from checks.rows(device, quick=quick, ends=options.ends)
        return
    limits = Ceilings.of(device, quick=quick)
    yield Row("ceilings", options.part, _name(device), facts=asdict(limits))
    contest = Contest(options.part, limits, options.ends, 0.01 if quick else 0.6)
    yield from contest.rows(_cases(options))


def _cases(options: argparse.Namespace) -> Sequence[Any]:
    if options.part == "uncertainty":
        import uncertainty

        return uncertainty.cases(options.device, quick=options.quick, logits=options.logits)
    if options.part == "forest_attention":
        import forest

        return forest.cases(options.device, quick=options.quick)
    import scoring

    return scoring.cases(options.device, quick=options.quick)


def _said(row: Any) -> str:
    if row.problem:
        return str(row.problem)
    if row.operation == "ceilings":
        rates = {name: f"{rate / 1e12:.3g} T/s" for name, rate in row.facts.items() if rate}
        return ", ".join(f"{name} {rate}" for name, rate in rates.items())
    if row.timing is None:
        return "right"
    share = "" if row.share is None else f", {row.share:.2f} of the floor"
    return f"{row.median:.1f} us{share}"


def _read(path: Path, began: int) -> list[Any]:
    """Rows of this run. A part that was ended may have left half a line."""
    from contest import Row

    with path.open("rb") as file:
        file.seek(began)
        lines = file.read().decode().splitlines()
    return [Row(**json.loads(line)) for line in lines if line.startswith("{") and line.endswith("}")]


def _name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def _device_of(rows: Sequence[Any]) -> str:
    return next((str(row.contender) for row in rows if row.operation == "ceilings"), "no part was timed")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
