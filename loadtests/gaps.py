"""The longest time in which nothing was answered. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Gaps:
    """Told when requests succeeded, and when it was over, in monotonic seconds."""

    longest_seconds: float = 0.0
    longest_began: float = 0.0
    _last: float = 0.0

    def succeeded(self, now: float) -> None:
        if self._last and now - self._last > self.longest_seconds:
            self.longest_seconds, self.longest_began = now - self._last, self._last
        self._last = max(self._last, now)

    def ended(self, now: float) -> None:
        """No more requests are sent: whoever waits until then has waited for so long, at least."""
        self.succeeded(now)
        self._last = 0.0
