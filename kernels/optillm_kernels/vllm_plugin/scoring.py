"""Scores given tokens of a prompt with `optillm_kernels.scoring` in either model runner of vLLM.

vLLM makes the logits of every prompt row in the model's type and a float32 log-softmax of all of them. Here only
the rows asked for are multiplied with the head, in float32, and reduced on the way. What is not covered is left to
vLLM: LoRA, tensor parallelism, quantised or biased heads, more than the given token per row, and models whose
logits turn out to be something else than their head times the hidden states.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch

from optillm_kernels.scoring import Scores, score

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

FIRST_ROW = "optillm_first_row"
"""In a request's `extra_args`: the first prompt row to score, for the V1 runner, which has no setting for it.

Row i is the one that predicts token i + 1.
"""

_TRIED = 4  # tokens at either end that a head is tried on
_TOLERANCE = 1 / 64  # of the largest logit: four units in the last place of bfloat16


@dataclass(frozen=True)
class Head:
    """An LM head that `score` covers: logits = scale * soft_cap * tanh(hidden @ weight.T / soft_cap)."""

    weight: Float[Tensor, "vocab width"]
    scale: float
    soft_cap: float | None

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """The head of one of vLLM's models; None where it is not covered."""
        from vllm.model_executor.layers.linear import UnquantizedLinearMethod
        from vllm.model_executor.layers.logits_processor import LogitsProcessor
        from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

        made_by: Any = getattr(model, "logits_processor", None)
        tied = getattr(getattr(model, "model", None), "embed_tokens", None)
        layer: Any = getattr(model, "lm_head", tied)
        plain = (
            type(made_by) is LogitsProcessor  # the one of LoRA is a subclass
            and not made_by.logits_as_input
            and made_by.scale > 0
            and type(getattr(layer, "quant_method", None)) in (UnquantizedEmbeddingMethod, UnquantizedLinearMethod)
            and getattr(layer, "tp_size", 0) == 1
            and getattr(layer, "bias", None) is None
        )
        if not plain:
            return None
        return cls(layer.weight[: made_by.org_vocab_size], made_by.scale, made_by.soft_cap)

    def score(self, hidden: Float[Tensor, "tokens width"], targets: Int[Tensor, " tokens"]) -> Scores:
        """Statistics of the given tokens."""
        # vLLM caps first and scales then; `score` scales first.
        cap = None if self.soft_cap is None else self.soft_cap * self.scale
        return score(hidden, self.weight, targets, scale=self.scale, soft_cap=cap)

    def makes_logits_of(self, model: Any, hidden: Float[Tensor, "row width"]) -> bool:
        """Whether the model's logits of a row are what this head gives: some models do more on the way."""
        theirs = model.compute_logits(hidden)[0].float()
        likeliest, unlikeliest = theirs.topk(_TRIED).indices, theirs.topk(_TRIED, largest=False).indices
        tried = torch.cat([likeliest, unlikeliest])
        ours = self.score(hidden.repeat(len(tried), 1), tried)
        off = (ours.logprob - theirs.log_softmax(0)[tried]).abs().max()
        return theirs.shape[0] == self.weight.shape[0] and bool(off <= _TOLERANCE * theirs.abs().max())


class Scorer:
    """The head of a model runner, once it is known to be covered.

    Attributes:
        rows_scored: prompt rows that were scored here since the engine started.
    """

    def __init__(self, runner: Any) -> None:
        self.rows_scored = 0
        self._runner = runner
        self._head: Head | None = None
        self._looked = False

    def covers(self, hidden: Float[Tensor, "tokens width"]) -> bool:
        """Whether scores can be had here. The first call tries one row of the hidden states."""
        if not self._looked and len(hidden):
            self._looked = True
            config, model = self._runner.vllm_config, self._runner.get_model()
            if config.lora_config is None and config.model_config.logprobs_mode.endswith("_logprobs"):
                head = Head.of(model)
                self._head = head if head and head.makes_logits_of(model, hidden[:1]) else None
        return self._head is not None

    def score(self, hidden: Float[Tensor, "tokens width"], targets: Int[Tensor, " tokens"]) -> Scores:
        """Statistics of the given tokens.

        Raises:
            RuntimeError: the head is not covered; ask first.
        """
        if self._head is None:
            raise RuntimeError("the head of this model is not covered; leave its scores to vLLM")
        self.rows_scored += len(hidden)
        return self._head.score(hidden, targets)


class PromptScores:
    """Mixin for vLLM's V1 `GPUModelRunner`: requests of `prompt_logprobs=0` are scored here.

    Rows that nobody asked for, or that came out of the prefix cache, are NaN with rank 0.
    """

    @cached_property
    def scorer(self) -> Scorer:
        """What scores; it counts its rows."""
        return Scorer(self)

    def _get_prompt_logprobs_dict(
        self: Any, hidden_states: Float[Tensor, "tokens width"], num_scheduled_tokens: dict[str, int]
    ) -> dict[str, Any]:
        waiting: dict[str, int] = self.num_prompt_logprobs
        ours = [name for name, k in waiting.items() if k == 0 and self.requests[name].prompt_token_ids is not None]
        if not ours or not self.scorer.covers(hidden_states):
            return super()._get_prompt_logprobs_dict(  # type: ignore[misc,no-any-return]
                hidden_states, num_scheduled_tokens
            )
        for name in ours:
            del waiting[name]
        found: dict[str, Any] = super()._get_prompt_logprobs_dict(  # type: ignore[misc]
            hidden_states, num_scheduled_tokens
        )
        for name in ours:
            rows = num_scheduled_tokens.get(name, 0)
            if rows and self._score_prompt(name, hidden_states, rows):
                found[name] = self.requests[name].in_progress_prompt_logprobs_cpu
                self.requests[name].in_progress_prompt_logprobs_cpu = None
            else:  # preempted, or more of the prompt is to come
                waiting[name] = 0
        if found:
            self._sync_device()
        return found

    def _score_prompt(self: Any, name: str, hidden_states: Float[Tensor, "tokens width"], scheduled: int) -> bool:
        """Score what a step computed of a prompt; whether that was the last of it."""
        request = self.requests[name]
        prompt: list[int] = request.prompt_token_ids
        if request.in_progress_prompt_logprobs_cpu is None:
            request.in_progress_prompt_logprobs_cpu = _unscored(prompt)
        begin: int = request.num_computed_tokens
        first = max(begin, (request.sampling_params.extra_args or {}).get(FIRST_ROW, 0))
        end = min(begin + scheduled, len(prompt) - 1)  # the last row predicts the first token of the answer
        if first < end:
            start = int(self.query_start_loc.np[self.input_batch.req_id_to_index[name]]) - begin
            targets = torch.tensor(prompt[first + 1 : end + 1], device=hidden_states.device)
            scores = self.scorer.score(hidden_states[start + first : start + end], targets)
            kept = request.in_progress_prompt_logprobs_cpu
            kept.logprobs[first:end, 0].copy_(scores.logprob, non_blocking=True)
            kept.selected_token_ranks[first:end].copy_(scores.rank, non_blocking=True)
        # Scores return with the step that computes the last token: only that has an output to go along with.
        return begin + scheduled >= len(prompt)


def _unscored(prompt: list[int]) -> Any:
    """vLLM's tensors for the rows of a prompt. They are handed over whole, so nothing is left undefined."""
    from vllm.v1.outputs import LogprobsTensors

    rows = LogprobsTensors.empty_cpu(len(prompt) - 1, 1)
    rows.logprob_token_ids[:, 0] = torch.tensor(prompt[1:])
    rows.logprobs.fill_(torch.nan)
    rows.selected_token_ranks.zero_()
    return rows


class TokenScores:
    """Mixin for the V2 runner's `PromptLogprobsWorker`: rows with one given token are scored here."""

    scorer: Scorer

    def compute_prompt_token_id_logprobs(
        self: Any, logits_fn: Any, hidden_states: Float[Tensor, "tokens width"], *args: Any
    ) -> dict[str, Any]:
        """vLLM's, which finds the rows and keeps the accounts, with something else in the place of the logits."""
        if not self.token_id_scores or not self.scorer.covers(hidden_states):
            return super().compute_prompt_token_id_logprobs(  # type: ignore[misc,no-any-return]
                logits_fn, hidden_states, *args
            )
        mode, self.logprobs_mode = self.logprobs_mode, "raw_logits"  # in which it gathers and changes nothing
        try:
            return super().compute_prompt_token_id_logprobs(  # type: ignore[misc,no-any-return]
                lambda hidden: _Rows(self.scorer, hidden, logits_fn), hidden_states, *args
            )
        finally:
            self.logprobs_mode = mode


@dataclass(frozen=True)
class _Rows:
    """Log-probabilities of rows that are not there yet. Like logits, of which vLLM only gathers given tokens."""

    scorer: Scorer
    hidden: Float[Tensor, "tokens width"]
    logits_fn: Any

    def gather(self, dim: int, ids: Int[Tensor, "tokens n"]) -> Float[Tensor, "tokens n"]:
        if ids.shape[1] == 1:
            return self.scorer.score(self.hidden, ids[:, 0]).logprob[:, None]
        found: Tensor = self.logits_fn(self.hidden).float().log_softmax(dim).gather(dim, ids)
        return found


def install(runner: Any) -> None:
    """Let a model runner of either kind score here, once its model is loaded."""
    worker = getattr(runner, "prompt_logprobs_worker", None)
    if worker is not None:
        worker.scorer = Scorer(runner)
        _mix(TokenScores, worker)
    elif hasattr(runner, "_get_prompt_logprobs_dict"):
        _mix(PromptScores, runner)


def _mix(mixin: type, target: Any) -> None:
    if not isinstance(target, mixin):
        target.__class__ = type(f"{mixin.__name__}{type(target).__name__}", (mixin, type(target)), {})
