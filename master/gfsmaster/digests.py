"""The state digest: one number for the whole state, kept up to date at the cost of what changed.

It is the sum modulo 2**128 of a hash of every object (a set hash, as in AdHash), so the order of changes does not
matter and no object is hashed that did not change. Objects that change are hashed once when first touched (to take them
out) and once when the digest is asked for. It finds divergence and damage; it is no defence against a forger.
"""

from collections.abc import Callable

from blake3 import blake3

_MODULUS = 1 << 128


def hashed(kind: bytes, packed: bytes) -> int:
    """The hash of one object."""
    return int.from_bytes(blake3(kind + packed).digest(length=16), "little")


class StateDigestSum:
    """The running sum. ``hash_inode`` and ``hash_chunk`` give the hash of what stands in a slot now."""

    def __init__(self, hash_inode: Callable[[int], int], hash_chunk: Callable[[int], int]) -> None:
        self._hash_inode = hash_inode
        self._hash_chunk = hash_chunk
        self._sum = 0
        self._inodes: set[int] = set()
        self._chunks: set[int] = set()
        self.on_touch: Callable[[int], None] | None = None
        """Gets the slot of each inode before it changes or goes."""

    def add(self, value: int) -> None:
        self._sum += value

    def touch_inode(self, slot: int) -> None:
        """Before an inode changes."""
        if self.on_touch is not None:
            self.on_touch(slot)
        if slot not in self._inodes:
            self._inodes.add(slot)
            self._sum -= self._hash_inode(slot)

    def new_inode(self, slot: int) -> None:
        self._inodes.add(slot)

    def drop_inode(self, slot: int) -> None:
        """Before an inode's slot is released."""
        self.touch_inode(slot)
        self._inodes.discard(slot)

    def touch_chunk(self, slot: int) -> None:
        """Before a chunk changes."""
        if slot not in self._chunks:
            self._chunks.add(slot)
            self._sum -= self._hash_chunk(slot)

    def new_chunk(self, slot: int) -> None:
        self._chunks.add(slot)

    def drop_chunk(self, slot: int) -> None:
        """Before a chunk's slot is released."""
        self.touch_chunk(slot)
        self._chunks.discard(slot)

    def restore(self, value: int) -> None:
        """Goes on from what :meth:`value` gave for the same objects."""
        self._sum = value
        self._inodes.clear()
        self._chunks.clear()

    def value(self) -> int:
        """The sum over all objects as they are now."""
        for slot in self._inodes:
            self._sum += self._hash_inode(slot)
        for slot in self._chunks:
            self._sum += self._hash_chunk(slot)
        self._inodes.clear()
        self._chunks.clear()
        self._sum %= _MODULUS
        return self._sum
