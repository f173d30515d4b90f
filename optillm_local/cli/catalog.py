"""The optimizers as a page: what each asks of a model is measured, on a model that answers from a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from jinja2 import Environment, PackageLoader, StrictUndefined

from optillm_local.clients import ScriptedClient
from optillm_local.confidence import SCORERS
from optillm_local.core.events import Event, OptionsRead, SequenceStarted
from optillm_local.core.prompt import Prompt
from optillm_local.run import asolve

ROUND = 64
"""Tokens of every scripted answer, so that steps tell how many answers waited for one another."""


QUESTION = Prompt.of("What is 3 + 4? For example, 1 + 1 is 2.", seed=0)

SCRIPT: Mapping[str, str] = {
    "examples": '<output>[{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": "4"}]</output>',
    "mistake": "<output>3</output>",
    "principle": "<output>Count again.</output>",
    "principles": "<output>1. Count again.</output>",
}
"""Replies to steps whose form decides what is asked next, by tag: those of leap."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What an optimizer asks at its defaults when no two answers agree and every verdict is undecided.

    Attributes:
        sequences: answers that were begun.
        reads: decisions read from log-probabilities.
        steps: of the model; a read takes one, like a token.
        alternatives: most alternatives per token that it wants the log-probabilities of.
    """

    sequences: int
    reads: int
    steps: int
    alternatives: int

    @property
    def depth(self) -> int:
        """Answers that had to wait for one another, the first included; reads do not count."""
        return self.steps // ROUND

    @property
    def calls(self) -> str:
        """In words."""
        return f"{self.sequences}" + (f" + {self.reads} reads" if self.reads else "")

    @property
    def logprobs(self) -> str:
        """What it needs of log-probabilities, in words."""
        needs = ["label reads"] * bool(self.reads) + [f"top {self.alternatives}"] * bool(self.alternatives)
        return ", ".join(needs) or "-"


def page(known: Sequence[Mapping[str, Any]]) -> str:
    """Optimizers, as the command line describes them, as Markdown."""
    environment = Environment(
        loader=PackageLoader("optillm_local.cli", "pages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown
    )
    measured = [{**about, "run": _measured(about["name"])} for about in known]
    return environment.get_template("optimizers.md.j2").render(optimizers=measured, scorers=SCORERS)


def _measured(name: str) -> DryRun | None:
    try:
        return anyio.run(dry_run, name)
    except Exception:  # other packages' code: one that fails must not hide the rest
        return None


async def dry_run(name: str) -> DryRun:
    """Count what an optimizer asks at its defaults.

    Raises:
        OptillmError: it does not come to an answer on the script.
    """
    events: list[Event] = []
    client = ScriptedClient(_answer)
    await asolve(QUESTION, name, client=client, sinks=[events.append])
    return DryRun(
        sequences=sum(isinstance(event, SequenceStarted) for event in events),
        reads=sum(isinstance(event, OptionsRead) for event in events),
        steps=client.stats().steps,
        alternatives=max((prompt.sampling.alternatives or 0 for prompt in client.prompts), default=0),
    )


def _answer(prompt: Prompt) -> str:
    """An answer of `ROUND` tokens; siblings disagree."""
    said = SCRIPT.get(prompt.log_tag or "", f"The answer is {prompt.sampling.seed}.").split()
    return " ".join(["hm"] * (ROUND - len(said)) + said)
