"""Ids only grow, are never used twice, and find their object without a dictionary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsmaster.columns import SlotTable
from gfsprotocol.errors import StateDiverged


@given(st.lists(st.integers(min_value=-1, max_value=30), max_size=200))
def test_ids_grow_and_stale_ids_find_nothing(steps: list[int]) -> None:
    table = SlotTable()
    alive: dict[int, int] = {}
    dead: list[int] = []
    last = 0
    for step in steps:
        if step < 0 or not alive:
            new = table.next_id()
            assert new > last
            last = new
            alive[new] = table.claim(new)
        else:
            victim = sorted(alive)[step % len(alive)]
            table.release(alive.pop(victim))
            dead.append(victim)
    assert {table.slot_of(object_id): object_id for object_id in alive} == {s: i for i, s in alive.items()}
    assert all(table.slot_of(object_id) == 0 for object_id in dead)
    assert len(table) == len(alive)


@given(st.integers(0, 5), st.integers(1, 6))
def test_ids_planned_ahead_are_the_ones_given(freed: int, count: int) -> None:
    table = SlotTable()
    slots = [table.claim(table.next_id()) for _ in range(6)]
    for slot in slots[:freed]:
        table.release(slot)
    for planned in table.next_ids(count):
        table.claim(planned)


def test_an_id_that_this_state_would_not_give_is_divergence() -> None:
    table = SlotTable()
    with pytest.raises(StateDiverged):
        table.claim(table.next_id() + 1)
