"""Names and attributes that the mount keeps itself, beside the kernel: what was listed, before anyone asks for it.

It holds as long as the kernel's caches would: a notice of the master drops what others change, and whatever this mount
changes is dropped when the change is sent and again when it is answered, as the master does not tell us of our own
changes. What is kept is shown only while a leader is known that would tell.

A file with several names is not kept: a change through a name that is not remembered would not be noticed. So what is
kept of an inode is kept with its only name, and forgotten with it. Belongs to the event loop.

Of some directories all names are known (:class:`~gfsclient.mount.complete.CompleteDirectories`), thus what is missing.
"""

import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from gfsclient.mount.caching import KernelCache, Place
from gfsclient.mount.complete import Before, CompleteDirectories, Names
from gfsclient.watcher import ChangeTimes
from gfsprotocol import messages as msg
from gfsprotocol.ids import NAME_BYTES_MAX
from gfsprotocol.messages import Attributes, Invalidate

NAMES_MAX: Final = 100_000
RELATIVE: Final = (b".", b"..")
"""Names that are everywhere."""


OWN_TOUCHES: Final = 2
"""How often a change of ours touches a name: when it is sent, and when it is answered."""


class Mark(NamedTuple):
    """The clocks of others' and of our own changes."""

    others: int
    own: int


class Remembered:
    """What stands under names, and what it is like."""

    def __init__(self, cache: KernelCache) -> None:
        self._cache = cache
        self._found: OrderedDict[Place, Attributes] = OrderedDict()
        self._places: dict[int, Place] = {}
        """The only name of an inode that is remembered."""
        self._own_clock = 1
        """Grows with each change that this mount sends, and with its answer."""
        self._own = ChangeTimes()
        """When we have changed which inodes and names."""
        self._complete = CompleteDirectories()

    def mark(self) -> Mark:
        """To be taken before a question whose answer is to be remembered."""
        return Mark(self._cache.mark(), self._own_clock)

    # ------------------------------------------------------------------------------------------------- what is known

    def find(self, directory: int, name: bytes) -> Attributes | None:
        """What is under a name, if it is known."""
        return self._found.get((directory, name)) if self._cache.freshness.is_current else None

    def is_missing(self, directory: int, name: bytes) -> bool:
        """Whether it is known that there is nothing under a name. Of one that cannot be it is not."""
        return (
            self._cache.freshness.is_current
            and self._complete.lacks(directory, name)
            and len(name) <= NAME_BYTES_MAX
            and name not in RELATIVE
        )

    def attributes(self, inode: int) -> Attributes | None:
        """What an inode is, if it is known."""
        place = self._places.get(inode)
        return self.find(*place) if place is not None else None

    def place(self, inode: int) -> Place | None:
        """Where an inode is, if it is known."""
        return self._places.get(inode)

    def learn(self, directory: int, name: bytes, attributes: Attributes, mark: Mark) -> None:
        """The master has said so to a question that was asked at ``mark``."""
        place = (directory, name)
        if self._own.since(place, mark.own) or self._own.since(attributes.inode, mark.own):
            return
        if attributes.links != 1 and not stat.S_ISDIR(attributes.mode):
            self._forget_inode(attributes.inode)
            return
        cache, inode = self._cache, attributes.inode
        if not cache.is_fresh(inode, mark.others) or cache.freshness.name_changed_since(directory, name, mark.others):
            return
        self._forget(place)
        self._forget_inode(inode)
        self._found[place] = attributes
        self._places[inode] = place
        if len(self._found) > NAMES_MAX:
            self._forget(next(iter(self._found)))

    def confirm(self, attributes: Attributes) -> None:
        """At an open the master has just said what an inode is: what is kept of it from before goes, if it differs.

        So is what the kernel asks next, of the inode or of the name that led to it, not answered from what was old.
        """
        if self.attributes(attributes.inode) != attributes:
            self._forget_inode(attributes.inode)

    def doubt(self, inode: int) -> None:
        """The master has just refused to open it."""
        self._forget_inode(inode)

    # -------------------------------------------------------------------------------------------------- what is missing

    def made(self, directory: int, mark: Mark) -> None:
        """The master, asked at ``mark``, has made a directory: it is empty, and we are told what others put there."""
        if self._cache.is_fresh(directory, mark.others) and not self._own.since(directory, mark.own):
            self._complete.made(directory)

    def gather(self, directory: int) -> Names:
        """A directory is about to be listed from its beginning."""
        return self._complete.gather(directory)

    @contextmanager
    def gathering(self, directory: int) -> Iterator[Names]:
        """As :meth:`gather`, for who lists it within the block, or gives up."""
        names = self.gather(directory)
        try:
            yield names
        finally:
            self.give_up(names)

    def gathered(self, names: Names, listed: Iterable[bytes]) -> None:
        """These are all of its names, and those that were changed since."""
        self._complete.gathered(names, listed)

    def give_up(self, names: Names) -> None:
        """It was not listed to its end."""
        self._complete.give_up(names)

    def before(self, directory: int, name: bytes) -> Before:
        """To be taken before a name is removed, or before it is asked for."""
        return self._complete.before(directory, name)

    def removed(self, before: Before) -> None:
        """A name was removed by a change of ours, which was sent right after ``before``."""
        self._complete.lost(before, OWN_TOUCHES)

    def missed(self, before: Before) -> None:
        """The master was asked for a name right after ``before``, and there is nothing."""
        self._complete.lost(before, 0)

    # ------------------------------------------------------------------------------------------------------- changes

    def sent(self, body: msg.RequestBody) -> None:
        """A change of our own is being sent."""
        self._changed(body)

    def answered(self, body: msg.RequestBody) -> None:
        """It was answered, or given up: what was asked for meanwhile may be from before it."""
        self._changed(body)

    def _changed(self, body: msg.RequestBody) -> None:
        self._own_clock += 1
        keys = touched(body)
        if keys is None:
            self._own.everything(self._own_clock)
            self.drop_everything()
            return
        inodes, places = keys
        for inode in inodes:
            self._own.note(inode, self._own_clock)
            self._forget_inode(inode)
        for place in places:
            self._own.note(place, self._own_clock)
            self._forget(place)
            self._complete.touched(*place)

    def invalidate(self, notice: Invalidate) -> None:
        """Others have changed this."""
        for inode in (*notice.inodes, *notice.removed):
            self._forget_inode(inode)
        for place in notice.names:
            self._forget(place)
            self._complete.touched(*place)

    def drop_everything(self) -> None:
        """Nothing is known to be true any more."""
        self._found.clear()
        self._places.clear()
        self._complete.drop_everything()

    def _forget(self, place: Place) -> None:
        attributes = self._found.pop(place, None)
        if attributes is not None:
            del self._places[attributes.inode]

    def _forget_inode(self, inode: int) -> None:
        place = self._places.pop(inode, None)
        if place is not None:
            del self._found[place]


def touched(body: msg.RequestBody) -> tuple[tuple[int, ...], tuple[Place, ...]] | None:
    """(inodes, names) of which a change may alter what was answered; None if that can be anything.

    The inode under a name is meant with it. The directories of the names are among the inodes.
    """
    if isinstance(body, msg.PathRequest) and b"/" in body.path:
        return None
    match body:
        case msg.Rename(path, base, target, target_base) | msg.Link(path, base, target, target_base):
            return (base, target_base), ((base, path), (target_base, target))
        case msg.SetAttributes() | msg.SetXattr() | msg.RemoveXattr() | msg.OpenForWrite() if not body.path:
            return (body.base,), ()
        case msg.Mkdir() | msg.Create() | msg.MakeNode() | msg.Symlink() | msg.Unlink() | msg.Rmdir():
            return (body.base,), ((body.base, body.path),)
        case msg.Close() | msg.RecordLength() | msg.AllocateChunk() | msg.Hold():
            return (body.inode,), ()
        case _:
            return None
