"""What comes back."""

import math

import pytest

from optillm_local import Choice, Completion, Message, Score, TokenUsage
from optillm_local.core.completion import Completed, OutputTextDelta, Transcript

NOTHING = TokenUsage()


def completion(**fields: object) -> Completion:
    return Completion(**{"text": "so 4", "token_ids": (1, 2), "finish_reason": "stop", "usage": NOTHING, **fields})


def test_the_mean_logprob_is_nats_per_token() -> None:
    assert completion(logprobs=(-1.0, -2.0)).mean_logprob == -1.5


def test_tokens_that_the_model_did_not_choose_are_left_out_of_the_mean() -> None:
    assert completion(logprobs=(-1.0, math.nan, -2.0)).mean_logprob == -1.5
    assert math.isnan(completion(logprobs=(math.nan,)).mean_logprob)


def test_without_logprobs_likelihood_and_confidence_are_no_number() -> None:
    assert math.isnan(completion().mean_logprob) and math.isnan(completion().confidence)


def test_confidence_is_the_mean_over_tokens_of_minus_the_mean_of_the_top() -> None:
    tops = (((1, -1.0), (2, -3.0)), (), ((1, -4.0),))
    assert completion(top_logprobs=tops).confidence == (2.0 + 4.0) / 2


def test_a_surer_token_is_more_confident() -> None:
    sure, unsure = (((1, math.log(p)), (2, math.log(1 - p))) for p in (0.99, 0.5))
    assert completion(top_logprobs=(sure,)).confidence > completion(top_logprobs=(unsure,)).confidence


def test_a_message_continues_from_the_tokens_that_were_generated() -> None:
    assert completion().message() == Message("assistant", "so 4", (1, 2))


def test_the_best_option_is_the_most_probable_and_of_equals_the_first() -> None:
    assert Choice({"No": 0.2, "Yes": 0.8}, 1.0, NOTHING).best == "Yes"
    assert Choice({"No": 0.5, "Yes": 0.5}, 1.0, NOTHING).best == "No"
    assert Choice({"No": 0.2, "Yes": 0.8}, 1.0, NOTHING)["No"] == 0.2


def test_a_score_sums_its_tokens() -> None:
    score = Score((1, 2), (-1.0, -2.0), NOTHING)
    assert (score.total, score.mean) == (-3.0, -1.5)
    assert Score((), (), NOTHING).mean == 0


@pytest.mark.parametrize(("reason", "discarded"), [("stop", 0), ("length", 0), ("abort", 2)])
def test_deltas_add_up_to_a_completion_and_only_an_aborted_one_is_discarded(reason: str, discarded: int) -> None:
    transcript = Transcript()
    transcript.add(OutputTextDelta("so", (1,), (-1.0,), (((1, -1.0),),)))
    transcript.add(OutputTextDelta(" 4", (2,), (-2.0,), (((2, -2.0),),)))
    done = Completed(transcript.finish(reason, prompt_tokens=3, seed=9))
    usage = TokenUsage(prompt=3, completion=2, discarded=discarded)
    tops = (((1, -1.0),), ((2, -2.0),))
    assert done.completion == Completion("so 4", (1, 2), reason, usage, (-1.0, -2.0), tops, answer="so 4", seed=9)
    assert (done.usage, done.finish_reason) == (usage, reason)
