"""What the last records have touched: for those who keep answers of the leader. Pure."""

from typing import NamedTuple


class Before(NamedTuple):
    """What an inode was before it was touched."""

    inode: int
    links: int
    is_regular: bool


class Touched:
    """Collected by :class:`~gfsmaster.state.State` while somebody watches.

    The inodes come from where the state digest is told of every change of one, so none can be forgotten there without
    the digest being wrong.
    """

    def __init__(self) -> None:
        self.inodes: dict[int, Before] = {}
        """By slot, as they were at first."""
        self.names: dict[tuple[int, int, bytes], None] = {}
        """(slot and id of the directory, name) where an entry was added or removed, in order."""

    def clear(self) -> None:
        self.inodes.clear()
        self.names.clear()
