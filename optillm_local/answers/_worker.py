"""Compare formulas, as a process: a JSON request per line on stdin, a JSON reply per line on stdout.

`optillm_local.answers._process` runs this file by its path and nobody imports it, so Math-Verify is
all that is loaded: neither the caller's main module, which a process of multiprocessing would run
again, nor the rest of optillm_local. The first line written says that the process is ready.
"""

import json
import resource
import signal
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

_PROBE = r"\pi"
# Ten times what sympy needs. Where a formula asks for all there is, the machine's choice of whom to kill
# may fall on the caller.
_MOST_MEMORY = 2 << 30


def main() -> None:
    """Answer each `[latex, rivals, limit_s]` with the result of `_first_equal`, until stdin ends."""
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no reply
    _limit_memory()
    # Not the imports alone: the first formula takes 0.4 s, the next ones 0.02 to 0.1 s.
    reply: int | None = _first_equal("x^2", [])
    replies.write(f"{json.dumps(reply)}\n")
    replies.flush()
    for line in sys.stdin:
        latex, rivals, limit_s = json.loads(line)
        # The caller kills this process when the time is over. Where the caller itself was killed,
        # the signal does: Python code, and so the end of stdin, may never get its turn again.
        signal.setitimer(signal.ITIMER_REAL, limit_s + 1)
        reply = _first_equal(latex, rivals)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(f"{json.dumps(reply)}\n")
        replies.flush()


def _limit_memory() -> None:
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MOST_MEMORY if allowed == resource.RLIM_INFINITY else min(allowed, _MOST_MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _first_equal(latex: str, rivals: Sequence[str]) -> int | None:
    """The index of the first of `rivals` that equals `latex`."""
    # A formula that nothing can be compared with must show it now, before it is anyone's rival.
    _is_same(latex, _PROBE)
    return next((index for index, rival in enumerate(rivals) if _is_same(latex, rival)), None)


@lru_cache(maxsize=1024)
def _is_same(left: str, right: str) -> bool:
    # `verify` lets only its second argument be an equation where the first is a value.
    pair = _parse(left), _parse(right)
    return any(verify(gold, target, timeout_seconds=None) for gold, target in (pair, pair[::-1]))


@lru_cache(maxsize=1024)
def _parse(latex: str) -> Any:
    # Math-Verify's own time limits are signals, which a process that may be killed does not need.
    config = [LatexExtractionConfig()]
    return parse(f"${latex}$", config, fallback_mode="no_fallback", parsing_timeout=None)


if __name__ == "__main__":
    main()
