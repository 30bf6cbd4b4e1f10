"""Which parts of a file were written and not flushed. Pure."""

from typing import Final

RANGES_MAX: Final = 64


class Ranges:
    """A set of byte ranges, kept small: when there are many it becomes the one that spans them all."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def add(self, start: int, end: int) -> None:
        """Adds ``start`` up to ``end``, which is not part of it."""
        if self._ranges and self._ranges[-1][0] <= start <= self._ranges[-1][1]:
            first, last = self._ranges[-1]
            self._ranges[-1] = (first, max(last, end))
            return
        self._ranges.append((start, end))
        if len(self._ranges) > RANGES_MAX:
            self._ranges = [(min(start for start, _ in self._ranges), max(end for _, end in self._ranges))]

    def overlap(self, start: int, end: int) -> bool:
        """Whether any byte from ``start`` up to ``end`` is in it."""
        return any(first < end and start < last for first, last in self._ranges)

    def clear(self) -> None:
        self._ranges.clear()
