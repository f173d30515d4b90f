"""What accuracy costs: right answers and tokens of every optimizer on the same seeded reasoning-gym questions.

One optimizer after the other, alone on the engine, so that the engine's counters are its own. Tokens generated and
discarded are those of the answers; tokens computed and cached (of prompts) and steps are what the engine counted.
`single` always runs: accuracies are compared with it, question by question.

    python benchmarks/token_efficiency.py [--optimizers mars,best_of_n:n=8] [--questions 20] [--resume]

Every answer is a line of <out>/token_efficiency_questions.jsonl the moment it is there. A run that was cut off
goes on with `--resume`, which skips what was asked in the same way. The end of a run is a table, a record in
<out>/token_efficiency.jsonl and the plot <out>/token_efficiency.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import anyio
from intervals import of_mean, wilson
from pareto import Point, draw
from records import append
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rows import Row, Rows
from tasks import TASKS, Question, ask, flags, load, parse, positive, progress_bar, start

from optillm_local import EngineStats, ModelClient, Optimizer, registry
from optillm_local.core.concurrency import each
from optillm_local.core.errors import InvalidConfiguration
from optillm_local.core.solution import plain

BASELINE = "single"
WIDTH = 120  # of the table, also where the output is no terminal
MEANS = ("generated", "discarded", "computed", "cached", "steps")


@dataclass(frozen=True, slots=True)
class Contender:
    """An optimizer as the command line spells it."""

    label: str
    optimizer: Optimizer

    @classmethod
    def of(cls, spelling: str) -> Contender:
        """From `name` or `name:option=value:option=value`.

        Raises:
            InvalidConfiguration: spelled in another way, or no such optimizer, option or value.
        """
        name, *given = spelling.split(":")
        if not all("=" in option for option in given):
            raise InvalidConfiguration("--optimizers", spelling, "spell it name:option=value:option=value")
        return cls(spelling, registry.create(name, **dict(option.split("=", 1) for option in given)))

    @property
    def options(self) -> dict[str, Any]:
        """All its options, as JSON has them."""
        described = json.dumps(plain(registry.options_as_dict(self.optimizer)), default=repr)
        return dict(json.loads(described))


def contenders(spellings: str | None) -> list[Contender]:
    """The baseline and those asked for; by default all that can be had here."""
    if spellings is not None:
        asked = [spelling.strip() for spelling in spellings.split(",") if spelling.strip()]
        try:
            return [Contender.of(spelling) for spelling in dict.fromkeys([BASELINE, *asked])]
        except InvalidConfiguration as error:
            raise SystemExit(str(error)) from None
    found = []
    for name in dict.fromkeys([BASELINE, *registry.names()]):
        try:
            found.append(Contender.of(name))
        except (ImportError, InvalidConfiguration) as error:
            print(f"{name} is left out: {error}")
    return found


def key_of(contender: Contender, question: Question, client: ModelClient, options: argparse.Namespace) -> Row:
    """All that shapes an answer and its cost."""
    asked = {name: getattr(options, name) for name in ("seed", "tokens", "temperature", "at_once")}
    task = {"task": question.task, "config": dict(TASKS[question.task]), "index": question.index}
    chosen = {"optimizer": contender.label, "options": contender.options}
    return {"model": client.model, **asked, **task, **chosen}


async def answer(
    contender: Contender, questions: Sequence[Question], client: ModelClient, options: argparse.Namespace
) -> list[Row]:
    """Ask some questions at once. The engine cannot tell them apart: each has an equal part in what it counted."""

    async def one(question: Question) -> Row:
        prompt = question.prompt(options, asked_by=contender.label)
        asked = await ask(prompt, contender.optimizer, client)
        return {
            "right": not asked.error and question.is_right(asked.answer),
            "answer": asked.answer[-200:],
            "error": asked.error,
            "generated": asked.usage.completion,
            "discarded": asked.usage.discarded,
        }

    before: EngineStats = client.stats()
    rows = await each(one, questions)
    spent = client.stats() - before
    shares = {
        "computed": spent.computed_prompt_tokens / len(rows),
        "cached": spent.cached_prompt_tokens / len(rows),
        "steps": spent.steps / len(rows),
    }
    return [row | shares for row in rows]


async def ask_all(
    contender: Contender,
    asked: Sequence[tuple[Row, Question]],
    client: ModelClient,
    rows: Rows,
    options: argparse.Namespace,
    told: Callable[[int], None],
) -> None:
    """Ask one contender what it was not asked yet; `told` hears of how many questions there are rows."""
    missing = [(key, question) for key, question in asked if key not in rows]
    told(len(asked) - len(missing))
    for at in range(0, len(missing), options.at_once):
        batch = missing[at : at + options.at_once]
        found = await answer(contender, [question for _, question in batch], client, options)
        for (key, _), row in zip(batch, found, strict=True):
            rows.add(key, row)
        told(len(batch))


async def run(
    chosen: Sequence[Contender],
    questions: Sequence[Question],
    client: ModelClient,
    rows: Rows,
    options: argparse.Namespace,
) -> dict[str, list[Row]]:
    """The rows of each contender, in order of the questions."""
    keys = {one.label: [key_of(one, question, client, options) for question in questions] for one in chosen}
    with progress_bar() as progress:
        bar = progress.add_task("", total=len(chosen) * len(questions))
        for contender in chosen:
            progress.update(bar, description=contender.label)
            asked = list(zip(keys[contender.label], questions, strict=True))
            await ask_all(contender, asked, client, rows, options, partial(progress.advance, bar))
            shares = by_task([(question.task, rows[key]) for key, question in asked])
            told = ", ".join(f"{task} {share:.2f}" for task, share in shares.items())
            progress.console.print(f"{contender.label}: {told}", highlight=False)
    return {label: [rows[key] for key in asked] for label, asked in keys.items()}


def by_task(found: Iterable[tuple[str, Row]]) -> dict[str, float]:
    """The accuracy in each task."""
    right: dict[str, list[bool]] = {}
    for task, row in found:
        right.setdefault(task, []).append(row["right"])
    return {task: round(fmean(answers), 3) for task, answers in right.items()}


def summary(rows: Sequence[Row], baseline: Sequence[Row], tasks: Sequence[str], seed: int) -> dict[str, Any]:
    """Accuracy and means per question, with 95 % intervals; `rows` and `baseline` are of the same questions."""
    gains = [float(row["right"]) - float(base["right"]) for row, base in zip(rows, baseline, strict=True)]
    return {
        "questions": len(rows),
        "failed": sum(bool(row["error"]) for row in rows),
        "accuracy": fmean(row["right"] for row in rows),
        "accuracy_interval": wilson(sum(row["right"] for row in rows), len(rows)),
        "gain": fmean(gains),
        "gain_interval": of_mean(gains, seed),
        **{name: round(fmean(row[name] for row in rows), 1) for name in MEANS},
        "generated_interval": of_mean([row["generated"] for row in rows], seed),
        "accuracy_by_task": by_task(zip(tasks, rows, strict=True)),
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """The summaries, one row each; all but accuracies are per question."""
    shown = Table("optimizer", "accuracy", f"over {BASELINE}", *MEANS, "failed", box=SIMPLE, padding=0)
    for column in shown.columns:
        column.no_wrap = True
    for label, one in found.items():
        (low, high), (least, most) = one["accuracy_interval"], one["gain_interval"]
        accuracy = f"{one['accuracy']:.2f} ({low:.2f} to {high:.2f})"
        gain = f"{one['gain']:+.2f} ({least:+.2f} to {most:+.2f})"
        shown.add_row(label, accuracy, gain, *(f"{one[name]:.1f}" for name in MEANS), str(one["failed"] or ""))
    return shown


def plot(found: Mapping[str, Mapping[str, Any]], title: str, path: Path) -> None:
    """Draw the summaries, if there is anything to draw with."""
    points = [
        Point(label, one["generated"], one["generated_interval"], one["accuracy"], one["accuracy_interval"])
        for label, one in found.items()
    ]
    try:
        draw(points, title, path)
    except ImportError as error:
        print(f"no plot: {error}; it is drawn with: pip install 'optillm-local[bench]'")
    else:
        print(f"plot in {path}")


async def measure(options: argparse.Namespace) -> None:
    """Ask, print, append one record, draw."""
    chosen, questions = contenders(options.optimizers), load(options.questions, options.seed)
    client, settings = start(options, questions)
    with Rows(options.out / "token_efficiency_questions.jsonl", resume=options.resume) as rows:
        async with client:
            by_label = await run(chosen, questions, client, rows, options)
    tasks = [question.task for question in questions]
    found = {label: summary(of, by_label[BASELINE], tasks, options.seed) for label, of in by_label.items()}
    about = {name: getattr(options, name) for name in ("questions", "tokens", "temperature", "seed", "at_once")}
    record = {"model": client.model, **about, "tasks": TASKS, "optimizers": found, "settings": settings}
    Console(width=WIDTH).print(table(found))
    print(f"record in {append('token_efficiency', record, options.out)}")
    title = f"{len(questions)} questions, at most {options.tokens} tokens a call, {Path(client.model).name}"
    plot(found, title, options.out / "token_efficiency.png")


def main() -> None:
    """Measure."""
    parser = flags(__doc__, questions=20)
    parser.add_argument("--optimizers", help="a,b:option=value,c; all that can be had here if left out")
    parser.add_argument("--resume", action="store_true", help="skip questions that were asked in the same way")
    parser.add_argument("--at-once", type=positive, default=1, help="questions of one optimizer side by side (1)")
    try:
        anyio.run(measure, parse(parser))
    except KeyboardInterrupt:
        raise SystemExit("cut off; --resume goes on from here") from None


if __name__ == "__main__":
    main()
