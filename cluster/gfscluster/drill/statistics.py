"""Figures of a drill from its ledger: pure. All times in seconds."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from gfscluster.drill.ledger import Call, Outcome


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile: a value that occurred. None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def first_acknowledged(calls: Iterable[Call], hit: float, reads: bool = False) -> float | None:
    """From the hit to the first answer to a call that was started after it: a write's, or any call's with ``reads``."""
    ends = [
        call.ended - hit
        for call in calls
        if call.started >= hit and call.outcome is Outcome.ACKNOWLEDGED and (reads or not call.reads)
    ]
    return min(ends, default=None)


def longest_gaps(calls: Iterable[Call], begin: float, end: float) -> dict[int, float]:
    """Per client, the longest time between ``begin`` and ``end`` in which no call of it was acknowledged."""
    moments: dict[int, list[float]] = {}
    for call in calls:
        known = moments.setdefault(call.client, [begin])
        if call.outcome is Outcome.ACKNOWLEDGED and begin < call.ended < end:
            known.append(call.ended)
    gaps = {}
    for client, times in moments.items():
        ordered = [*sorted(times), end]
        gaps[client] = max(later - earlier for earlier, later in pairwise(ordered))
    return gaps
