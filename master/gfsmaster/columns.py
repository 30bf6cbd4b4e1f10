"""Dense storage for millions of objects: columns by slot, and ids that need no dictionary.

An object lives in a *slot*, an index into a set of ``array`` columns; Python objects would cost ten times the memory
(``docs/decisions/0002-columns.md``). Its id carries the slot in the low bits and a serial above::

    id = serial << 28 | slot

Invariants:

- ids only grow: each new id is larger than every id given before, and none is given twice;
- ``slot_of`` is one array access, and an id whose object is gone is told apart from the slot's next owner;
- slot 0 is never used, so 0 means "none" wherever slots are stored;
- which id comes next is a function of the state alone, so every node picks the same one.
"""

from array import array
from typing import Final

from gfsprotocol.errors import Busy, StateDiverged

SLOT_BITS: Final = 28
SLOT_MASK: Final = (1 << SLOT_BITS) - 1


class SlotTable:
    """Allocates ids and slots. A subclass adds columns in :meth:`_grow` and clears them in its own release."""

    def __init__(self) -> None:
        self.ids = array("Q", [0])
        """The id of each slot's object; 0 for a free slot."""
        self.last_id = 0
        self.free = array("I")
        """Free slots; the last one is used next."""

    def __len__(self) -> int:
        return len(self.ids) - 1 - len(self.free)

    def next_ids(self, count: int) -> list[int]:
        """The ids that the next ``count`` objects will get, in order. Busy if the table is full."""
        found = []
        last = self.last_id
        for number in range(count):
            if number < len(self.free):
                slot = self.free[len(self.free) - 1 - number]
            else:
                slot = len(self.ids) + number - len(self.free)
            if slot > SLOT_MASK:
                raise Busy(f"the table of {SLOT_MASK} objects is full")
            serial = last >> SLOT_BITS
            last = serial << SLOT_BITS | slot if slot > last & SLOT_MASK else (serial + 1) << SLOT_BITS | slot
            found.append(last)
        return found

    def next_id(self) -> int:
        """The id that the next object will get. Busy if the table is full."""
        return self.next_ids(1)[0]

    def claim(self, object_id: int) -> int:
        """The slot of a new object. StateDiverged if the logged id is not the one that this state gives next."""
        slot = self.free[-1] if self.free else len(self.ids)
        last = self.last_id
        serial = last >> SLOT_BITS
        expected = serial << SLOT_BITS | slot if slot > last & SLOT_MASK else (serial + 1) << SLOT_BITS | slot
        if object_id != expected:
            raise StateDiverged(f"the log creates id {object_id} where this state gives {expected}")
        if slot == len(self.ids):
            self.ids.append(object_id)
            self._grow()
        else:
            self.free.pop()
            self.ids[slot] = object_id
        self.last_id = object_id
        return slot

    def release(self, slot: int) -> None:
        """Frees a slot; its id is never given again."""
        self.ids[slot] = 0
        self.free.append(slot)

    def slot_of(self, object_id: int) -> int:
        """The slot of an id, or 0 if there is no such object."""
        slot = object_id & SLOT_MASK
        if slot < len(self.ids) and self.ids[slot] == object_id and object_id:
            return slot
        return 0

    def _grow(self) -> None:
        """Adds one element to every column."""


class Interned:
    """Few distinct values, each kept once and named by a small number; numbers are given in order of first use."""

    def __init__(self) -> None:
        self.values: list[tuple[int, ...]] = []
        self._numbers: dict[tuple[int, ...], int] = {}

    def number(self, value: tuple[int, ...]) -> int:
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found

    def restore(self, values: list[tuple[int, int]]) -> None:
        """Adds further values of a checkpoint, under the numbers that they had."""
        for value in values:
            self.number(value)
