"""Directories of which every name is known here, so that who asks for another one need not wait for the master.

A program that makes a file asks for its name first, and is told that there is none. In a directory that this mount has
made itself, or has listed from the beginning to the end, that is known without a question. As with a missing name that
the kernel keeps, the master tells when another client puts something there: of a directory that was listed, or made,
it is told of every name. Nothing that changes the directory is answered from here.

What is kept of a directory is never less than its names: whatever is changed, by others or by us, is one more name that
may be there, until it is known to be removed; our own changes count when they are sent and again when answered.
Bounded. Belongs to the event loop, and knows neither the kernel nor the master: it is told what happens by
:class:`~gfsclient.mount.remembered.Remembered`.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

NAMES_MAX: Final = 100_000
"""Of all directories together."""
DIRECTORIES_MAX: Final = 4096
GATHERING_MAX: Final = 64
"""Directories that are being listed."""
TOUCHED_MAX: Final = 4096
"""Names that may be changed in one while it is."""


class Names:
    """Names that may be in one directory."""

    __slots__ = ("_least", "directory", "touches")

    def __init__(self, directory: int) -> None:
        self.directory = directory
        self.touches: dict[bytes, int] = {}
        """By name: a number that grows by one whenever it is changed."""
        self._least = 0
        """Where that begins: above the numbers of all that were removed, so that none ever comes again."""

    def __contains__(self, name: bytes) -> bool:
        return name in self.touches

    def __len__(self) -> int:
        return len(self.touches)

    def times(self, name: bytes) -> int:
        """To tell later how often it was changed since."""
        return self.touches.get(name, self._least)

    def touch(self, name: bytes) -> None:
        """It was changed: it may be there."""
        self.touches[name] = self.times(name) + 1

    def add(self, listed: Iterable[bytes]) -> None:
        """They were there at some time since we began."""
        for name in listed:
            self.touches.setdefault(name, self._least)

    def remove(self, name: bytes) -> None:
        """It is not there."""
        self._least = max(self._least, self.touches.pop(name))


class Before(NamedTuple):
    """How it stood with a name."""

    names: Names | None
    """None if those of its directory were not all known."""
    name: bytes
    times: int


class CompleteDirectories:
    """Belongs to the event loop."""

    def __init__(self) -> None:
        self._complete: OrderedDict[int, Names] = OrderedDict()
        """Those used last come last."""
        self._gathering: OrderedDict[int, Names] = OrderedDict()
        """By directory that is being listed: what was changed in it since its listing began."""
        self._count = 0
        """Names of the complete ones."""

    def lacks(self, directory: int, name: bytes) -> bool:
        """Whether it is known that the name is not there."""
        names = self._complete.get(directory)
        if names is None:
            return False
        self._complete.move_to_end(directory)
        return name not in names

    # ---------------------------------------------------------------------------------------------------- to be known

    def gather(self, directory: int) -> Names:
        """To be called before a directory is listed from its beginning; :meth:`gathered` belongs to it.

        A listing that was begun before is not waited for any more.
        """
        names = self._gathering[directory] = Names(directory)
        self._gathering.move_to_end(directory)
        if len(self._gathering) > GATHERING_MAX:
            self._gathering.popitem(last=False)
        return names

    def gathered(self, names: Names, listed: Iterable[bytes]) -> None:
        """The directory was listed to its end: ``listed`` are the names, each as it was at some time since it began."""
        if self._gathering.get(names.directory) is names:
            del self._gathering[names.directory]
            names.add(listed)
            self._keep(names)

    def give_up(self, names: Names) -> None:
        """The directory was not listed to its end."""
        if self._gathering.get(names.directory) is names:
            del self._gathering[names.directory]

    def made(self, directory: int) -> None:
        """A directory is new, and nobody has put anything into it."""
        self._keep(Names(directory))

    def _keep(self, names: Names) -> None:
        self._forget(names.directory)
        self._complete[names.directory] = names
        self._count += len(names)
        self._bound()

    def _bound(self) -> None:
        while self._count > NAMES_MAX or len(self._complete) > DIRECTORIES_MAX:
            self._forget(next(iter(self._complete)))

    # -------------------------------------------------------------------------------------------------------- changes

    def touched(self, directory: int, name: bytes) -> None:
        """Something may be, or may come to be, under a name."""
        names = self._complete.get(directory)
        if names is not None:
            self._count -= len(names)
            names.touch(name)
            self._count += len(names)
            self._bound()
        names = self._gathering.get(directory)
        if names is not None:
            names.touch(name)
            if len(names) > TOUCHED_MAX:
                self.give_up(names)

    def before(self, directory: int, name: bytes) -> Before:
        """How it stands with a name, to be compared with by :meth:`lost`."""
        names = self._complete.get(directory)
        return Before(names, name, names.times(name) if names is not None else 0)

    def lost(self, before: Before, touches: int) -> None:
        """At some time since ``before`` there was nothing under a name. If it was touched no more than ``touches``
        times since, as was to be expected, nothing was put there afterwards."""
        names, name, times = before
        if names is None or self._complete.get(names.directory) is not names:
            return
        if name in names and names.times(name) == times + touches:
            names.remove(name)
            self._count -= 1

    def drop_everything(self) -> None:
        """Nothing is known to be true any more."""
        self._complete.clear()
        self._gathering.clear()
        self._count = 0

    def _forget(self, directory: int) -> None:
        names = self._complete.pop(directory, None)
        if names is not None:
            self._count -= len(names)
