"""How large requests are: after Table 4 of the GFS paper (Ghemawat et al., 2003). Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Sizes in bytes from ``low`` on, below ``high``, and how many of a hundred requests are of them."""

    percent: float
    low: int
    high: int


READS: Final = (
    SizeClass(65, 1 * KIB, 8 * KIB),
    SizeClass(30, 8 * KIB, 64 * KIB),
    SizeClass(1, 64 * KIB, 512 * KIB),
    SizeClass(4, 512 * KIB, 1 * MIB),
)
"""The two classes that the paper is known for, and the rest rounded."""
APPENDS: Final = (
    SizeClass(19, 1 * KIB, 8 * KIB),
    SizeClass(78, 8 * KIB, 64 * KIB),
    SizeClass(3, 64 * KIB, 256 * KIB),
)
"""The same; the largest are smaller than the paper's, for a record of ours has at most 1 MiB."""


def draw(randomness: random.Random, classes: Sequence[SizeClass]) -> int:
    """A size: the class by its share, evenly within it."""
    (chosen,) = randomness.choices(classes, [each.percent for each in classes])
    return randomness.randrange(chosen.low, chosen.high)
