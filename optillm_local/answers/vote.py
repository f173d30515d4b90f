"""Count weighted votes for classes of answers, and know when more votes cannot matter."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Tally:
    """The weight of each class, in the order in which the classes first received a vote.

    That order breaks ties: of two classes with the same total, the earlier one wins.
    """

    totals: Mapping[int, float]

    @classmethod
    def of(cls, classes: Sequence[int | None], weights: Sequence[float]) -> Self:
        """Count `weights[i]` for `classes[i]`; None abstains, whatever its weight.

        Raises ValueError for a weight that is negative or not finite, and for unequal lengths.
        """
        votes: dict[int, list[float]] = {}
        for index, (choice, weight) in enumerate(zip(classes, weights, strict=True)):
            if not 0 <= weight < math.inf:
                raise ValueError(f"weights[{index}] must be a finite number >= 0, not {weight}")
            if choice is not None:
                votes.setdefault(choice, []).append(weight)
        # fsum rounds once, so that the order of the votes cannot make or break a tie.
        return cls({choice: math.fsum(cast) for choice, cast in votes.items()})

    @property
    def winner(self) -> int | None:
        """The class with the largest total; None if nobody voted."""
        return max(self.totals, key=self.totals.__getitem__, default=None)

    @property
    def margin(self) -> float:
        """The winner's total less the runner-up's (0 where there is none)."""
        first, second, *_ = sorted([0.0, 0.0, *self.totals.values()], reverse=True)
        return first - second

    @property
    def share(self) -> float:
        """The winner's part of all weight cast, in [0, 1]; 0 if none was cast."""
        return 0.0 if self.winner is None else self.share_of(self.winner)

    def share_of(self, choice: int) -> float:
        """One class's part of all weight cast, in [0, 1]; 0 if none was cast."""
        cast = math.fsum(self.totals.values())
        return self.totals[choice] / cast if cast else 0.0


def is_decided(tally: Tally, remaining_weight: float) -> bool:
    """Whether votes of `remaining_weight` in all, still to come, cannot change the winner.

    They may go to any classes, new ones included, or abstain. An earlier class takes the win by
    drawing level, so the winner must stay strictly ahead of it; a later class, and a new one is
    later than all, must overtake, so against those level is enough. Without any vote yet, it is
    decided only if none is to come. Exact as far as float sums are.
    """
    if not remaining_weight >= 0:
        raise ValueError(f"remaining_weight must be a number >= 0, not {remaining_weight}")
    winner = tally.winner
    if winner is None or remaining_weight == 0:
        return remaining_weight == 0
    return remaining_weight <= tally.totals[winner] and all(
        rival == winner or _stays_behind(tally, winner, rival, remaining_weight) for rival in tally.totals
    )


def _stays_behind(tally: Tally, winner: int, rival: int, gain: float) -> bool:
    reached = tally.totals[rival] + gain
    order = list(tally.totals)
    if order.index(rival) < order.index(winner):
        return reached < tally.totals[winner]
    return reached <= tally.totals[winner]
