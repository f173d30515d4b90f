"""Reads log-probabilities of given tokens, from one prefill that shares the cached prefix.

vLLM has two model runners, and what is right differs between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optillm_local.core.usage import TokenUsage
from optillm_local.engine.batch import Batch

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

_MAX_LABELS = 128  # vLLM's limit of ids per label read

Submit = Callable[[Sequence[list[int]], Sequence["SamplingParams"]], Batch]
Ids = tuple[int, ...]


def _params(**how: Any) -> SamplingParams:
    from vllm import SamplingParams

    return SamplingParams(max_tokens=1, temperature=0.0, detokenize=False, flat_logprobs=True, **how)


def usage_of(output: RequestOutput) -> TokenUsage:
    """Tokens of a read: the one token it must generate is thrown away."""
    generated = len(output.outputs[0].token_ids)
    return TokenUsage(len(output.prompt_token_ids or ()), output.num_cached_tokens or 0, generated, 0, generated)


async def read_sequences(
    submit: Submit, prefix: list[int], sequences: Sequence[Ids]
) -> tuple[dict[Ids, float], TokenUsage]:
    """log P(sequence | prefix) of short token sequences.

    The sequences form a tree. Each inner node is one request, whose next-token log-probabilities give all its
    branches at once; the nodes share the prefix and go into the engine together.
    """
    branches: dict[Ids, set[int]] = {}
    for sequence in sequences:
        for depth, token in enumerate(sequence):
            branches.setdefault(sequence[:depth], set()).add(token)
    reads = [
        (node, labels[start : start + _MAX_LABELS])
        for node, tokens in branches.items()
        for labels in [sorted(tokens)]
        for start in range(0, len(labels), _MAX_LABELS)
    ]
    outputs = await submit(
        [[*prefix, *node] for node, _ in reads], [_params(logprob_token_ids=labels) for _, labels in reads]
    ).finish()
    logprob: dict[Ids, float] = {}
    for (node, labels), output in zip(reads, outputs, strict=True):
        flat: Any = output.outputs[0].logprobs
        found = dict(zip(flat.token_ids, flat.logprobs, strict=True))
        logprob |= {(*node, token): found[token] for token in labels}
    totals = {s: sum(logprob[s[: depth + 1]] for depth in range(len(s))) for s in sequences}
    return totals, sum(map(usage_of, outputs), start=TokenUsage())


async def score_sequences(
    submit: Submit, prefix: list[int], sequences: Sequence[Ids], *, runner_v2: bool
) -> list[tuple[tuple[float, ...], TokenUsage]]:
    """log P of each token of each sequence after the prefix, in one prefill per sequence.

    A request that finds more than `len(prefix) - 1` tokens in the cache has not computed the first scores: the
    V2 runner drops them, the V1 runner returns uninitialised memory. Such a request is asked once more, without
    the cache.
    """
    scored: dict[int, tuple[float, ...]] = {}
    usage = [TokenUsage()] * len(sequences)
    for fresh in (False, True):
        missing = [i for i in range(len(sequences)) if i not in scored]
        if not missing:
            break
        params = [_score_params(prefix, sequences[i], fresh, runner_v2) for i in missing]
        outputs = await submit([[*prefix, *sequences[i]] for i in missing], params).finish()
        for index, output in zip(missing, outputs, strict=True):
            usage[index] += usage_of(output)
            if fresh or (output.num_cached_tokens or 0) <= len(prefix) - 1:
                scored[index] = _scores(output, prefix, sequences[index], runner_v2)
    return [(scored[i], usage[i]) for i in range(len(sequences))]


def _score_params(prefix: list[int], sequence: Ids, fresh: bool, runner_v2: bool) -> SamplingParams:
    if runner_v2:  # only the rows asked for go through the LM head
        return _params(
            prompt_logprob_token_ids=[[token] for token in sequence],
            prompt_logprob_start=len(prefix) - 1,
            skip_reading_prefix_cache=fresh,
        )
    from optillm_kernels.vllm_plugin.scoring import FIRST_ROW

    first_row = {FIRST_ROW: len(prefix) - 1}
    return _params(prompt_logprobs=0, extra_args=first_row, skip_reading_prefix_cache=fresh)


def _scores(output: RequestOutput, prefix: list[int], sequence: Ids, runner_v2: bool) -> tuple[float, ...]:
    if runner_v2:
        return tuple(float(row[0]) for row in output.prompt_token_id_logprobs)
    flat: Any = output.prompt_logprobs  # of each position of the prompt, the token that stands there first
    starts = flat.start_indices[len(prefix) : len(prefix) + len(sequence)]
    return tuple(flat.logprobs[start] for start in starts)


def variants(option: str) -> tuple[str, ...]:
    """The spellings that count as an option: as it is, lower, upper and title case, each with a space before."""
    word = option.strip()
    cases = dict.fromkeys((word, word.lower(), word.upper(), word[:1].upper() + word[1:]))
    return tuple(space + case for case in cases for space in ("", " "))
