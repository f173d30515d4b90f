"""What is imported, what is public, and what must not exist."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import optillm_local

ROOT = Path(optillm_local.__file__).parents[1]
HEAVY = {"torch", "vllm", "transformers", "sympy", "math_verify", "ray", "starlette", "openai"}


@pytest.mark.parametrize("module", ["optillm_local", "optillm_local.cli", "optillm_local.engine"])
def test_importing_is_light(module: str) -> None:
    code = f"import sys, {module}; print({HEAVY!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_exists_and_they_are_sorted() -> None:
    light = [name for name in optillm_local.__all__ if name != "VLLMClient"]
    assert all(getattr(optillm_local, name) for name in light)
    assert sorted(optillm_local.__all__) == optillm_local.__all__


def test_the_engine_and_mars_are_imported_on_request_only() -> None:
    tree = ast.parse(Path(optillm_local.__file__).read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(optillm_local.__all__) - imported == set(optillm_local._LAZY)
    with pytest.raises(AttributeError, match="has no attribute 'VLMClient'"):
        _ = optillm_local.VLMClient


def test_no_module_called_kernels_is_shipped() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()
    found = importlib.util.find_spec("kernels")
    assert found is None or found.origin is None


def test_the_kernels_are_a_package_of_their_own() -> None:
    assert importlib.util.find_spec("optillm_kernels")
