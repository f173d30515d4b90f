"""One pass over the logits finds what float64 finds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from optillm_kernels import uncertainty
from optillm_kernels.uncertainty import Uncertainty, measure, reference

from optillm_local.confidence import measures
from optillm_local.core.completion import OutputTextDelta

Rows = Callable[[str, int], torch.Tensor]
FIELDS = ("logsumexp", "entropy", "varentropy", "self_certainty", "top_logprobs", "confidence")
KINDS = ("random", "rounded", "masked", "one token", "flat", "large", "peaked")


@pytest.fixture
def kernel() -> Callable[..., Uncertainty]:
    from optillm_kernels.uncertainty.triton import Tile
    from optillm_kernels.uncertainty.triton import measure as with_tile

    return lambda logits, k: with_tile(logits, k, Tile(16, 4, 2))


def assert_agree(found: Uncertainty, expected: Uncertainty, logits: torch.Tensor) -> None:
    """Ids may differ among equal logits."""
    for name in FIELDS:
        value, truth = getattr(found, name).double(), getattr(expected, name)
        torch.testing.assert_close(value, truth, rtol=2e-6, atol=4e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert torch.equal(logits.gather(1, found.top_ids), logits.gather(1, expected.top_ids))
    assert all(len(set(ids)) == len(ids) for ids in found.top_ids.tolist())


@pytest.mark.parametrize("vocab", [7, 131, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_row_is_measured_as_in_float64(
    kernel: Callable[..., Uncertainty], rows: Rows, kind: str, vocab: int
) -> None:
    logits = rows(kind, vocab)
    assert_agree(kernel(logits, 5), reference.measure(logits.double(), 5), logits)
    assert_agree(measure(logits, 5), reference.measure(logits.double(), 5), logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("k", [1, 2, 16, 40])
def test_the_tile_that_ships_measures_every_type(rows: Rows, dtype: torch.dtype, k: int) -> None:
    from optillm_kernels.uncertainty import triton

    logits = rows("random", 20011).to(dtype)
    assert_agree(triton.measure(logits, k), reference.measure(logits.double(), k), logits)


def test_rows_that_are_apart_in_memory_are_read_where_they_are(
    kernel: Callable[..., Uncertainty], rows: Rows
) -> None:
    wide = rows("random", 300)
    for logits in (wide[::2, :250], wide.T[:250, :2].T):
        assert_agree(kernel(logits, 4), reference.measure(logits.double(), 4), logits)


def test_a_row_does_not_depend_on_its_batch(kernel: Callable[..., Uncertainty], rows: Rows) -> None:
    logits = rows("random", 500)
    together, alone = kernel(logits, 8), kernel(logits[1:2], 8)
    for name in (*FIELDS, "top_ids"):
        assert torch.equal(getattr(together, name)[1:2], getattr(alone, name))


def test_of_equal_logits_the_lower_id_comes_first(kernel: Callable[..., Uncertainty], rows: Rows) -> None:
    logits = rows("rounded", 200)
    for found in (kernel(logits, 8), measure(logits, 8)):
        for row, ids in zip(logits, found.top_ids, strict=True):
            order = [(-row[i].item(), i) for i in ids.tolist()]
            assert order == sorted(order)


def test_what_is_not_a_number_is_not_hidden(kernel: Callable[..., Uncertainty], rows: Rows) -> None:
    logits = rows("random", 100)
    logits[1, 70] = math.nan
    for found in (kernel(logits, 3), measure(logits, 3)):
        for name in ("logsumexp", "entropy", "varentropy", "self_certainty", "confidence"):
            assert getattr(found, name).isnan().tolist() == [False, True, False]


def test_float64_is_measured_in_float64_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch, rows: Rows) -> None:
    monkeypatch.setattr(uncertainty, "use_triton", lambda tensor: True)
    logits = rows("random", 50).double()
    assert torch.equal(measure(logits, 3).entropy, reference.measure(logits, 3).entropy)
    assert torch.equal(measure(logits.float(), 3).top_ids, reference.measure(logits, 3).top_ids)


@pytest.mark.parametrize("vocab", [1, 2])
def test_the_smallest_vocabularies_are_measured_too(kernel: Callable[..., Uncertainty], vocab: int) -> None:
    logits = torch.arange(2.0 * vocab).view(2, vocab)
    assert_agree(kernel(logits, 5), reference.measure(logits.double(), 5), logits)


def test_no_rows_are_measured_too(kernel: Callable[..., Uncertainty]) -> None:
    assert kernel(torch.empty(0, 50), 4).top_ids.shape == (0, 4)
    assert measure(torch.empty(0, 50), 4).top_ids.shape == (0, 4)


@pytest.mark.parametrize("kind", ["random", "flat", "peaked", "large"])
@pytest.mark.parametrize("k", [1, 2, 20])
def test_the_list_alone_says_what_the_package_makes_of_it(rows: Rows, kind: str, k: int) -> None:
    found = measure(rows(kind, 64), k)
    listed = tuple(
        tuple(zip(ids, logprobs, strict=True))
        for ids, logprobs in zip(found.top_ids.tolist(), found.top_logprobs.tolist(), strict=True)
    )
    sampled = OutputTextDelta("", tuple(range(len(listed))), (0.0,) * len(listed), listed)
    entropy, varentropy, certainty = found.listed()
    np.testing.assert_allclose(entropy, measures.entropy(sampled), atol=1e-4)
    np.testing.assert_allclose(varentropy, measures.varentropy(sampled), atol=1e-4)
    np.testing.assert_allclose(certainty, measures.self_certainty(sampled), atol=1e-4)
    np.testing.assert_allclose(found.confidence, measures.token_confidence(sampled), atol=1e-4, rtol=1e-6)
    np.testing.assert_allclose(found.margin, measures.margin(sampled), atol=1e-5)
