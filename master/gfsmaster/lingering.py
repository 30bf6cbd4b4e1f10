"""Removed files that linger: for some seconds the master itself holds a file that another client may still read.

A file goes with its last name and its last writer. A client that has it open for reading is no writer; it is told of
the removal, answers with Hold and is one from then on. Until that answer can have come the master is registered as a
writer under a name of its own, in the same record as the removal, so a new leader finds such files and lets them go,
too. While it is not known who has what open, because a leader is new or a client that watches has to begin anew, every
file lingers: clients show the leader what they have open as soon as they find it. Pure: time comes in, operations go
out.
"""

import math
from collections.abc import Callable
from typing import Final

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

    def doubt(self, now: float) -> None:
        """What somebody was shown before is not known: for a while every file that loses its last name is kept."""
        self._in_doubt_until = now + LINGER_SECONDS

    def keep(self, plan: op.Operations, others_keep: Callable[[int], bool], now: float) -> op.Operations:
        """The plan, with the master as a writer of each file that it takes the last name from.

        ``others_keep`` says of an inode's slot whether a client other than the caller may have it open. The plan must
        be applied at once.
        """
        holds: list[op.AnyOperation] = []
        for operation in plan:
            slot = self._loses_name(operation)
            if slot and self._state.is_last_name(slot) and (now < self._in_doubt_until or others_keep(slot)):
                inode = self._state.inodes.ids[slot]
                if not self._state.writers.has(slot, KEEPER):
                    holds.append(op.OpenWriter(inode, KEEPER))
                self._until.pop(inode, None)
                self._until[inode] = now + LINGER_SECONDS
        return (*holds, *plan) if holds else plan

    def _loses_name(self, operation: op.AnyOperation) -> int:
        inodes = self._state.inodes
        if isinstance(operation, op.RemoveName):
            parent, name = operation.parent, operation.name
        elif isinstance(operation, op.Move):
            parent, name = operation.new_parent, operation.new_name
        else:
            return 0
        return inodes.directories[inodes.slot_of(parent)].find(name)

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
