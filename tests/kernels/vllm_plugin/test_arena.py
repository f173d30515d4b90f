"""Rows that one process writes and another reads, and who owns which."""

import multiprocessing

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from optillm_kernels.vllm_plugin.arena import COLUMNS, SPARE, Arena, attached


def write(path: str) -> None:
    attached(path)[5] = np.arange(COLUMNS)


def test_what_another_process_writes_is_there() -> None:
    arena = Arena(8)
    child = multiprocessing.get_context("fork").Process(target=write, args=(arena.path,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert arena.values[5].tolist() == list(range(COLUMNS))
    assert not arena.values[:5].any()
    arena.close()


def test_a_closed_arena_cannot_be_attached_to_but_what_has_it_keeps_it() -> None:
    arena = Arena(4)
    rows = attached(arena.path)
    arena.close()
    arena.close()
    rows[2] = 7.0
    assert arena.values[2, 0] == 7.0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=40))
def test_rows_have_one_owner_and_come_back(steps: list[tuple[bool, int]]) -> None:
    arena, owned = Arena(40), list[range]()
    for takes, rows in steps:
        if takes and (first := arena.take(rows)) is not None:
            owned.append(range(first, first + rows))
        elif not takes and owned:
            back = owned.pop(rows % len(owned))
            arena.give_back(back.start, len(back))
    taken = [row for one in owned for row in one]
    assert len(set(taken)) == len(taken) and set(taken) <= set(range(SPARE + 1, 40))
    for one in owned:
        arena.give_back(one.start, len(one))
    assert arena.take(39) == SPARE + 1
    assert arena.take(1) is None
    arena.close()
