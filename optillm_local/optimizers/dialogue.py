"""Dialogues that the model plays on in both roles: what the user may say next, and a reply to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optillm_local.confidence import Scorer
from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.prompt import Message, Prompt
from optillm_local.core.usage import TokenUsage
from optillm_local.optimizers.tree_search import replies
from optillm_local.prompts import render

TURN_TOKENS = 1024
"""Most tokens of a turn that is written for the user, as in codelion's optillm."""

_NOTHING = Completion("", (), "stop", TokenUsage())


@dataclass(slots=True)
class Dialogue:
    """What was said so far: a conversation, and a reply to it.

    Attributes:
        place: tells the dialogue from all others, whatever is played first.
        following: the conversation that is to be answered next, once it is known.
        is_over: whether nothing can follow.
    """

    asked: Prompt
    reply: Completion = _NOTHING
    place: tuple[int, ...] = ()
    following: Prompt | None = None
    is_over: bool = False


class Player:
    """Plays dialogues on that begin with one question, and grades them. A full context ends a dialogue.

    Raises, from every method: BudgetExceeded.
    """

    def __init__(self, question: Prompt, client: ModelClient, scorer: Scorer) -> None:
        self._question, self._client, self._scorer = question, client, scorer

    def begin(self) -> Dialogue:
        """The question, not replied to."""
        return Dialogue(self._question, following=self._question)

    async def branch(self, dialogue: Dialogue, n: int) -> list[Dialogue]:
        """n replies to what follows; equal ones count once, and none are left where nothing can follow."""
        following = await self._following(dialogue)
        if following is None:
            return []
        said = await replies(self._client, following.step("reply", *dialogue.place), self._question, n=n)
        distinct = {reply.text: reply for reply in said}.values()
        dialogue.is_over = not distinct
        return [Dialogue(following, reply, (*dialogue.place, i)) for i, reply in enumerate(distinct)]

    async def play_on(self, dialogue: Dialogue, turns: int) -> Dialogue:
        """The dialogue some turns later, or where it ends."""
        for _ in range(turns):
            following = await self._following(dialogue)
            if following is None:
                break
            asked = following.step("rollout", *dialogue.place)
            said = await replies(self._client, asked, self._question)
            if not said:
                break
            dialogue = Dialogue(following, said[0], (*dialogue.place, 0))
        return dialogue

    async def grade(self, dialogue: Dialogue) -> float:
        """The score of the last reply; 0 where there is no room to find out, NaN where it was cut off."""
        [score] = await self._scorer.score(dialogue.asked, [dialogue.reply], self._client)
        return 0.0 if math.isnan(score) and dialogue.reply.finish_reason != "abort" else score

    async def _following(self, dialogue: Dialogue) -> Prompt | None:
        """The conversation with what the user says next; None where it is over."""
        if dialogue.following or dialogue.is_over:
            return dialogue.following
        said = dialogue.asked.then(dialogue.reply.message())
        asked = said.then(Message("user", render("mcts/next_turn")))
        asked = asked.step("next_turn", *dialogue.place, at_most=TURN_TOKENS)
        turns = await replies(self._client, asked, self._question)
        text = turns[0].answer.strip() if turns else ""
        dialogue.is_over = not text or text.casefold().startswith("goodbye")
        dialogue.following = None if dialogue.is_over else said.then(Message("user", text))
        return dialogue.following
