"""Whether a leader is cut off: nobody speaks to it any more, though somebody did.

With SQLite a leader whose network is gone still reaches its database, so it would keep its lease for ever, and nobody
else could lead. It gives its epoch back instead. Silence is counted while we listened: a process that was stopped finds
what was sent meanwhile waiting for it.
"""

from typing import Final

STEP_SECONDS_MAX: Final = 0.2
"""More than that between two looks was not spent listening."""
HEARTBEATS: Final = 2
ABSTAIN_LEASES: Final = 5
"""For how long who was cut off does not stand again."""


class Isolation:
    """Of one leadership. ``now`` is monotonic, in seconds. Pure."""

    def __init__(self, lease_seconds: float, heartbeat_seconds: float, now: float) -> None:
        self.limit = max(lease_seconds, HEARTBEATS * heartbeat_seconds)
        """So many seconds without a word mean that we are cut off; chunk servers speak with each heartbeat."""
        self._looked = now
        self._silent = 0.0
        self._heard_any = False

    def heard(self) -> None:
        """A request came in."""
        self._silent = 0.0
        self._heard_any = True

    def is_cut_off(self, now: float) -> bool:
        """To be asked often."""
        self._silent += min(now - self._looked, STEP_SECONDS_MAX)
        self._looked = now
        return self._heard_any and self._silent >= self.limit


__all__ = ["ABSTAIN_LEASES", "Isolation"]
