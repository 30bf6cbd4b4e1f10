"""Byte ranges (RFC 9110 §14). Pure."""

import re
from dataclasses import dataclass

RANGES_MAX = 32
_SPEC = re.compile(r"(\d*)\s*-\s*(\d*)")
_DIGITS_MAX = 18


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes ``first`` to ``last``, both included."""

    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    def content_range(self, size: int) -> str:
        """For the Content-Range header."""
        return f"bytes {self.first}-{self.last}/{size}"


def parse(header: str, size: int) -> list[Range] | None:
    """The ranges of a Range header that a file of ``size`` bytes has; none of them means 416.

    None if the header is to be ignored, as one in another unit is, and one that cannot be read. More than RANGES_MAX,
    or ranges that have more bytes together than the file, are none: they are a waste, by mistake or on purpose.
    """
    unit, equals, specs = header.partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    found: list[Range] = []
    parts = [part.strip() for part in specs.split(",")]
    for part in filter(None, parts):
        match = _SPEC.fullmatch(part)
        if match is None or not (match[1] or match[2]):
            return None
        first, last = (_number(text) for text in match.groups())
        if first is not None and last is not None and last < first:
            return None
        if first is None:
            first, last = max(0, size - (last or 0)), size - 1
        if first < size:
            found.append(Range(first, size - 1 if last is None else min(last, size - 1)))
    if not any(parts):
        return None
    if len(found) > RANGES_MAX or (len(found) > 1 and sum(each.count for each in found) > size):
        return []
    return found


def _number(digits: str) -> int | None:
    """A number as it is written; one with very many digits is larger than any file."""
    if not digits:
        return None
    return int(digits) if len(digits.lstrip("0")) <= _DIGITS_MAX else 10**_DIGITS_MAX
