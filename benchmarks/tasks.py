"""What several benchmarks share: seeded reasoning-gym questions, whom they are put to, and the flags for both."""

from __future__ import annotations

import argparse
import random
import re
import sys
import types
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from records import RESULTS
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from optillm_local import EngineSettings, ModelClient, Optimizer, Prompt, ScriptedClient, TokenUsage, asolve
from optillm_local.answers import extract_answer
from optillm_local.core.errors import EngineDead, EngineOutOfMemory, OptillmError
from optillm_local.core.events import OptionsRead, SequenceCompleted, Sink, TextScored

# Data sets that a model of 135 million parameters can partly do; every answer is one number.
TASKS: Mapping[str, Mapping[str, Any]] = {
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "gcd": {"min_numbers": 2, "max_numbers": 2, "min_value": 2, "max_value": 20},
    "lcm": {"min_numbers": 2, "max_numbers": 2, "min_value": 2, "max_value": 10},
}
QUICK = 2  # questions of each task with --quick
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Question:
    """Question `index` of a task; `entry` is the data set's own record of it."""

    task: str
    index: int
    entry: Mapping[str, Any]
    dataset: Any

    @property
    def text(self) -> str:
        """The question as the data set puts it."""
        return str(self.entry["question"])

    def prompt(self, options: argparse.Namespace, *, asked_by: str = "") -> Prompt:
        """The question to ask.

        Its seed is the same whoever asks. Who asks puts a number of its own in front, so that no optimizer finds
        the questions of another in the prefix cache; always five digits, so that all prompts are equally long.
        """
        seed = zlib.crc32(f"{options.seed}/{self.task}/{self.index}".encode()) % 2**31
        number = 10_000 + zlib.crc32(f"{asked_by}/{seed}".encode()) % 90_000
        text = f"Task {number}. {self.text}" if asked_by else self.text
        return Prompt.of(text, max_tokens=options.tokens, temperature=options.temperature, seed=seed)

    def is_right(self, answer: str) -> bool:
        """The data set's full score for the answer a text states; words around its only number do not count."""
        stated = extract_answer(answer) or answer
        numbers = _NUMBER.findall(stated.replace(",", ""))
        return bool(self.dataset.score_answer(numbers[0] if len(numbers) == 1 else stated, dict(self.entry)) == 1)


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer and its cost; `error` says why there is none."""

    answer: str
    error: str
    usage: TokenUsage


def load(count: int, seed: int) -> list[Question]:
    """The first `count` questions of each task."""
    # A compiled solver that it imports for logic puzzles, none of which is asked here, need not be there.
    sys.modules.setdefault("pycosat", types.ModuleType("pycosat"))
    try:
        import reasoning_gym
    except ImportError as error:
        raise SystemExit(f"{error}; the questions come with: pip install 'optillm-local[bench]'") from None
    datasets = {
        task: reasoning_gym.create_dataset(task, size=count, seed=seed, **config) for task, config in TASKS.items()
    }
    return [Question(task, index, data[index], data) for task, data in datasets.items() for index in range(count)]


async def ask(prompt: Prompt, optimizer: Optimizer, client: ModelClient, sinks: Sequence[Sink] = ()) -> Asked:
    """One answer. An optimizer that finds none answers wrong, and what it spent is counted all the same.

    Raises:
        EngineDead, EngineOutOfMemory: nothing more can be asked.
    """
    usage = TokenUsage()

    def count(event: Any) -> None:
        nonlocal usage
        if isinstance(event, SequenceCompleted | OptionsRead | TextScored):
            usage += TokenUsage(**event.usage.model_dump())

    try:
        answer, error = (await asolve(prompt, optimizer, client=client, sinks=[count, *sinks])).answer, ""
    except (EngineDead, EngineOutOfMemory):
        raise
    except OptillmError as failure:
        answer, error = "", f"{type(failure).__name__}: {failure}"
    return Asked(answer, error, usage)


def flags(description: str | None, questions: int) -> argparse.ArgumentParser:
    """The command line that these benchmarks have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=positive, default=questions, help=f"of each task ({questions})")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK} questions of each task, to see that it runs"
    )
    parser.add_argument("--tokens", type=int, default=96, help="most tokens of one call (96)")
    parser.add_argument("--temperature", type=float, default=0.6, help="of the prompt (0.6)")
    parser.add_argument("--seed", type=int, default=0, help="of questions, sequences and intervals (0)")
    parser.add_argument("--model", help="path or Hugging Face id; the embedded model if left out")
    parser.add_argument(
        "--client", default="engine", choices=["engine", "scripted"], help="scripted: a dry run without a model"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records")
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says."""
    options = parser.parse_args()
    if options.quick:
        options.questions = QUICK
    return options


def start(options: argparse.Namespace, questions: Sequence[Question]) -> tuple[ModelClient, dict[str, Any]]:
    """Who answers, and its settings for the record. In float32, so that rounding decides as little as it can."""
    if options.client == "scripted":
        return scripted(questions), {}
    from optillm_local import VLLMClient

    settings = EngineSettings.load(model=options.model, dtype="float32", max_model_len=4096, kv_cache_gib=1.0)
    return VLLMClient(settings, progress=print), settings.model_dump(mode="json")


def scripted(questions: Sequence[Question], right: float = 0.6) -> ScriptedClient:
    """A model that is right with that probability: its seed and the conversation decide, whoever asks first."""
    known = sorted(questions, key=lambda question: -len(question.text))

    def answers(prompt: Prompt) -> str:
        said = "\n".join(message.content for message in prompt.conversation)
        chance = random.Random(f"{prompt.sampling.seed}/{said}")
        truth = next((question.entry["answer"] for question in known if question.text in said), "unknown")
        stated = truth if chance.random() < right else chance.randrange(10)
        return f"{'step ' * chance.randrange(3, 30)}. The answer is {stated}."

    return ScriptedClient(answers)


def progress_bar() -> Progress:
    """Counts questions, and says how long the rest takes."""
    return Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn()),
    )
