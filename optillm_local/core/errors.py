"""Everything that can go wrong, as one tree.

* OptillmError
  x ClientError              the model could not be asked, or could not answer
    + ModelNotFound          no such model, or its files cannot be used
    + EngineDead             the engine is gone; every request in flight fails with this
    + EngineOutOfMemory      the model or its KV cache does not fit; the message says what to lower
    + RequestRejected        one request has a value that cannot work; its neighbours are unharmed
    + Truncated              the answer was cut at max_tokens where a whole one is needed
    + Unsupported            this backend cannot do what was asked
  x InvalidConfiguration     an option or a setting has a value that cannot work (also a ValueError)
  x NoSolutions              the optimizer produced no candidate at all
  x AnswerExtractionError    candidates exist, but none states an answer
  x ParsingError             the model's text does not have the form it was asked for
  x Timeout                  a deadline passed that is not a budget (also a TimeoutError)
  x BudgetExceeded           the budget was spent before there was anything to return
  x MarsError                one step of a multi-agent run failed; the run records it and goes on
    + ExplorationError       an agent has no solution
    + VerificationError      a verifier has no verdict
    + AggregationError       solutions could not be made into another
    + ImprovementError       a solution could not be rewritten
    + SelectionError         no answer could be synthesised
    + StrategyExtractionError  a solution's techniques could not be named
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self


class OptillmError(Exception):
    """Root of every error this package raises on purpose."""


class ClientError(OptillmError):
    """The model could not be asked, or could not answer."""


class ModelNotFound(ClientError):
    """No model of that name or path, or files that cannot be used; the message names the file."""


class EngineDead(ClientError):
    """The engine stopped; nothing can be asked of it any more."""


class EngineOutOfMemory(ClientError):
    """The model or its KV cache does not fit into memory."""


class _BadField(OptillmError):
    """A named field holds a value that cannot work; `remedy` says what would."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}={value!r}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy


class RequestRejected(_BadField, ClientError):
    """One request is refused before it reaches the engine: `field`, `value`, `remedy`."""


class InvalidConfiguration(_BadField, ValueError):
    """An option or setting is refused: `field`, `value`, `remedy`."""

    @classmethod
    def of(cls, error: Any, name: Callable[[str], str]) -> Self:
        """The first problem of a pydantic ValidationError; `name` turns its field into what the user wrote."""
        first = error.errors(include_url=False)[0]
        refusal = first.get("ctx", {}).get("error")
        if isinstance(refusal, cls):  # one of ours, raised while the fields were checked together
            return refusal
        return cls(name(".".join(str(part) for part in first["loc"])), first["input"], first["msg"])


class Truncated(ClientError):
    """An answer was cut at its token limit where a whole one is needed; `text` is what there is."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class Unsupported(ClientError):
    """The backend has no way to do what was asked."""


class NoSolutions(OptillmError):
    """The optimizer produced no candidate at all."""


class AnswerExtractionError(OptillmError):
    """Candidates exist, but none of them states an answer."""


class ParsingError(OptillmError):
    """The model's text does not have the form it was asked for; `text` is what it said."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class Timeout(OptillmError, TimeoutError):
    """A deadline passed that is not a budget."""


class BudgetExceeded(OptillmError):
    """The budget is spent and there is no answer to return: `kind` of budget, `spent`, `limit`."""

    def __init__(self, kind: str, spent: float, limit: float) -> None:
        super().__init__(f"the budget of {limit:g} {kind} is spent ({spent:g} used)")
        self.kind, self.spent, self.limit = kind, spent, limit


class MarsError(OptillmError):
    """One step of a multi-agent run failed: in which `phase`, `agent_id`'s, about `solution_id`, and its cause."""

    phase: ClassVar[str] = ""

    def __init__(self, message: str, *, agent_id: str = "", solution_id: str = "") -> None:
        about = " ".join(part for part in (self.phase, agent_id, solution_id) if part)
        super().__init__(f"{about}: {message}" if about else message)
        self.agent_id, self.solution_id = agent_id, solution_id


class ExplorationError(MarsError):
    """An agent has no solution."""

    phase = "exploration"


class VerificationError(MarsError):
    """A verifier has no verdict."""

    phase = "verification"


class AggregationError(MarsError):
    """Solutions could not be made into another."""

    phase = "aggregation"


class ImprovementError(MarsError):
    """A solution could not be rewritten."""

    phase = "improvement"


class SelectionError(MarsError):
    """No answer could be synthesised."""

    phase = "selection"


class StrategyExtractionError(MarsError):
    """The techniques of a solution could not be named."""

    phase = "strategies"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest known ones, or all of them."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=2, cutoff=0.6)
    if near:
        return f"unknown. Did you mean {' or '.join(repr(one) for one in near)}?"
    return f"unknown. Known: {', '.join(choices) or 'none'}"
