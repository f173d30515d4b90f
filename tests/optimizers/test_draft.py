"""Answers that are written in pieces read as if they had been written in one go."""

import math
from collections.abc import Sequence

import pytest

from optillm_local import Budget, Message, Prompt, ScriptedClient
from optillm_local.clients import Reply
from optillm_local.core.budget import Meter
from optillm_local.core.errors import BudgetExceeded, RequestRejected
from optillm_local.core.span import open_run
from optillm_local.optimizers.draft import Draft
from optillm_local.optimizers.pieces import beginning, joined, trimmed

QUESTION = Prompt.of("What is 3 * 4?", seed=0, max_tokens=20)


async def test_words_are_put_in_between_what_the_model_says() -> None:
    client = ScriptedClient([Reply("So three", -0.5), Reply(" fours: 12.", -0.1)])
    draft = await Draft.of(QUESTION, client).written_on("begin")
    draft = await draft.plus(" times four").written_on("go on")
    whole = draft.completion
    assert whole.text == client.decode(whole.token_ids) == "So three times four fours: 12."
    assert client.prompts[1].messages[1] == Message("assistant", "So three times four", whole.token_ids[:4])
    assert [math.isnan(one) for one in whole.logprobs] == [False, False, True, True, False, False]
    assert whole.mean_logprob == pytest.approx(-0.3)
    assert (whole.usage.completion, draft.tokens, draft.room) == (4, 6, 14)


async def test_thoughts_of_all_pieces_are_told_from_the_answer() -> None:
    client = ScriptedClient([" hm</think>", "12"])
    draft = await Draft.of(QUESTION, client).plus("<think>\n").written_on("think", stop=("</think>",))
    draft = await draft.plus("</think>\n").written_on("answer")
    assert (draft.completion.reasoning, draft.completion.answer) == ("hm", "12")
    assert draft.completion.usage.reasoning == 1


async def test_what_the_user_began_goes_before_and_is_not_part_of_the_answer() -> None:
    client = ScriptedClient([" is", " 12."])
    begun = QUESTION.then(Message("assistant", "The answer"))
    draft = await (await Draft.of(begun, client).written_on("a")).written_on("b")
    assert draft.completion.text == " is 12."
    assert [p.messages[-1].content for p in client.prompts] == ["The answer", "The answer is"]
    assert all(len(p.messages) == 2 for p in client.prompts)


async def test_the_answer_is_no_longer_than_it_may_be() -> None:
    client = ScriptedClient(["word " * 15, "word " * 15])
    draft = await (await Draft.of(QUESTION, client).written_on("a")).written_on("b")
    assert (draft.tokens, draft.completion.finish_reason, draft.is_over) == (20, "length", True)


@pytest.mark.parametrize("text", ["", " ", "one", "one two three\n"])
async def test_trimming_keeps_the_text_and_drops_what_ended_it(text: str) -> None:
    client = ScriptedClient([text + "</think> and more"])
    [piece] = await client.sample(QUESTION, stop=("</think>",))
    kept = trimmed(piece, client)
    assert (kept.text, client.decode(kept.token_ids)) == (text, text)
    assert len(kept.logprobs) == len(kept.token_ids)


async def test_a_piece_without_ids_gets_those_of_its_text() -> None:
    client = ScriptedClient([])
    piece = trimmed(joined([]), client)
    assert piece.token_ids == () and piece.text == ""


async def test_a_beginning_counts_the_rest_as_discarded() -> None:
    client = ScriptedClient(["one two three four"])
    [piece] = await client.sample(QUESTION)
    kept = beginning(piece, 2, client)
    assert (kept.text, kept.finish_reason, kept.usage.discarded) == ("one two", "length", 2)
    assert len(kept.token_ids) == len(kept.logprobs) == 2


async def test_a_spent_budget_cuts_a_draft_off_and_refuses_an_empty_one() -> None:
    client = ScriptedClient(["word " * 15] * 3)
    with open_run(meter=Meter(Budget(tokens=5), client.clock())):
        draft = await Draft.of(QUESTION, client).plus("So").written_on("a")
        cut = await draft.written_on("b")
        assert cut.is_aborted and cut.completion.text == draft.completion.text
        with pytest.raises(BudgetExceeded):
            await Draft.of(QUESTION, client).plus("So").written_on("a")


async def test_a_value_that_cannot_work_is_not_mistaken_for_an_end() -> None:
    with pytest.raises(RequestRejected, match="temperature"):
        await Draft.of(QUESTION, ScriptedClient(["a"])).written_on("a", temperature=-1.0)


class DropsTheFirstSpace(ScriptedClient):
    """As tokenizers of the SentencePiece kind do."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return super().decode(token_ids).removeprefix(" ")


@pytest.mark.parametrize("kind", [ScriptedClient, DropsTheFirstSpace])
async def test_pieces_keep_the_space_that_they_begin_with(kind: type[ScriptedClient]) -> None:
    client = kind([" one two three END"])
    [piece] = await client.sample(QUESTION, stop=(" END",))
    assert (trimmed(piece, client).text, len(trimmed(piece, client).token_ids)) == (" one two three", 3)
    assert [beginning(piece, tokens, client).text for tokens in (1, 2)] == [" one", " one two"]


async def test_a_piece_that_a_stop_text_ends_at_once_has_no_tokens() -> None:
    client = ScriptedClient(["\n\n"])
    [piece] = await client.sample(QUESTION, stop=("\n\n",))
    assert (piece.text, trimmed(piece, client).token_ids) == ("", ())
