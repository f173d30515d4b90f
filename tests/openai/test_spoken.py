"""Pieces of a text add up to the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from optillm_local import Prompt, ScriptedClient, create
from optillm_local.core.span import open_run
from optillm_local.core.thinking import CLOSE, OPEN, split_thinking
from optillm_local.openai.spoken import Narrator, Spoken

TEXTS = st.lists(st.sampled_from([OPEN, CLOSE, "<", "<th", ">", " ", "\n", "a", "b c"]), max_size=8).map("".join)


@given(text=TEXTS, size=st.integers(1, 5), opened=st.booleans())
def test_what_is_told_in_pieces_is_what_the_whole_splits_into(text: str, size: int, opened: bool) -> None:
    if not opened and CLOSE in text.partition(OPEN)[0]:
        return  # that it was a thought is known only when it is over
    if opened and OPEN in text:
        return  # a tag within a thought
    spoken = Spoken(opened=opened)
    pieces = [spoken.add(text[at : at + size]) for at in range(0, len(text), size)]
    pieces.append(spoken.add("", is_last=True))
    thought, answer = ("".join(part) for part in zip(*pieces, strict=True))
    assert (thought, answer) == split_thinking(text, opened=opened)


async def test_sequences_that_decode_side_by_side_are_told_one_after_the_other() -> None:
    told: list[str] = []
    client = ScriptedClient(lambda prompt: " ".join([f"s{prompt.sampling.seed}"] * 12))
    with open_run(watchers=[Narrator(told.append)]):
        await create("best_of_n", n=3).optimize(Prompt.of("Which?", seed=0), client)
    whole = [" ".join([f"s{seed}"] * 12) for seed in range(3)]
    assert "".join(told) == "".join(f"[generate] {text}\n\n" for text in whole)
    assert told[1] == "s0"  # as it was decoded
