"""One directory's entries, sorted by name, in buckets.

Sorted, so that a listing is paged by "names greater than this one" and stays right while entries come and go; in
buckets, so that inserting into a million entries moves a few kilobytes. An entry costs its name's bytes object, one
pointer and four bytes (a dict would cost about 90 bytes more).

Invariants: buckets are never empty; names rise within and across buckets; ``maxima[i]`` is the last name of bucket i.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

BUCKET_ENTRIES_MAX: Final = 512
BUCKET_ENTRIES_MIN: Final = 64


class Directory:
    """name -> inode slot. Knows its own name, so that a path can be told from an inode."""

    __slots__ = ("_buckets", "_maxima", "_slots", "count", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.count = 0
        self._buckets: list[list[bytes]] = []
        self._slots: list[array[int]] = []
        self._maxima: list[bytes] = []

    def __len__(self) -> int:
        return self.count

    def find(self, name: bytes) -> int:
        """The slot of ``name``, or 0."""
        position = bisect_left(self._maxima, name)
        if position == len(self._maxima):
            return 0
        bucket = self._buckets[position]
        index = bisect_left(bucket, name)
        return self._slots[position][index] if bucket[index] == name else 0

    def insert(self, name: bytes, slot: int) -> None:
        """Adds an entry; ``name`` must not be there."""
        self.count += 1
        if not self._buckets:
            self._buckets.append([name])
            self._slots.append(array("I", [slot]))
            self._maxima.append(name)
            return
        position = min(bisect_left(self._maxima, name), len(self._maxima) - 1)
        bucket = self._buckets[position]
        index = bisect_left(bucket, name)
        bucket.insert(index, name)
        self._slots[position].insert(index, slot)
        self._maxima[position] = bucket[-1]
        if len(bucket) > BUCKET_ENTRIES_MAX:
            self._split(position)

    def remove(self, name: bytes) -> None:
        """Removes an existing entry."""
        self.count -= 1
        position = bisect_left(self._maxima, name)
        bucket = self._buckets[position]
        index = bisect_left(bucket, name)
        del bucket[index]
        del self._slots[position][index]
        if not bucket:
            del self._buckets[position], self._slots[position], self._maxima[position]
            return
        self._maxima[position] = bucket[-1]
        if len(bucket) < BUCKET_ENTRIES_MIN and position + 1 < len(self._buckets):
            self._merge(position)

    def page(self, after: bytes, limit: int) -> list[tuple[bytes, int]]:
        """Up to ``limit`` entries with names greater than ``after``, in order."""
        found: list[tuple[bytes, int]] = []
        position = bisect_right(self._maxima, after)
        while position < len(self._buckets) and len(found) < limit:
            bucket = self._buckets[position]
            start = bisect_right(bucket, after) if not found else 0
            stop = start + limit - len(found)
            found.extend(zip(bucket[start:stop], self._slots[position][start:stop], strict=True))
            position += 1
        return found

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        for bucket, slots in zip(self._buckets, self._slots, strict=True):
            yield from zip(bucket, slots, strict=True)

    def buckets(self) -> Iterator[tuple[list[bytes], "array[int]"]]:
        """All entries in order: names and slots, up to BUCKET_ENTRIES_MAX at a time."""
        return zip(self._buckets, self._slots, strict=True)

    def extend(self, names: list[bytes], slots: "array[int]") -> None:
        """Adds a bucket of :meth:`buckets`; its names are greater than all that are here. Both are kept, not copied."""
        if not names or len(names) != len(slots) or (self._maxima and names[0] <= self._maxima[-1]):
            raise ValueError(f"entries from {names[:1]} on do not follow the last one")
        self._buckets.append(names)
        self._slots.append(slots)
        self._maxima.append(names[-1])
        self.count += len(names)

    def name_of(self, slot: int) -> bytes | None:
        """A name under which ``slot`` stands here, by a scan; for reports to people."""
        for bucket, slots in zip(self._buckets, self._slots, strict=True):
            if slot in slots:
                return bucket[slots.index(slot)]
        return None

    def _split(self, position: int) -> None:
        bucket, slots = self._buckets[position], self._slots[position]
        # Names often come in rising order: leaving the first half nearly full keeps memory dense then.
        middle = len(bucket) * 7 // 8 if position == len(self._buckets) - 1 else len(bucket) // 2
        self._buckets[position : position + 1] = [bucket[:middle], bucket[middle:]]
        self._slots[position : position + 1] = [slots[:middle], slots[middle:]]
        self._maxima[position : position + 1] = [bucket[middle - 1], bucket[-1]]

    def _merge(self, position: int) -> None:
        bucket = self._buckets[position] + self._buckets[position + 1]
        if len(bucket) > BUCKET_ENTRIES_MAX * 3 // 4:
            return
        self._buckets[position : position + 2] = [bucket]
        self._slots[position : position + 2] = [self._slots[position] + self._slots[position + 1]]
        self._maxima[position : position + 2] = [bucket[-1]]
