"""How a benchmark leaves its record: one JSON line, appended, with all that is needed to read it later."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optillm_local.doctor import hardware
from optillm_local.run import versions

RESULTS = Path(__file__).parent / "results"


def append(benchmark: str, found: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Add a record to `<folder>/<benchmark>.jsonl`, and return that file."""
    record = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **found,
        "hardware": asdict(hardware()),
        "versions": versions(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    return path
