"""How sure the model was of each token, as arrays: no Python object per token."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = (
    "confidence",
    "margin",
    "entropy",
    "varentropy",
    "self_certainty",
    "full_entropy",
    "full_varentropy",
    "full_self_certainty",
)
"""What is measured, in this order; the first five are of the likeliest tokens, as in `confidence.measures`."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenStatistics:
    """Measured where the tokens were sampled, from all logits.

    Attributes:
        values: [tokens, len(COLUMNS)]; NaN where nothing was measured, as for words put into the model's mouth.
            The `full_` ones are of the whole vocabulary, in nats and nats squared; they have no counterpart where
            only a list of alternatives is known.
    """

    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, tokens: slice) -> Self:
        return type(self)(self.values[tokens])

    def __eq__(self, other: object) -> bool:
        import numpy as np  # here, so that the command line starts without it

        return isinstance(other, TokenStatistics) and np.array_equal(self.values, other.values, equal_nan=True)

    def __hash__(self) -> int:
        return hash(self.values.tobytes())

    def of(self, column: str) -> NDArray[np.float64]:
        """One of COLUMNS: [tokens]."""
        return self.values[:, COLUMNS.index(column)].astype("float64")

    @classmethod
    def unknown(cls, tokens: int) -> Self:
        """Of tokens that nothing is known of."""
        import numpy as np

        return cls(np.full((tokens, len(COLUMNS)), math.nan, dtype=np.float32))

    @classmethod
    def joined(cls, pieces: Iterable[TokenStatistics]) -> Self:
        """Of successive pieces."""
        import numpy as np

        return cls(np.concatenate([cls.unknown(0).values, *(piece.values for piece in pieces)]))


@dataclass(frozen=True, slots=True)
class Floor:
    """The confidence a sequence must keep up.

    Attributes:
        confidence: the least mean over a group, in nats.
        window: tokens of a group; a shorter sequence is not judged.
    """

    confidence: float
    window: int
