"""Whether a history of one register is linearizable: the search of Wing and Gong (1993), with Lowe's memory of states.

The register holds a value; None at first. An operation of unknown outcome may have its effect at any time after it was
invoked, or never.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = math.inf


@dataclass(slots=True, frozen=True)
class Operation:
    """A write of a value, or a read that returned one."""

    is_write: bool
    value: bytes | None
    invoked: float
    answered: float = UNKNOWN


def is_linearizable(history: Sequence[Operation]) -> bool:
    """Whether some order of the operations, true to their times, explains every read."""
    operations = [operation for operation in history if operation.is_write or operation.answered != UNKNOWN]
    must = sum(1 << number for number, operation in enumerate(operations) if operation.answered != UNKNOWN)
    seen: set[tuple[int, bytes | None]] = set()
    stack: list[tuple[int, bytes | None]] = [(0, None)]
    while stack:
        done, value = stack.pop()
        if done & must == must:
            return True
        # What comes next was invoked before any of the others was answered.
        left = [number for number in range(len(operations)) if not done >> number & 1]
        first_answer = min(operations[number].answered for number in left)
        for number in left:
            operation = operations[number]
            if operation.invoked > first_answer or (not operation.is_write and operation.value != value):
                continue
            state = (done | 1 << number, operation.value)
            if state not in seen:
                seen.add(state)
                stack.append(state)
    return False
