"""Which calls codelion's optillm makes at its default parameters, recorded from its own unmodified code.

Each approach answers one question with a client that says plausible things, so that it goes its full way: leap
finds two examples, scores are numbers, the two programs of rto differ. The calls are written down as a multiset,
since their order says nothing: role layout, n, temperature, max_tokens and top_p, where null is a field that was
not sent. An approach that throws dice is run with several seeds, and what all of them share is kept.

tests/conformance compares our optimizers with the record, and conformance_page.py shows it. Left out are z3, which
executes the programs it writes, mars, whose calls depend on its verdicts, and the decodings, which call no client.
Run it with this project's environment:

    pip install --no-deps --target DIR optillm==0.4.0
    python benchmarks/conformance.py --peer DIR [--out FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import inspect
import io
import json
import logging
import random
import re
import sys
import types
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from conformance_page import RECORD

SYSTEM = "You are helpful."
QUESTION = "What is 2 + 2?"
SEEDS = 20

EXAMPLES = [{"question": "1 + 1?", "answer": "2"}, {"question": "3 + 3?", "answer": "6"}]
# What to say to whom: the first of these that the conversation's first or last message contains decides.
SAYS = {
    "Rate the above response:": "7",
    "Score: ": "Score: 7\nExplanation: right.",
    "scale from 0 to 1": "0.8",
    "BEST CANDIDATE": "COMPARISON: close.\nBEST CANDIDATE: 2\nREASONING: it is right.",
    "Rating: [[": "Explanation: right.\n\nRating: [[1]]",
    "contains few-shot examples": f"<output>{json.dumps(EXAMPLES)}</output>",
    "include a mistake": "I add one too many. <output>7</output>",
    "Low-level principles": "<output>1. Count twice.\n2. State the result.</output>",
    "ONLY the principles": "<output>Count twice.</output>",
    "JSON array only": "[1, 5, 9]",
    "adapted modules as a numbered list": "1. Add the numbers.\n2. Check the sum.",
    "Valid JSON reasoning structure": '{"sum": "add the numbers", "check": "count again"}',
    "observations": "Addition is commutative.\nBoth numbers are even.",
}

Request = tuple[tuple[str, ...], int | None, float | None, int | None, float | None]


class Recorder:
    """An OpenAI-shaped client that answers from `SAYS` and writes every request down."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.chat = types.SimpleNamespace(completions=self)

    def create(self, *, messages: list[dict[str, str]], **sent: Any) -> Any:
        """One completion, or n, in the shape of the `openai` package."""
        roles = tuple(message["role"] for message in messages)
        self.requests.append(
            (roles, sent.get("n"), sent.get("temperature"), sent.get("max_tokens"), sent.get("top_p"))
        )
        asked = messages[0]["content"] + messages[-1]["content"]
        number = len(self.requests)
        default = f"Answer {number}: ```python\nprint({number})\n```\nThe answer is 4."
        said = next((says for part, says in SAYS.items() if part in asked), default)
        choices = [
            types.SimpleNamespace(index=i, finish_reason="stop", message=types.SimpleNamespace(content=said))
            for i in range(sent.get("n") or 1)
        ]
        usage = types.SimpleNamespace(prompt_tokens=1, completion_tokens=1, completion_tokens_details=None)
        return types.SimpleNamespace(choices=choices, usage=usage, model_dump=dict)


@dataclass(frozen=True)
class Approach:
    """An approach of codelion: its module, how to run it, and where its default parameters stand."""

    module: str
    run: Callable[[Any, Recorder], Any]
    defaults: Callable[[Any], Mapping[str, Any]]


def function(module: str, name: str, *defaults_of: str) -> Approach:
    """An approach that is one function, with parameters of its own and of the classes it uses."""

    def run(found: Any, client: Recorder) -> None:
        getattr(found, name)(SYSTEM, QUESTION, client, "model")

    return Approach(module, run, lambda found: signature_defaults(found, *(defaults_of or [name])))


def signature_defaults(module: Any, *paths: str) -> dict[str, Any]:
    """The default values in the signatures of functions and classes."""
    parameters = [
        parameter
        for path in paths
        for parameter in inspect.signature(functools.reduce(getattr, path.split("."), module)).parameters.values()
    ]
    known = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    return {name: value for name, value in known.items() if not name.startswith("request_")}


def constant_defaults(module: Any) -> dict[str, Any]:
    """The values of a module's constants `DEFAULT_*`."""
    return {name[8:].lower(): value for name, value in vars(module).items() if name.startswith("DEFAULT_")}


def run_plugin(module: Any, client: Recorder) -> None:
    """A plugin has one door."""
    module.run(SYSTEM, QUESTION, client, "model")


def run_rstar(module: Any, client: Recorder) -> None:
    """rStar is a class."""
    module.RStar(SYSTEM, client, "model").solve(QUESTION)


def cepo_config(module: Any) -> Any:
    """CePO's parameters are in a file beside its code."""
    path = Path(module.__file__).parent / "configs" / "cepo_config.yaml"
    return module.init_cepo_config({"cepo_config_file": str(path)})


def run_cepo(module: Any, client: Recorder) -> None:
    """CePO takes a configuration."""
    module.cepo(SYSTEM, QUESTION, client, "model", cepo_config(module))


def rsa_config(module: Any) -> dict[str, Any]:
    """What MARS sets of its aggregation."""
    config = import_module("optillm.mars.mars").DEFAULT_CONFIG
    names = ("population_size", "aggregation_size", "aggregation_loops", "max_tokens")
    return {name: config[name] for name in names}


def run_rsa(module: Any, client: Recorder) -> None:
    """MARS' aggregation, from the three solutions that its agents have explored by then."""
    config = rsa_config(module)
    workspace = module.MARSWorkspace(QUESTION, config)
    for agent in range(3):
        workspace.add_solution(module.AgentSolution(str(agent), f"Solution {agent}", 0.5, 1, 1, 10))
    asyncio.run(module.MARSAggregator(client, "model", config).run_aggregation_loops(workspace))


APPROACHES = {
    "bon": function("bon", "best_of_n_sampling"),
    "cepo": Approach("cepo.cepo", run_cepo, lambda module: asdict(cepo_config(module))),
    "cot_reflection": function("cot_reflection", "cot_reflection"),
    "deepthink": Approach("plugins.deepthink_plugin", run_plugin, lambda module: module._parse_config({})),
    "genselect": Approach("plugins.genselect_plugin", run_plugin, constant_defaults),
    "leap": function("leap", "leap"),
    "majority_voting": Approach("plugins.majority_voting_plugin", run_plugin, constant_defaults),
    "mcts": function("mcts", "chat_with_mcts"),
    "moa": function("moa", "mixture_of_agents"),
    "plansearch": function("plansearch", "plansearch", "plansearch", "PlanSearch.solve"),
    "pvg": function("pvg", "inference_time_pv_game"),
    "re2": function("reread", "re2_approach"),
    "rsa": Approach("mars.aggregator", run_rsa, rsa_config),
    "rstar": Approach("rstar", run_rstar, lambda module: signature_defaults(module, "RStar")),
    "rto": function("rto", "round_trip_optimization"),
    "self_consistency": function(
        "self_consistency", "advanced_self_consistency_approach", "AdvancedSelfConsistency"
    ),
}


def load_peer(folder: Path) -> None:
    """Make codelion's modules importable without its package's own imports (a web server and 35 dependencies)."""
    package = types.ModuleType("optillm")
    package.__path__ = [str(folder / "optillm")]
    package.conversation_logger = None  # type: ignore[attr-defined]
    sys.modules["optillm"] = package
    cerebras = types.ModuleType("cerebras.cloud.sdk")
    cerebras.BadRequestError = type("BadRequestError", (Exception,), {})  # type: ignore[attr-defined]
    sys.modules["cerebras.cloud.sdk"] = cerebras


def requests_of(approach: Approach, module: Any) -> Counter[Request]:
    """The requests that every seed leads to."""
    shared: Counter[Request] | None = None
    for seed in range(SEEDS):
        random.seed(seed)
        client = Recorder()
        with contextlib.redirect_stdout(io.StringIO()):
            approach.run(module, client)
        found = Counter(client.requests)
        shared = found if shared is None else shared & found
    return shared or Counter()


def record(approach: Approach) -> dict[str, Any]:
    """The calls of one approach, as requests and as the sequences they ask for."""
    module = import_module(f"optillm.{approach.module}")
    requests = requests_of(approach, module)
    sequences: Counter[Request] = Counter()
    for (roles, n, temperature, max_tokens, top_p), count in requests.items():
        sequences[roles, None, temperature, max_tokens, top_p] += count * (n or 1)
    return {
        "source": f"optillm/{approach.module.replace('.', '/')}.py",
        "defaults": dict(approach.defaults(module)),
        "requests": requests.total(),
        "sequences": sequences.total(),
        "calls": [as_dict(one) | {"count": count} for one, count in ordered(requests)],
        "expanded": [
            {name: value for name, value in as_dict(one).items() if name != "n"} | {"sequences": count}
            for one, count in ordered(sequences)
        ],
    }


def ordered(found: Counter[Request]) -> list[tuple[Request, int]]:
    """Sorted by anything that does not change from run to run."""
    return sorted(found.items(), key=repr)


def as_dict(request: Request) -> dict[str, Any]:
    """A request with its fields named; null was not sent."""
    names = ("roles", "n", "temperature", "max_tokens", "top_p")
    return dict(zip(names, request, strict=True))


def a_line_per_call(text: str) -> str:
    """JSON with the innermost objects on a line of their own each."""
    return re.sub(r"\{\s+\"roles\".*?\}", lambda call: re.sub(r"\s+", " ", call[0]), text, flags=re.DOTALL)


def main() -> None:
    """Record every approach and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="folder that optillm was installed into")
    parser.add_argument("--out", type=Path, default=RECORD, help="file to write")
    options = parser.parse_args()
    load_peer(options.peer)
    logging.disable(logging.CRITICAL)
    found = {name: record(approach) for name, approach in APPROACHES.items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(a_line_per_call(json.dumps(found, indent=1)) + "\n")
    for name, about in found.items():
        print(f"{name}: {about['requests']} requests, {about['sequences']} sequences")
    print(f"record in {options.out}")


if __name__ == "__main__":
    main()
