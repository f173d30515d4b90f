"""Our MARS against codelion's, on the same engine in the same run: engine steps and computed prompt tokens.

codelion's code runs unmodified: it gets an OpenAI-shaped client whose calls become requests of our engine, from
as many threads as it likes. So the engine's counters compare the two, and no other load on the machine can change
them. Same agents (3), aggregation loops (1) and tokens per call (128); codelion's other options are those its
lightweight mode has, which it takes by itself at so few tokens. Ours reads its verdicts.

Two rows for ours: as the model judges, and with every verdict turned around where it passes, so that all explored
solutions are rewritten, which codelion's never does.

    pip install --no-deps --target /tmp/peer optillm==0.4.0
    python benchmarks/mars.py --peer /tmp/peer [--tokens 128] [--model ID_OR_PATH] [--out DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import types
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from records import RESULTS, append

from optillm_local import Choice, EngineSettings, EngineStats, Message, ModelClient, Prompt, VLLMClient
from optillm_local.core.generation import Generation
from optillm_local.optimizers.mars import Mars

QUESTIONS = (
    "A farmer has 17 sheep and buys 3 times as many. How many sheep does he have now?",
    "What is the sum of the first ten odd numbers?",
    "A train travels 180 km in 2.5 hours. What is its average speed in km/h?",
    "How many different ways can the letters of the word LEVEL be arranged?",
)
BARS = {"engine steps": 0.55, "computed prompt tokens": 0.5}


class OpenAIShape:
    """What codelion's MARS needs of an OpenAI client, over an engine that another thread's event loop asks."""

    def __init__(self, client: ModelClient, portal: BlockingPortal) -> None:
        self._client, self._portal = client, portal
        self.calls = 0
        self.chat = types.SimpleNamespace(completions=self)

    def create(self, *, messages: Sequence[dict[str, str]], max_tokens: int, temperature: float, **_: Any) -> Any:
        """One completion in the shape of the `openai` package."""
        self.calls += 1
        prompt = Prompt.of(
            [Message(one["role"], one["content"]) for one in messages],  # type: ignore[arg-type]
            max_tokens=max_tokens,
            temperature=temperature,
            seed=self.calls,
        )
        [one] = self._portal.call(self._client.sample, prompt)
        details = types.SimpleNamespace(reasoning_tokens=0)
        usage = types.SimpleNamespace(
            prompt_tokens=one.usage.prompt,
            completion_tokens=one.usage.completion,
            total_tokens=one.usage.total,
            completion_tokens_details=details,
        )
        choice = types.SimpleNamespace(
            message=types.SimpleNamespace(content=one.text), finish_reason=one.finish_reason, index=0
        )
        return types.SimpleNamespace(choices=[choice], usage=usage, model_dump=dict)


class TurnedAround(ModelClient):
    """The same engine, whose verdicts never pass: P(Yes) and P(No) are swapped where Yes is ahead."""

    def __init__(self, engine: VLLMClient) -> None:
        self._engine, self.model = engine, engine.model

    def _open(self, prompts: Sequence[Prompt], report_every: int) -> AbstractAsyncContextManager[Generation]:
        return self._engine._open(prompts, report_every)

    async def _choose(self, prompt: Prompt, options: Sequence[str]) -> Choice:
        choice = await self._engine._choose(prompt, options)
        turned = dict(zip(options, sorted(choice.probabilities.values()), strict=True))
        return replace(choice, probabilities=turned)


def load_peer(folder: Path) -> Callable[..., Any]:
    """codelion's function, without its package's own imports (a web server and 35 dependencies)."""
    package = types.ModuleType("optillm")
    package.__path__ = [str(folder / "optillm")]
    package.conversation_logger = None  # type: ignore[attr-defined]
    sys.modules["optillm"] = package
    from optillm.mars import multi_agent_reasoning_system

    found: Callable[..., Any] = multi_agent_reasoning_system
    return found


def theirs(
    run: Callable[..., Any], client: ModelClient, portal: BlockingPortal, tokens: int
) -> Callable[[str], dict[str, Any]]:
    """codelion's MARS on one question."""

    def solve(question: str) -> dict[str, Any]:
        shape = OpenAIShape(client, portal)
        options = {"num_agents": 3, "enable_aggregation": True, "aggregation_loops": 1}
        with contextlib.redirect_stdout(io.StringIO()):
            run("", question, shape, "model", {"max_tokens": tokens, "mars_config": options})
        return {"calls": shape.calls}

    return solve


def ours(client: ModelClient, portal: BlockingPortal, tokens: int) -> Callable[[str], dict[str, Any]]:
    """Our MARS on one question."""
    mars = Mars(
        agents=3,
        verification="read",
        enable_aggregation=True,
        aggregation_loops=1,
        aggregation_population_size=3,
        max_iterations=1,
    )

    def solve(question: str) -> dict[str, Any]:
        output = portal.call(mars.run, Prompt.of(question, max_tokens=tokens, seed=0), client)
        return {
            "solutions": len(output.all_solutions),
            "improved": sum(one.phase == "improved" for one in output.all_solutions),
            "verdicts": len(output.verifications),
            "selection": output.selection_method,
        }

    return solve


def counted(engine: VLLMClient, solve: Callable[[str], dict[str, Any]], question: str) -> dict[str, Any]:
    """What the engine did for one question."""
    before: EngineStats = engine.stats()
    about = solve(question)
    spent = engine.stats() - before
    return {
        "engine steps": spent.steps,
        "computed prompt tokens": spent.computed_prompt_tokens,
        "cached prompt tokens": spent.cached_prompt_tokens,
        "generated tokens": spent.generated_tokens,
        "mean batch": round(spent.mean_batch, 2),
        **about,
    }


def main() -> None:
    """Measure, print, append one record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="folder that optillm was installed into")
    parser.add_argument("--tokens", type=int, default=128, help="most tokens of one call (128)")
    parser.add_argument("--model", help="path or Hugging Face id; the embedded model if left out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records")
    options = parser.parse_args()
    run = load_peer(options.peer)
    settings = EngineSettings.load(model=options.model, dtype="float32", max_model_len=4096, kv_cache_gib=1.0)
    engine = VLLMClient(settings, progress=print)
    rows: dict[str, list[dict[str, Any]]] = {}
    with start_blocking_portal() as portal:
        systems = {
            "codelion": theirs(run, engine, portal, options.tokens),
            "ours": ours(engine, portal, options.tokens),
            "ours, nothing passes": ours(TurnedAround(engine), portal, options.tokens),
        }
        for number, question in enumerate(QUESTIONS, start=1):
            for place, (name, solve) in enumerate(systems.items()):
                # A number of its own keeps one system's questions out of another's cache.
                found = counted(engine, solve, f"Task {number}{place}. {question}")
                rows.setdefault(name, []).append(found)
                print(f"question {number}, {name}: {found}")
    anyio.run(engine.close)
    totals = {name: {bar: sum(row[bar] for row in found) for bar in BARS} for name, found in rows.items()}
    ratios = {
        name: {bar: round(total[bar] / totals["codelion"][bar], 3) for bar in BARS}
        for name, total in totals.items()
        if name != "codelion"
    }
    record = {"tokens": options.tokens, "ratios": ratios, "totals": totals, "rows": rows, "bars": BARS}
    path = append("mars", record | {"settings": settings.model_dump(mode="json")}, options.out)
    print(f"totals {totals}\nratios to codelion {ratios}; bars {BARS}; record in {path}")


if __name__ == "__main__":
    main()
