"""codelion's own strategies run unmodified on our client, and ask for what they ask of a server.

They are not a dependency: `OPTILLM_PEER=DIR` names a folder in which their wheel is unpacked or installed. Their
package's own imports (a web server and 35 dependencies) are left out.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from optillm_local import OpenAI, ScriptedClient

PEER = os.environ.get("OPTILLM_PEER", "")
ASKED = ("You are brief.", "What is 3 * 4?")

pytestmark = pytest.mark.skipif(not PEER, reason="codelion's optillm is not here: set OPTILLM_PEER to its folder")


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Their functions by `module:name`."""
    package = types.ModuleType("optillm")
    package.__path__ = [str(Path(PEER) / "optillm")]
    package.conversation_logger = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "optillm", package)

    def load(target: str) -> Any:
        module, _, name = target.partition(":")
        return getattr(import_module(f"optillm.{module}"), name)

    yield load
    for name in [name for name in sys.modules if name.startswith("optillm.")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "options", "sequences"),
    [
        ("bon:best_of_n_sampling", {"n": 3}, 6),
        ("moa:mixture_of_agents", {}, 5),
        ("mcts:chat_with_mcts", {}, 22),
        ("pvg:inference_time_pv_game", {}, 25),
        ("leap:leap", {}, 2),
        ("plansearch:plansearch", {"n": 2}, 8),
        ("cot_reflection:cot_reflection", {}, 1),
        ("reread:re2_approach", {}, 1),
        ("self_consistency:advanced_self_consistency_approach", {}, 5),
    ],
)
def test_a_strategy_of_codelions_runs_on_our_client(
    peer: Callable[[str], Any], target: str, options: dict[str, Any], sequences: int
) -> None:
    model = ScriptedClient(lambda prompt: "The answer is 12.")
    with OpenAI(model) as client:
        said, tokens = peer(target)(*ASKED, client, "scripted", **options)
    assert "12" in str(said)
    assert len(model.prompts) == sequences
    assert tokens == model.stats().generated_tokens == 4 * sequences


def test_rstar_of_codelions_runs_on_our_client(peer: Callable[[str], Any]) -> None:
    model = ScriptedClient(lambda prompt: "The answer is 12.")
    with OpenAI(model) as client:
        said, _ = peer("rstar:RStar")(ASKED[0], client, "scripted").solve(ASKED[1])
    assert (said, len(model.prompts)) == ("12", 25)
