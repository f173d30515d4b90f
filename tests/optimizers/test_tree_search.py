"""Visits overlap and are told in order; a reply concludes where it marks its answer."""

from collections.abc import Sequence
from itertools import islice

import pytest

from optillm_local import Prompt, ScriptedClient
from optillm_local.core.errors import NoSolutions
from optillm_local.optimizers.tree_search import concludes, visits

LENGTHS = [2, 6, 2, 2]


async def test_a_visit_begins_once_the_earliest_is_told_however_long_the_others_take() -> None:
    client = ScriptedClient(lambda prompt: " word" * int(prompt.question), seconds_per_token=1.0)
    numbers, begun, told = iter(range(9)), [], []

    def select(room: int) -> Sequence[int]:
        chosen = list(islice(numbers, room))
        begun.extend((client.clock(), number) for number in chosen)
        return chosen

    await visits(4, 2, select, lambda n: client.sample(Prompt.of(str(LENGTHS[n]))), lambda n, _: told.append(n))
    assert begun == [(0, 0), (0, 1), (2, 2), (6, 3)] and told == [0, 1, 2, 3]


async def test_where_there_is_little_to_select_fewer_run_side_by_side() -> None:
    client = ScriptedClient(lambda prompt: "word")
    free = {"a", "b"}

    def select(room: int) -> list[str]:
        return [free.pop() for _ in range(min(room, len(free)))]

    await visits(7, 5, select, lambda item: client.sample(Prompt.of(item)), lambda item, _: free.add(item))
    assert len(client.prompts) == 7 and client.peak_concurrency == 2


async def test_a_visit_that_fails_ends_the_others_with_its_error() -> None:
    client = ScriptedClient(lambda prompt: "word " * 9)

    async def visit(number: int) -> None:
        if number:
            raise NoSolutions("nothing")
        await client.sample(Prompt.of("Go on."))

    with pytest.raises(NoSolutions):
        await visits(2, 2, lambda room: range(room), visit, lambda number, _: None)
    assert client.stats().running == 0


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("So it is 4.\nFinal answer: 4", True),
        ("**Final Answer:** 4", True),
        ("### Final answer\n4", True),
        ("The final answer is 4.", True),
        (r"So \boxed{4}", True),
        ("Next we need the final answer to part one.", False),
        ("The answer is 4.", False),
        ("<think>The final answer is 4</think>Hm.", False),
        ("", False),
    ],
)
async def test_a_reply_concludes_where_it_marks_the_final_answer(text: str, ends: bool) -> None:
    [reply] = await ScriptedClient([text]).sample(Prompt.of("What is it?"))
    assert concludes(reply) == ends
