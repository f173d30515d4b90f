"""How sure the model was of each token, as arrays."""

import math

import numpy as np
import pytest

from optillm_local.confidence import measures
from optillm_local.core.completion import Completion, OutputTextDelta, Transcript
from optillm_local.core.statistics import COLUMNS, TokenStatistics
from optillm_local.core.usage import TokenUsage
from optillm_local.optimizers.pieces import joined

WIDE = len(COLUMNS)


def rows(*values: float) -> TokenStatistics:
    """A token for each value, which all its columns have."""
    return TokenStatistics(np.repeat(np.array(values, dtype=np.float32)[:, np.newaxis], WIDE, axis=1))


def piece(statistics: TokenStatistics | None, tokens: int) -> Completion:
    return Completion("x" * tokens, tuple(range(tokens)), "length", TokenUsage(), statistics=statistics)


def test_columns_have_names() -> None:
    statistics = TokenStatistics(np.arange(2 * WIDE, dtype=np.float32).reshape(2, WIDE))
    assert [statistics.of(name).tolist() for name in COLUMNS] == [[i, i + WIDE] for i in range(WIDE)]
    assert statistics[1:].of("margin").tolist() == [1 + WIDE]


def test_equal_numbers_are_equal_and_unknown_ones_too() -> None:
    assert rows(1, math.nan) == rows(1, math.nan) != rows(1, 2)
    assert hash(rows(1)) == hash(rows(1))
    assert rows(1) != (1,)


def test_a_transcript_puts_deltas_together() -> None:
    transcript = Transcript()
    for values in ((1, 2), (3,)):
        transcript.add(OutputTextDelta("x", tuple(range(len(values))), statistics=rows(*values)))
    assert transcript.finish("stop", prompt_tokens=1).statistics == rows(1, 2, 3)
    assert Transcript().finish("stop", prompt_tokens=1).statistics is None


def test_pieces_nobody_measured_are_unknown() -> None:
    whole = joined([piece(rows(1), 1), piece(None, 2), piece(rows(4), 1)])
    assert whole.statistics == rows(1, math.nan, math.nan, 4)
    assert whole.confidence == pytest.approx(2.5)
    assert joined([piece(None, 2)]).statistics is None
    assert math.isnan(piece(TokenStatistics.unknown(2), 2).confidence)


@pytest.mark.parametrize("name", COLUMNS[:5])
def test_what_was_measured_is_taken(name: str) -> None:
    measure = measures.token_confidence if name == "confidence" else getattr(measures, name)
    assert measure(piece(rows(1, 2), 2)).tolist() == [1, 2]
