"""What agents learn: techniques of verified solutions, rated by outcome, shared with the agents of later runs."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from optillm_local.core.errors import StrategyExtractionError
from optillm_local.core.mars_events import StrategyExtracted, StrategyNetworkStarted
from optillm_local.core.span import current_span, emit, span
from optillm_local.optimizers.mars.agents import Team
from optillm_local.optimizers.mars.database import Database
from optillm_local.optimizers.mars.workspace import Draft, Strategy
from optillm_local.prompts import render

KEPT = 0.8
"""Weight of the past in a success rate: new = 0.8 old + 0.2 outcome (the seed's)."""

MOST_TECHNIQUES = 2
EXTRACTION_TOKENS = 128
_SAY_NOTHING = re.compile(
    r"all|and|any|are|but|can|does|each|find|for|from|has|have|how|into|its|many|much|not|one|that|the|then|there"
    r"|they|this|use|was|what|when|where|which|who|why|will|with|would|you|your"
)
# Possessive, so that a model that repeats itself cannot keep the match busy.
_LINE = re.compile(r"[\s*>\-\u2022]*+(?:\d{1,2}[.)])?+[\s*_`\"]*+([^:\n]{3,90}+):[*_`\"\s]*+(\S.{3,300})$")


class StrategyNetwork:
    """Strategies in a database; several runs may share it. Without one they are kept in memory."""

    def __init__(self, database: Database | None = None) -> None:
        self._database = database or Database()

    def add(self, technique: str, description: str, *, question: str, discovered_by: str) -> Strategy:
        """Store a technique; one of that name is kept as it is."""
        row = {"technique": technique, "about": description, "question": question, "by": discovered_by}
        self._database.write(
            "INSERT INTO strategies (technique, description, question, discovered_by, success_rate, uses)"
            " VALUES (:technique, :about, :question, :by, 0.5, 0) ON CONFLICT (technique) DO NOTHING",
            row,
        )
        [found] = self._database.read("SELECT * FROM strategies WHERE technique = :it", it=technique)
        return Strategy(**found)

    def all(self) -> list[Strategy]:
        """Every strategy, in the order they were found."""
        return [Strategy(**row) for row in self._database.read("SELECT * FROM strategies ORDER BY id")]

    def relevant(self, question: str, most: int) -> list[Strategy]:
        """The strategies worth showing for a question, the best first: success rate times relevance.

        Relevance is the cosine of the two texts' words, each word weighing as much as it is rare among the
        strategies (TF-IDF; Salton and Buckley, 1988). Without a word in common a strategy is not shown.
        """
        known = self.all()
        texts = [_words(f"{one.technique} {one.description} {one.question}") for one in known]
        rarity = {
            word: math.log((1 + len(texts)) / count)
            for word, count in Counter(w for t in texts for w in t).items()
        }
        asked = _words(question)
        ranked = [
            (one.success_rate * _cosine(asked, text, rarity), one) for one, text in zip(known, texts, strict=True)
        ]
        return [one for merit, one in sorted(ranked, key=lambda pair: -pair[0]) if merit > 0][:most]

    def rate(self, strategy_id: int, success: bool) -> None:
        """Count the outcome of a run that a strategy was shown in."""
        row: dict[str, Any] = {"id": strategy_id, "kept": KEPT, "outcome": float(success)}
        self._database.write(  # in one statement, so that two runs at a time both count
            "UPDATE strategies SET success_rate = :kept * success_rate + (1 - :kept) * :outcome, uses = uses + 1"
            " WHERE id = :id",
            row,
        )

    async def extract(self, draft: Draft, team: Team) -> list[Strategy]:
        """Have the author of a verified solution name its techniques, and store those that are new.

        Raises:
            StrategyExtractionError: the agent fails, or names none in the form it was asked for.
        """
        with span("strategies"):
            emit(StrategyNetworkStarted(span_id=current_span().id, solution_id=draft.id))
            author = team.everyone[draft.author]
            asked = draft.then(render("mars/extract", most=MOST_TECHNIQUES))
            said = await team.write(author, asked, "extract", about=draft.id, max_tokens=EXTRACTION_TOKENS)
            named = parse_techniques(said.answer or said.text)
            if not named:
                raise StrategyExtractionError("it named none", agent_id=author.id, solution_id=draft.id)
            known = {one.technique for one in self.all()}
            question = team.question.question
            found = [
                self.add(name, about, question=question, discovered_by=author.id)
                for name, about in named
                if name not in known
            ]
            for one in found:
                emit(
                    StrategyExtracted(
                        span_id=current_span().id,
                        strategy_id=str(one.id),
                        technique=one.technique,
                        solution_id=draft.id,
                    )
                )
            return found


def parse_techniques(text: str) -> list[tuple[str, str]]:
    """The lines of the form "technique: what it does", up to `MOST_TECHNIQUES`."""
    lines = (_LINE.match(line) for line in text.splitlines())
    return [(line[1].strip(' \t*_`"'), line[2].strip()) for line in lines if line][:MOST_TECHNIQUES]


def _words(text: str) -> Counter[str]:
    """Words of three letters or more that say what a text is about, and the operators of formulas."""
    found = re.findall(r"[^\W\d_]{3,}|[*+/=^%\u221a\u222b\u2211]", text.casefold())
    return Counter(word for word in found if not _SAY_NOTHING.fullmatch(word))


def _cosine(one: Counter[str], other: Counter[str], rarity: dict[str, float]) -> float:
    def weighed(words: Counter[str]) -> dict[str, float]:
        return {word: count * rarity.get(word, 0.0) for word, count in words.items()}

    a, b = weighed(one), weighed(other)
    norm = math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
    return sum(x * b.get(word, 0.0) for word, x in a.items()) / norm if norm else 0.0
