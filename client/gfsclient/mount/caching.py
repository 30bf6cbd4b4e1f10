"""What the kernel may keep of what it was answered, and how it is told to drop it.

The kernel keeps names, attributes and pages for a long time, because the master says when another client changed them
(pushed invalidation, as AFS's callbacks: Howard et al., TOCS 1988). That holds only while a leader is known to watch
for us; else everything is answered with a timeout of zero. An answer that was overtaken by a notice on its way is not
kept either: whoever asks the master takes :meth:`KernelCache.mark` before.

What the kernel was given is remembered here, up to a bound, so that all of it can be dropped when the leader changes.
"""

import logging
import stat
from collections import OrderedDict
from typing import Final, Protocol

from gfsprotocol.messages import Attributes, Invalidate

log = logging.getLogger(__name__)

Content = tuple[int, int, int]
"""By which one content of a file is told from another: size, and when content and attributes were changed."""
Place = tuple[int, bytes]
"""A name: the directory's inode, and what it is called there."""

KEPT_SECONDS: Final = 3600.0
ENTRIES_MAX: Final = 200_000
INODES_MAX: Final = 200_000
_MISSING: Final = 0
_UNKNOWN: Final = -1


class Freshness(Protocol):
    """Whether an answer may be kept (:class:`gfsclient.watcher.Watcher`)."""

    @property
    def clock(self) -> int: ...
    @property
    def is_current(self) -> bool: ...
    def changed_since(self, inode: int, mark: int) -> bool: ...
    def name_changed_since(self, directory: int, name: bytes, mark: int) -> bool: ...


class Kernel(Protocol):
    """How the kernel is told to drop something. Never blocks."""

    def expire_attributes(self, inode: int) -> None:
        """At once, the others soon."""

    def store(self, inode: int, data: bytes) -> bool:
        """Puts bytes from the file's beginning on into its pages; whether all of them are there.

        Only while no program has the file open: the kernel may wait for us with a page locked else.
        """

    def drop_inode(self, inode: int) -> None: ...
    def drop_entry(self, directory: int, name: bytes) -> None: ...


class Unwatched:
    """Nobody tells of changes: nothing may be kept."""

    clock = 0
    is_current = False

    def changed_since(self, inode: int, mark: int) -> bool:  # noqa: ARG002
        return True

    def name_changed_since(self, directory: int, name: bytes, mark: int) -> bool:  # noqa: ARG002
        return True


class KernelCache:
    """The names and inodes that the kernel keeps from us. Belongs to the event loop."""

    def __init__(self, kernel: Kernel) -> None:
        self.freshness: Freshness = Unwatched()
        self.changes_here = 0
        """Grows with each change that this mount has made: nobody tells us of those."""
        self._kernel = kernel
        self._entries: OrderedDict[Place, int] = OrderedDict()
        """The inode under a name, or _MISSING, or _UNKNOWN."""
        self._names: dict[int, tuple[Place, ...]] = {}
        """By inode, of what is no directory: the names above that lead to it."""
        self._inodes: OrderedDict[int, Content] = OrderedDict()
        """By inode: what the content was when the kernel was given its attributes."""
        self._pages: OrderedDict[int, Content] = OrderedDict()
        """By inode: what the content was when the kernel's pages of it were read."""

    @property
    def names(self) -> int:
        """How many it may keep."""
        return len(self._entries)

    @property
    def inodes(self) -> int:
        """Of how many it may keep the attributes."""
        return len(self._inodes)

    def mark(self) -> int:
        """To be taken before a question whose answer may be kept."""
        return self.freshness.clock

    # --------------------------------------------------------------------------------------------- what may be kept

    def keeps_inode(self, attributes: Attributes, mark: int) -> float:
        """For how many seconds attributes that were asked for at ``mark`` may be kept."""
        inode = attributes.inode
        if not self.is_fresh(inode, mark):
            return 0.0
        self._inodes[inode] = content_of(attributes)
        self._inodes.move_to_end(inode)
        if len(self._inodes) > INODES_MAX:
            self._kernel.drop_inode(self._inodes.popitem(last=False)[0])
        return KEPT_SECONDS

    def keeps_entry(self, directory: int, name: bytes, found: Attributes | None, mark: int) -> float:
        """For how many seconds it may be kept that this is under ``name``, or that there is nothing."""
        freshness, place = self.freshness, (directory, name)
        if not freshness.is_current or freshness.name_changed_since(directory, name, mark):
            self._take(place)
            return 0.0
        if found is None:
            self._put(place, _MISSING, is_named=False)
        else:
            self._put(place, found.inode, is_named=not stat.S_ISDIR(found.mode))
        return KEPT_SECONDS

    def is_fresh(self, inode: int, mark: int) -> bool:
        """Whether nobody else has changed the inode since ``mark``, as far as can be known."""
        return self.freshness.is_current and not self.freshness.changed_since(inode, mark)

    def inode_at(self, directory: int, name: bytes) -> int | None:
        """What the kernel was told last is under a name, 0 for nothing; None if it is not remembered."""
        inode = self._entries.get((directory, name), _UNKNOWN)
        return None if inode == _UNKNOWN else inode

    def was_told(self, attributes: Attributes) -> bool:
        """Whether the kernel was given the attributes of this content, and has been given no others to keep since."""
        return self._inodes.get(attributes.inode) == content_of(attributes)

    def changed_here(self) -> None:
        """Something was changed through this mount."""
        self.changes_here += 1

    def removed(self, directory: int, name: bytes) -> None:
        """A name was removed through this mount: the kernel knows, and nothing is remembered of it."""
        self.changed_here()
        self._take((directory, name))

    def renamed(self, place: Place, target: Place, exchange: bool) -> None:
        """Something was renamed through this mount: the kernel goes on to keep it, under its new name."""
        self.changed_here()
        moved, replaced = self._take(place), self._take(target)
        self._put(target, *moved)
        if exchange:
            self._put(place, *replaced)

    def _put(self, place: Place, inode: int, is_named: bool) -> None:
        self._take(place)
        self._entries[place] = inode
        if is_named:
            self._names[inode] = (*self._names.get(inode, ()), place)
        if len(self._entries) > ENTRIES_MAX:
            oldest = next(iter(self._entries))
            self._take(oldest)
            self._kernel.drop_entry(*oldest)

    def _take(self, place: Place) -> tuple[int, bool]:
        """Forgets a name: what was known to be there, and whether that is no directory."""
        inode = self._entries.pop(place, _UNKNOWN)
        names = self._names.pop(inode, ())
        if len(names) > 1:
            self._names[inode] = tuple(name for name in names if name != place)
        return inode, bool(names)

    # -------------------------------------------------------------------------------------------------------- pages

    def pages_are_good(self, attributes: Attributes) -> bool:
        """At an open: whether pages that the kernel may still have are those of this content; they are from now on.

        The answer to an open has no attributes. A notice may be on its way, or not have reached the kernel: if it was
        given others it has to ask, lest it takes the old size for the end of what it reads.
        """
        content = content_of(attributes)
        if self._inodes.get(attributes.inode) != content:
            self._inodes.pop(attributes.inode, None)
            self._kernel.expire_attributes(attributes.inode)
        is_same = self._pages.get(attributes.inode) == content
        self.pages_are_of(attributes)
        return is_same

    def fills_pages(self, attributes: Attributes, data: bytes) -> bool:
        """At the first open of a file, after :meth:`pages_are_good`: puts all that it holds into the kernel's pages.

        Whether that was done. The kernel has to know how long the file is: it would have to ask for that again.
        """
        is_whole = len(data) == attributes.size
        return is_whole and self.was_told(attributes) and self._kernel.store(attributes.inode, data)

    def pages_are_of(self, attributes: Attributes) -> None:
        """The pages in the kernel are the content that these attributes belong to."""
        self._pages[attributes.inode] = content_of(attributes)
        self._pages.move_to_end(attributes.inode)
        if len(self._pages) > INODES_MAX:
            self._pages.popitem(last=False)

    def pages_stay(self, attributes: Attributes, mark: int) -> None:
        """We have changed the attributes, which does not make the pages worse than they were."""
        if attributes.inode in self._pages and self.is_fresh(attributes.inode, mark):
            self.pages_are_of(attributes)

    def drop_pages(self, inode: int) -> None:
        """The pages in the kernel are not what the file holds."""
        self._pages.pop(inode, None)
        self._kernel.drop_inode(inode)

    # ------------------------------------------------------------------------------------------------- invalidation

    def drop_name(self, directory: int, name: bytes) -> None:
        """What is under a name is to be looked up anew."""
        self._take((directory, name))
        self._kernel.drop_entry(directory, name)

    def invalidate(self, notice: Invalidate) -> None:
        """Others have changed this: the kernel drops it, names first, so that none leads to what is known anew.

        With a file that was changed go its names: of one whose attributes it has dropped, the kernel still knows the
        old owner, and refuses by that what only owners may do, until it has looked a name up. (Not with directories:
        a program may be in one, and it must not be without a place.)
        """
        for place in notice.names:
            self.drop_name(*place)
        for inode in notice.inodes:
            for place in self._names.get(inode, ()):
                self.drop_name(*place)
            self._inodes.pop(inode, None)
            self._pages.pop(inode, None)
            self._kernel.drop_inode(inode)

    def drop_everything(self) -> None:
        """Nothing is known to be true any more."""
        for place in self._entries:
            self._kernel.drop_entry(*place)
        for inode in self._inodes.keys() | self._pages.keys():
            self._kernel.drop_inode(inode)
        self._entries.clear()
        self._names.clear()
        self._inodes.clear()
        self._pages.clear()


def content_of(attributes: Attributes) -> Content:
    return attributes.size, attributes.modified_ns, attributes.changed_ns
