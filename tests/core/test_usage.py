"""Counts add up."""

from hypothesis import given
from hypothesis import strategies as st

from optillm_local import EngineStats, TokenUsage

COUNT = st.integers(0, 10**9)
USAGE = st.builds(TokenUsage, *[COUNT] * 5)
STATS = st.builds(EngineStats, *[COUNT] * 8, st.floats(0, 1))
NOTHING = TokenUsage()


@given(USAGE, USAGE, USAGE)
def test_usage_adds_in_any_order_and_nothing_adds_nothing(a: TokenUsage, b: TokenUsage, c: TokenUsage) -> None:
    assert (a + b) + c == a + (b + c) == c + b + a
    assert a + NOTHING == a == NOTHING + a


@given(st.lists(USAGE, max_size=4))
def test_every_count_of_a_sum_is_the_sum_of_that_count(parts: list[TokenUsage]) -> None:
    whole = sum(parts, start=NOTHING).as_dict()
    assert whole == {name: sum(part.as_dict()[name] for part in parts) for name in whole}
    assert whole["total"] == whole["prompt"] + whole["completion"]


@given(STATS, STATS, STATS)
def test_what_happened_in_two_stretches_is_what_happened_in_both(
    start: EngineStats, middle: EngineStats, end: EngineStats
) -> None:
    first, second, both = middle - start, end - middle, end - start
    for count in ("steps", "computed_prompt_tokens", "cached_prompt_tokens", "generated_tokens", "preemptions"):
        assert getattr(first, count) + getattr(second, count) == getattr(both, count)
    for gauge in ("peak_running", "running", "waiting", "kv_cache_usage"):
        assert getattr(both, gauge) == getattr(end, gauge)


def test_the_mean_batch_is_tokens_per_step() -> None:
    spent = EngineStats(steps=30, generated_tokens=110) - EngineStats(steps=10, generated_tokens=60)
    assert spent.mean_batch == spent.as_dict()["mean_batch"] == 2.5
    assert EngineStats().mean_batch == 0
