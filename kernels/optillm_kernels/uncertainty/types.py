"""What is measured of a row of logits, and how a token is drawn from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Uncertainty:
    """How sure a model is of its next token; natural logarithms throughout.

    Attributes:
        logsumexp: of all logits.
        entropy: H = -sum_v p_v log p_v, in nats.
        varentropy: the variance of -log p_v under p, in nats squared.
        self_certainty: KL(uniform || p) = -mean_v log(V p_v), in nats; infinite where a token has no probability.
            Source: Kang, Zhao and Song, "Scalable Best-of-N Selection for Large Language Models via
            Self-Certainty", 2025, section 3.
        top_ids: the k likeliest tokens, likeliest first; of equal ones the lower id first.
        top_logprobs: their log-probabilities.
        confidence: minus the mean of the k log-probabilities. Source: Fu et al., "Deep Think with Confidence",
            2025, section 2.
    """

    logsumexp: Float[Tensor, " rows"]
    entropy: Float[Tensor, " rows"]
    varentropy: Float[Tensor, " rows"]
    self_certainty: Float[Tensor, " rows"]
    top_ids: Int[Tensor, "rows k"]
    top_logprobs: Float[Tensor, "rows k"]
    confidence: Float[Tensor, " rows"]

    @property
    def margin(self) -> Float[Tensor, " rows"]:
        """P(likeliest) - P(second likeliest); NaN where only one is listed."""
        if self.top_logprobs.shape[1] < 2:
            return torch.full_like(self.confidence, math.nan)
        best = self.top_logprobs[:, :2].exp()
        return best[:, 0] - best[:, 1]

    def listed(self) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Entropy, varentropy and self-certainty as someone computes them who sees only the k likeliest tokens.

        For entropy and varentropy all other tokens count as one that has the rest of the mass. Self-certainty is
        of the k tokens alone, renormalised: log(their mass) - log k + confidence.
        """
        table = self.top_logprobs.double()
        mass = table.exp().sum(dim=1)
        surprisal = -torch.cat([table, (1 - mass).clamp(0, 1).log()[:, None]], dim=1)
        weights = (-surprisal).exp()
        surprisal = surprisal.masked_fill(weights == 0, 0.0)
        entropy = (weights * surprisal).sum(dim=1)
        varentropy = (weights * (surprisal - entropy[:, None]) ** 2).sum(dim=1)
        certainty = (mass.log() - math.log(table.shape[1]) - table.mean(dim=1)).clamp(min=0)
        dtype = self.confidence.dtype
        return entropy.to(dtype), varentropy.to(dtype), certainty.to(dtype)


@dataclass(frozen=True)
class Draw:
    """How a token is drawn from each row; cut in vLLM's order: temperature, min-p, top-k, top-p.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: keeps the likeliest tokens up to this mass of what min-p and top-k leave; 1 or more keeps all.
        min_p: keeps tokens of at least this share of the likeliest one's probability; 0 keeps all.
        top_k: keeps so many tokens; below 1, or the size of the vocabulary or more, keeps all.
        seed, position: decide the noise: the same two, the same token, whatever else is in the batch.
    """

    temperature: Float[Tensor, " rows"]
    top_p: Float[Tensor, " rows"]
    min_p: Float[Tensor, " rows"]
    top_k: Int[Tensor, " rows"]
    seed: Int[Tensor, " rows"]
    position: Int[Tensor, " rows"]


@dataclass(frozen=True)
class Windowed:
    """Confidence over the last tokens of a sequence.

    Attributes:
        mean: of the last `window` tokens, or of all so far if they are fewer; NaN before the first.
        lowest: the least mean of a whole window so far; the mean before there is one.
        below: whether the mean of a whole window has ever been below the threshold.
    """

    mean: Float[Tensor, " rows"]
    lowest: Float[Tensor, " rows"]
    below: Bool[Tensor, " rows"]
