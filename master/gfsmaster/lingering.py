"""Removed files that linger: for some seconds the master itself holds a file that another client may still read.

A file goes with its last name and its last writer. A client that has it open for reading is no writer; it is told of
the removal, answers with Hold and is one from then on. Until that answer can have come the master is registered as a
writer under a name of its own, in the same record as the removal, so a new leader finds such files and lets them go,
too. While it is not known who has what open, because a leader is new or a client that watches has to begin anew, every
file lingers: clients show the leader what they have open as soon as they find it. Pure: time comes in, operations go
out.
"""

import math
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from gfsmaster import operations as op
from gfsmaster.state import State

KEEPER: Final = b"gfs master keeps"
"""The master's name among the writers. Clients' names are random, so none has it."""
LINGER_SECONDS: Final = 5.0
LINGERING_MAX: Final = 100_000
"""Of more than so many files the oldest go at once."""
ENDED_PER_TICK_MAX: Final = 500


class Lingering:
    """Which files the master holds, and until when."""

    def __init__(self, state: State, now: float) -> None:
        """``now`` is monotonic seconds: what an earlier leader held is let go from then on."""
        self._state = state
        until = now + LINGER_SECONDS
        self._until = {state.inodes.ids[slot]: until for slot in state.writers.files_of(KEEPER)}
        """By inode id, the earliest first."""
        self._in_doubt_until = -math.inf
        self._losers: dict[type, Callable[[Any], Iterable[int]]] = {
            op.RemoveName: self._removed,
            op.Move: self._replaced,
            op.PurgeTrash: self._purged,
            op.Reclaim: self._reclaimed,
        }
        """Which files an operation may take the last name from: inode slots."""

    def doubt(self, now: float) -> None:
        """What somebody was shown before is not known: for a while every file that loses its last name is kept."""
        self._in_doubt_until = now + LINGER_SECONDS

    def keep(self, plan: op.Operations, others_keep: Callable[[int], bool], now: float) -> op.Operations:
        """The plan, with the master as a writer of each file that it takes the last name from.

        ``others_keep`` says of an inode's slot whether a client other than the caller may have it open. The plan must
        be applied at once. So a tree that is removed, or purged from the trash, is looked at when it is reclaimed.
        """
        kept: dict[int, None] = {}
        for operation in plan:
            losers = self._losers.get(type(operation))
            if losers is not None:
                slots = losers(operation)
                kept |= dict.fromkeys(slots if now < self._in_doubt_until else filter(others_keep, slots))
        if not kept:
            return plan
        holds: list[op.AnyOperation] = []
        for slot in kept:
            inode = self._state.inodes.ids[slot]
            if not self._state.writers.has(slot, KEEPER):
                holds.append(op.OpenWriter(inode, KEEPER))
            self._until.pop(inode, None)
            self._until[inode] = now + LINGER_SECONDS
        return (*holds, *plan)

    def _removed(self, operation: op.RemoveName) -> Iterable[int]:
        return self._named(operation.parent, operation.name)

    def _replaced(self, operation: op.Move) -> Iterable[int]:
        return self._named(operation.new_parent, operation.new_name)

    def _named(self, parent: int, name: bytes) -> Iterable[int]:
        inodes = self._state.inodes
        slot = inodes.directories[inodes.slot_of(parent)].find(name)
        return (slot,) if slot and self._state.is_last_name(slot) else ()

    def _purged(self, operation: op.PurgeTrash) -> Iterable[int]:
        slots = map(self._state.inodes.slot_of, operation.inodes)
        return [slot for slot in slots if self._state.is_last_name(slot)]

    def _reclaimed(self, operation: op.Reclaim) -> Iterator[int]:
        """The regular files that it will come to, in its order; one with several names may lose them all at once."""
        inodes, left = self._state.inodes, operation.entries
        waiting = [(slot, b"") for slot in self._state.doomed]
        while left and waiting:
            directory, after = waiting.pop()
            for name, slot in inodes.directories[directory].page(after, left):
                left -= 1
                if inodes.directories.get(slot):
                    waiting += ((directory, name), (slot, b""))
                    break
                if stat.S_ISREG(inodes.mode[slot]):
                    yield slot

    def due(self, now: float) -> op.Operations:
        """Lets go of the files whose time is over; empty if there are none."""
        ended: list[op.AnyOperation] = []
        while self._until and len(ended) < ENDED_PER_TICK_MAX:
            inode, until = next(iter(self._until.items()))
            if until > now and len(self._until) <= LINGERING_MAX:
                break
            del self._until[inode]
            slot = self._state.inodes.slot_of(inode)
            if slot and self._state.writers.has(slot, KEEPER):
                ended.append(op.CloseWriter(inode, KEEPER, frees_unused=True))
        return tuple(ended)
