"""Reasoning as a tree of steps, each taken by one of five actions."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from optillm_local.core.client import ModelClient
from optillm_local.core.completion import Completion
from optillm_local.core.prompt import Prompt
from optillm_local.core.usage import TokenUsage
from optillm_local.optimizers.draft import AT_AN_END
from optillm_local.optimizers.tree_search import concludes, replies
from optillm_local.prompts import render
from optillm_local.search import Node, expand, path

ACTIONS = ("think", "finish", "ask", "recheck", "rephrase")
"""A1 to A5: one thought, all the steps that remain, a sub-question, the last step again, the question reworded."""

FINISH = "finish"

NOTHING = Completion("", (), "length", TokenUsage())


@dataclass(slots=True)
class Step:
    """An action and what it led to.

    Attributes:
        action: empty for the root.
        asked: the conversation that asks for it: the question and the steps before, each behind its request.
        written: the step, once it was taken; nothing before that, and if it came to nothing.
    """

    action: str
    asked: Prompt
    written: Completion = NOTHING

    @property
    def is_last(self) -> bool:
        """Whether nothing can follow it, once it was taken."""
        is_cut = self.written.finish_reason == "abort" or not self.written.text
        return self.action == FINISH or is_cut or concludes(self.written)


class Reasoner:
    """Takes steps towards the answer to one question. What a budget or the model's context cuts off is the last.

    Args:
        depth: how many steps may follow the first.
    """

    def __init__(self, question: Prompt, client: ModelClient, depth: int) -> None:
        self._question, self._client, self._depth = question, client, depth

    def begin(self) -> Node[Step]:
        """The question, and the actions that may be taken first."""
        root = Node(Step("", self._question))
        self._offer(root)
        return root

    async def roll_out(self, node: Node[Step]) -> Node[Step]:
        """Take the step, and others after it by random actions, until an answer is stated; the last of them."""
        await self._take(node)
        while not node.state.is_last:
            self._offer(node)
            node = self._random("next", node).choice(node.children)
            await self._take(node)
        return node

    async def completed(self, end: Node[Step]) -> Completion:
        """How the model finishes a trajectory that is masked from some step on."""
        shown = self._random("mask", end).choice(path(end)[:-1])
        return await self._reply(self._asking(shown, FINISH).step("complete", name(end)))

    def _offer(self, node: Node[Step]) -> None:
        """The actions that may follow; before the last level that is only to finish."""
        actions = ACTIONS if node.depth < self._depth else (FINISH,)
        expand(node, [Step(action, self._asking(node, action)) for action in actions])

    def _asking(self, node: Node[Step], action: str) -> Prompt:
        step = node.state
        said = step.asked.then(step.written.message()) if node.parent else self._question
        return said.instructed(render("rstar/step", action=action, begun=node.depth > 0))

    async def _take(self, node: Node[Step]) -> None:
        node.state.written = await self._reply(node.state.asked.step(node.state.action, name(node)))

    async def _reply(self, asked: Prompt) -> Completion:
        found = await replies(self._client, asked, self._question, ends=AT_AN_END)
        return found[0] if found else NOTHING

    def _random(self, purpose: str, node: Node[Step]) -> Random:
        return Random(self._question.step(purpose, name(node)).sampling.seed)


def name(node: Node[Step]) -> str:
    """The actions that lead to a node: tells it from all others, whatever was tried first."""
    return "/".join(one.state.action for one in path(node)[1:])
