"""The README's examples run as they are printed, and its lists are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from optillm_local.engine import EngineSettings
from optillm_local.registry import names

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=280)
    assert done.returncode == 0, done.stderr


def test_every_setting_is_listed() -> None:
    assert [name for name in EngineSettings.model_fields if f"`{name}`" not in README] == []


def test_every_built_in_optimizer_is_listed() -> None:
    assert [name for name in names() if f"| `{name}` |" not in README] == []
