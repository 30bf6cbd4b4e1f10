"""Open directories: pages of names and attributes, and places in the list that stay good while names come and go."""

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from gfsclient.masters import Masters
from gfsclient.mount.complete import Names
from gfsclient.mount.remembered import Mark, Remembered
from gfsclient.user import User
from gfsprotocol.messages import Entry, List, Listing

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
