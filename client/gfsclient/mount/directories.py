"""Open directories: pages of names and attributes, and places in the list that stay good while names come and go.

The master forgets a directory that is removed. One that is open here can still be asked what it was, by its descriptor,
as on a local disk, if nobody else has changed it since that was known.
"""

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from gfsclient.masters import Masters
from gfsclient.mount.complete import Names
from gfsclient.mount.remembered import Mark, Remembered
from gfsclient.user import User
from gfsprotocol.errors import StaleHandle
from gfsprotocol.messages import Attributes, Entry, List, Listing

PAGE_ENTRIES: Final = 1000
PAGE_ENTRIES_CHANGING: Final = 64
"""While files are changed here, what is fetched ahead is soon old."""
DOTS: Final = 2
"""Places 1 and 2 are those after "." and ".."."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry, the place after it, and when it was asked for."""

    entry: Entry
    place: int
    mark: Mark


@dataclass(eq=False)
class OpenDirectory:
    """One open directory. A place is the number of names before it, so that what is listed does not move.

    Names are in byte order, and the master is asked for those behind the last one: a name that is there all the while
    is listed once, whatever is added or removed beside it.
    """

    inode: int
    user: User
    number: int
    remembered: Remembered
    _names: list[bytes] = field(default_factory=list)
    """Those listed so far."""
    _ahead: deque[Listed] = field(default_factory=deque)
    _is_complete: bool = False
    _changes: int = -1
    """What :attr:`~gfsclient.mount.caching.KernelCache.changes_here` was when the entries ahead were asked for."""
    _gathering: Names | None = None
    """What was changed since it is listed from its beginning, until all its names are known."""

    def rewind(self) -> None:
        """To be listed anew, as it is now."""
        self.close()
        self._names.clear()
        self._ahead.clear()
        self._is_complete = False

    def close(self) -> None:
        """It is not listed any more."""
        if self._gathering is not None:
            self.remembered.give_up(self._gathering)
            self._gathering = None

    async def next(self, masters: Masters, place: int, mark: Mark, changes: int) -> Listed | None:
        """The entry at ``place``, which some :class:`Listed` named, or DOTS for the first; None at the end.

        ``changes`` counts what this mount has changed: entries from before it are asked for anew, for the kernel would
        take them for newer than what it was answered then.
        """
        index = place - DOTS
        limit = PAGE_ENTRIES
        if index < len(self._names) or (self._ahead and changes != self._changes):
            limit = PAGE_ENTRIES_CHANGING
            self._ahead.clear()  # the reader went back, or this is old: from there on it is listed anew
            self._is_complete = False
            del self._names[index:]
        if not self._ahead and not self._is_complete:
            after = self._names[-1] if self._names else b""
            if not after:
                self._gathering = self.remembered.gather(self.inode)
            self._changes = changes
            page = await masters.expect(List(b"", self.inode, after=after, limit=limit), Listing, user=self.user)
            self._is_complete = not page.more
            first = DOTS + len(self._names) + 1
            self._ahead.extend(Listed(entry, first + number, mark) for number, entry in enumerate(page.entries))
            self._gather()
        return self._ahead[0] if self._ahead else None

    def _gather(self) -> None:
        """Once it was listed to its end all names are known."""
        if self._gathering is not None and self._is_complete:
            listed = itertools.chain(self._names, (ahead.entry.name for ahead in self._ahead))
            self.remembered.gathered(self._gathering, listed)
            self._gathering = None

    def took(self) -> None:
        """The entry that :meth:`next` showed was listed."""
        self._names.append(self._ahead.popleft().entry.name)


class OpenDirectories:
    """Those that programs have open. Belongs to the event loop."""

    def __init__(self, remembered: Remembered) -> None:
        self._remembered = remembered
        self._by_number: dict[int, OpenDirectory] = {}
        self._handles: Counter[int] = Counter()
        """By inode: how many of them are open."""
        self._known: dict[int, Attributes] = {}
        """By inode, of open ones: what they are, as long as nobody else has changed them."""
        self._next = 1

    def __getitem__(self, number: int) -> OpenDirectory:
        """The one with that number. StaleHandle if it is not open."""
        directory = self._by_number.get(number)
        if directory is None:
            raise StaleHandle(f"directory handle {number} is not open")
        return directory

    def open(self, inode: int, user: User) -> int:
        """The number of one more."""
        number, self._next = self._next, self._next + 1
        self._by_number[number] = OpenDirectory(inode, user, number, self._remembered)
        self._handles[inode] += 1
        attributes = self._remembered.attributes(inode)
        if attributes is not None:
            self._known[inode] = attributes
        return number

    def release(self, number: int) -> None:
        """It is closed."""
        directory = self._by_number.pop(number, None)
        if directory is None:
            return
        directory.close()
        self._handles[directory.inode] -= 1
        if not self._handles[directory.inode]:
            del self._handles[directory.inode]
            self._known.pop(directory.inode, None)

    def learn(self, attributes: Attributes) -> None:
        """What an inode is now, if it is one of them."""
        if attributes.inode in self._handles:
            self._known[attributes.inode] = attributes

    def forget(self, inode: int) -> None:
        """Others have changed it."""
        self._known.pop(inode, None)

    def removed(self, inode: int) -> Attributes | None:
        """What a directory was that the master knows no more; None if that is not known here either."""
        known = self._known.get(inode)
        return None if known is None else replace(known, links=0)
