"""The pages in docs/ say what is so today."""

from __future__ import annotations

from pathlib import Path

import pytest

from optillm_local.cli import main
from optillm_local.registry import names

PAGE = Path(__file__).parents[1] / "docs" / "optimizers.md"
WRITE = "optillm-local optimizers --markdown > docs/optimizers.md"


def test_the_page_of_optimizers_is_what_the_registry_and_dry_runs_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimizers", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(), f"write it anew: {WRITE}"


def test_every_optimizer_has_a_row_and_a_section() -> None:
    page = PAGE.read_text()
    assert [name for name in names() if f"| [`{name}`](#{name}) |" not in page or f"## {name}\n" not in page] == []
