"""What stopping early saves: tokens against the full run, of the same questions with the same seeds.

An optimizer that stops early is compared with the same one that does not. A sequence that finished in the early
run must say in the full run what it says in the early one, since both drew it with the same seed. The share that
does is stated and not asserted: an engine that is not batch-invariant rounds differently in another batch.

    python benchmarks/early_stopping.py [--questions 20] [--tokens 96] [--model ID_OR_PATH] [--out DIR]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import fmean
from typing import Any

import anyio
from intervals import of_ratio, wilson
from records import append
from rows import Row
from tasks import TASKS, Asked, Question, ask, flags, load, parse, progress_bar, start

from optillm_local import ModelClient, registry
from optillm_local.answers import equivalence_classes, extract_answer
from optillm_local.core.events import Event, SequenceCompleted, SequenceStarted

Options = Mapping[str, Any]

# Ways to run an optimizer; the last one is the full run. 16 paths, since of 8 the two rules stop alike.
WAYS: Mapping[str, Sequence[Options]] = {
    "self_consistency": ({"n": 16, "stop": "decided"}, {"n": 16, "stop": "beta"}, {"n": 16, "stop": "never"}),
    "best_of_n": ({"n": 16, "enough": 0.5}, {"n": 16}),
}


@dataclass(slots=True)
class Finished:
    """An event sink: texts of the sequences that ended by themselves, by (tag, seed), in the order they ended."""

    texts: dict[tuple[str, int | None], list[str]] = field(default_factory=lambda: defaultdict(list))
    _seeds: dict[str, int | None] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        if isinstance(event, SequenceStarted):
            self._seeds[event.sequence_id] = event.seed
        elif isinstance(event, SequenceCompleted) and event.finish_reason != "abort":
            self.texts[event.log_tag, self._seeds[event.sequence_id]].append(event.text)

    def identical_in(self, full: Finished) -> tuple[int, int]:
        """How many of these sequences say the same in the full run, and how many there are."""
        found = [(text, full.texts.get(key, [])) for key, texts in self.texts.items() for text in texts]
        return sum(text in others for text, others in found), len(found)


@dataclass(frozen=True, slots=True)
class Run:
    """One question, asked one way."""

    asked: Asked
    is_right: bool
    finished: Finished

    @property
    def stated(self) -> str:
        """The answer that counts."""
        return extract_answer(self.asked.answer) or self.asked.answer

    @classmethod
    async def of(
        cls, name: str, way: Options, question: Question, client: ModelClient, options: argparse.Namespace
    ) -> Run:
        """Ask, alone on the engine."""
        finished = Finished()
        asked = await ask(question.prompt(options), registry.create(name, **way), client, [finished])
        return cls(asked, not asked.error and question.is_right(asked.answer), finished)


async def are_same(pair: tuple[Run, Run]) -> bool:
    """Whether both mean the same answer, or both failed in the same way."""
    early, full = pair
    one, other = await equivalence_classes([early.stated, full.stated])
    return one == other and early.asked.error == full.asked.error


async def summary(name: str, ways: tuple[Options, Options], pairs: Sequence[tuple[Run, Run]], seed: int) -> Row:
    """Early and full run of the same questions: sums over them, and shares with 95 % intervals."""
    sides = dict(zip(("early", "full"), zip(*pairs, strict=True), strict=True))
    generated = {side: [run.asked.usage.completion for run in runs] for side, runs in sides.items()}
    low, high = of_ratio(generated["early"], generated["full"], seed)
    same = sum([await are_same(pair) for pair in pairs])
    kept = [early.finished.identical_in(full.finished) for early, full in pairs]
    identical, survivors = sum(count for count, _ in kept), sum(of for _, of in kept)
    return {
        "optimizer": name,
        "early": dict(ways[0]),
        "full": dict(ways[1]),
        "questions": len(pairs),
        "generated": {side: sum(tokens) for side, tokens in generated.items()},
        "discarded": {side: sum(run.asked.usage.discarded for run in runs) for side, runs in sides.items()},
        "failed": {side: sum(bool(run.asked.error) for run in runs) for side, runs in sides.items()},
        "accuracy": {side: fmean(run.is_right for run in runs) for side, runs in sides.items()},
        "saved": 1 - sum(generated["early"]) / sum(generated["full"]),
        "saved_interval": (1 - high, 1 - low),
        "same_answers": same / len(pairs),
        "same_answers_interval": wilson(same, len(pairs)),
        "survivors": survivors,
        "identical_survivors": identical / survivors if survivors else None,
    }


def told(one: Row) -> str:
    """A summary in words."""
    given = " ".join(f"{option}={value}" for option, value in one["early"].items())
    generated, discarded, accuracy = one["generated"], one["discarded"], one["accuracy"]
    low, high = one["saved_interval"]
    same = one["identical_survivors"]
    return (
        f"{one['optimizer']} {given}: {one['saved']:.1%} of tokens saved ({low:.1%} to {high:.1%})\n"
        f"  generated {generated['early']} of {generated['full']}, discarded {discarded['early']}\n"
        f"  {one['same_answers']:.1%} of {one['questions']} answers are those of the full run;"
        f" accuracy {accuracy['early']:.3f}, full {accuracy['full']:.3f}\n"
        f"  {'no' if same is None else f'{same:.1%}'} of {one['survivors']} surviving sequences are identical"
    )


async def measure(options: argparse.Namespace) -> None:
    """Ask, print, append one record."""
    questions = load(options.questions, options.seed)
    client, settings = start(options, questions)
    found = []
    async with client:
        with progress_bar() as progress:
            bar = progress.add_task("", total=sum(len(ways) for ways in WAYS.values()) * len(questions))
            for name, ways in WAYS.items():
                progress.update(bar, description=name)
                runs: list[list[Run]] = [[] for _ in ways]
                for question, (place, way) in product(questions, enumerate(ways)):
                    runs[place].append(await Run.of(name, way, question, client, options))
                    progress.advance(bar)
                for way, early in zip(ways[:-1], runs[:-1], strict=True):
                    pairs = list(zip(early, runs[-1], strict=True))
                    found.append(await summary(name, (way, ways[-1]), pairs, options.seed))
    print("\n".join(told(one) for one in found))
    about = {flag: getattr(options, flag) for flag in ("questions", "tokens", "temperature", "seed")}
    record = {"model": client.model, **about, "tasks": TASKS, "pairs": found, "settings": settings}
    print(f"record in {append('early_stopping', record, options.out)}")


def main() -> None:
    """Measure."""
    anyio.run(measure, parse(flags(__doc__, questions=20)))


if __name__ == "__main__":
    main()
