#!/usr/bin/env bash
# The kernels on a GPU: ceilings, checks against float64, times, comparisons. Writes $OUT/kernels.jsonl, the rows it
# is made of, and $OUT/kernels.png. Flags are passed on, such as `--only uncertainty`.
set -eu
cd "$(dirname "$0")/../.."
exec timeout 580 python3 benchmarks/kernels/run.py --out "${OUT:?name a folder for the report}" "$@"
