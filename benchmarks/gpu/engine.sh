#!/usr/bin/env bash
# The engine's tests on a GPU, in float32 so that the tolerances against transformers hold: those named, or the
# contract and the client. Writes $OUT/engine.xml.
set -eu
cd "$(dirname "$0")/../.."
export OPTILLM_LOCAL_DTYPE=float32 OPTILLM_LOCAL_ENFORCE_EAGER=true PYTHONPATH=".:kernels:${PYTHONPATH:-}"
[ $# -gt 0 ] || set -- tests/contract tests/engine/test_vllm_client.py
exec timeout 540 python3 -m pytest "$@" \
  -q -k "not scripted" --junitxml "${OUT:?name a folder for the report}/engine.xml"
