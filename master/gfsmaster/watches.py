"""Who keeps what of the leader's answers, and has to be told when others change it (AFS's callbacks, SOSP'87). Pure.

Of each client that watches, one byte per inode says what it may keep of it:

- ATTRIBUTES: attributes, extended attributes, content. Told once: who wants to keep them again asks again;
- NAMES: what stands under the directory's names, or that nothing does; of a directory that it has made, too. It stays
  until the directory is gone;
- SHOWN: it was told of the inode, and may have it open: then it has to know that the last name is gone.

What was shown is what the answer holds, and what was looked up on the way to it (:class:`~gfsmaster.namespace.Trail`),
of refusals too: that there is no such name is kept as well. Totals of trees, the trash and the list of open files are
not watched; of the attributes, ``open_writers`` is not.

A change is noted when it is applied, and told when it is durable, behind all answers from before it. A client's own
changes on its own connection are not told to it. Bounded: what may be kept (:data:`PAGES_MAX`), and what waits for the
log (:data:`WAITING_MAX`); beyond that a client is told to drop everything, and nothing is watched for it but what it is
answered from then on, so that nothing grows.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

from gfsmaster.namespace import Namespace, Trail
from gfsmaster.state import State
from gfsmaster.touched import Before, Touched
from gfsprotocol.messages import AttributesReply, FileLocations, Invalidate, Listing, Locations, ReplyBody

ATTRIBUTES: Final = 1
NAMES: Final = 2
SHOWN: Final = 4

PAGE_BITS: Final = 9
PAGE_SLOTS: Final = 1 << PAGE_BITS
PAGE_MASK: Final = PAGE_SLOTS - 1
PAGES_MAX: Final = 32_768
"""Per client: 16 million inodes, if they were made one after the other."""
WAITING_MAX: Final = 65_536
"""Inodes and names of which a client is to be told when they are durable."""
NOTICE_ITEMS: Final = 4096

Key = TypeVar("Key", bound=Hashable)
"""A connection."""


class _Client(Generic[Key]):
    """One connection that watches."""

    __slots__ = ("key", "pages", "waiting")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.pages: dict[int, bytearray] = {}
        """What it may keep, a byte per inode slot; by slot / PAGE_SLOTS."""
        self.waiting = 0
        """Inodes and names of which it is to be told when they are durable."""


class _Changed:
    """What a client is to be told."""

    __slots__ = ("everything", "inodes", "names", "removed")

    def __init__(self, everything: bool = False) -> None:
        self.inodes: dict[int, None] = {}
        self.names: dict[tuple[int, bytes], None] = {}
        self.removed: dict[int, None] = {}
        self.everything = everything

    def __len__(self) -> int:
        return len(self.inodes) + len(self.names) + len(self.removed)

    def add(self, later: "_Changed") -> None:
        if later.everything:
            self.inodes.clear()
            self.names.clear()
            self.removed.clear()
            self.everything = True
        self.inodes |= later.inodes
        self.names |= later.names
        self.removed |= later.removed

    def notices(self) -> list[Invalidate]:
        """It as notices of a bounded size."""
        inodes, names, removed = tuple(self.inodes), tuple(self.names), tuple(self.removed)
        made = [Invalidate(everything=True)] if self.everything else []
        for start in range(0, max(len(inodes), len(names), len(removed)), NOTICE_ITEMS):
            part = slice(start, start + NOTICE_ITEMS)
            made.append(Invalidate(inodes[part], names[part], removed[part]))
        return made


class Watches(Generic[Key]):
    """All clients that watch. Costs nothing while there are none.

    Around each request of a client stand :meth:`begin` and :meth:`end`; after each record comes :meth:`applied`.
    """

    def __init__(self, state: State, namespace: Namespace, on_forgotten: Callable[[], None] = lambda: None) -> None:
        """``on_forgotten``: it is not known any more what some client was shown, and may have open."""
        self._on_forgotten = on_forgotten
        self._state = state
        self._inodes = state.inodes
        self._namespace = namespace
        self._clients: dict[Key, _Client[Key]] = {}
        self._holders: dict[int, dict[_Client[Key], bytearray]] = {}
        """Who keeps something of the inodes of a page."""
        self._speaker: _Client[Key] | None = None
        """Whose request is being answered, if it watches."""
        self._trail: Trail | None = None
        """What its answer has shown so far."""
        self._waiting: list[tuple[int, _Client[Key], _Changed]] = []
        """(record, client, what changed), in order of the records."""

    def __len__(self) -> int:
        return len(self._clients)

    # --------------------------------------------------------------------------------------------------------- clients

    def add(self, key: Key) -> None:
        """Watches from now on; who watched before begins anew."""
        self.remove(key)
        self._clients[key] = _Client(key)
        if self._state.touched is None:
            self._state.touched = Touched()

    def remove(self, key: Key) -> None:
        client = self._clients.pop(key, None)
        if client is None:
            return
        if self._speaker is client:
            self._speaker = None
        self._forget(client)
        self._waiting = [waiting for waiting in self._waiting if waiting[1] is not client]
        if not self._clients:
            self._state.touched = None

    def close(self) -> None:
        """The leadership is over: nobody is told anything any more."""
        for key in list(self._clients):
            self.remove(key)

    def drop(self, key: Key) -> None:
        """Has a client drop all that it keeps: behind the answers that wait for the log, for those count too."""
        client = self._clients.get(key)
        if client is None:
            return
        self._forget(client)
        if client.waiting:
            client.waiting = 0
            self._waiting = [waiting for waiting in self._waiting if waiting[1] is not client]
        self._waiting.append((self._state.sequence, client, _Changed(everything=True)))

    def drop_all(self) -> None:
        """As :meth:`drop`, for all of them."""
        for key in self._clients:
            self.drop(key)

    def _forget(self, client: _Client[Key]) -> None:
        for number in client.pages:
            holders = self._holders[number]
            del holders[client]
            if not holders:
                del self._holders[number]
        if client.pages:
            client.pages = {}
            self._on_forgotten()

    # ----------------------------------------------------------------------------------------------- what is shown

    def begin(self, key: Key) -> None:
        """A request of this connection is being answered; until :meth:`end` what is changed is its doing."""
        self._speaker = self._clients.get(key) if self._clients else None
        if self._speaker is not None:
            self._trail = self._namespace.trail = Trail()

    def end(self, reply: ReplyBody | None) -> None:
        """The request was answered, by ``reply`` if that shows anything."""
        client, trail = self._speaker, self._trail
        self._speaker = self._trail = self._namespace.trail = None
        if client is None or trail is None:
            return
        found = ATTRIBUTES | SHOWN
        self._mark(client, trail.looked, NAMES)
        self._mark(client, trail.found, found | NAMES if isinstance(reply, Listing) else found)
        if isinstance(reply, Listing):
            self._mark(client, (entry.attributes.inode for entry in reply.entries), found)
        elif isinstance(reply, AttributesReply | Locations):
            self._mark(client, (reply.attributes.inode,), found)
        elif isinstance(reply, FileLocations):
            self._mark(client, (file.attributes.inode for file in reply.files), found)

    def others_keep(self, slot: int, key: Key | None = None) -> bool:
        """Whether a client that watches, other than ``key`` if that is one, may have the inode open."""
        holders = self._holders.get(slot >> PAGE_BITS, {})
        return any(client.key != key and page[slot & PAGE_MASK] & SHOWN for client, page in holders.items())

    def _mark(self, client: _Client[Key], inodes: Iterable[int], bits: int) -> None:
        slot_of, pages = self._inodes.slot_of, client.pages
        for inode in inodes:
            slot = slot_of(inode)
            if not slot:
                continue
            page = pages.get(slot >> PAGE_BITS)
            if page is None:
                page = self._page(client, slot >> PAGE_BITS)
                pages = client.pages
            page[slot & PAGE_MASK] |= bits

    def _page(self, client: _Client[Key], number: int) -> bytearray:
        if len(client.pages) >= PAGES_MAX:
            self.drop(client.key)
        page = client.pages[number] = bytearray(PAGE_SLOTS)
        self._holders.setdefault(number, {})[client] = page
        return page

    # --------------------------------------------------------------------------------------------- what was changed

    def applied(self) -> None:
        """A record was applied: notes whom to tell what it has touched."""
        touched = self._state.touched
        if touched is None:
            return
        changed: dict[_Client[Key], _Changed] = {}
        # The names first: their directory may be gone by the same record, and with it what is known of who keeps them.
        for slot, directory, name in touched.names:
            for client, page in self._holders.get(slot >> PAGE_BITS, {}).items():
                if page[slot & PAGE_MASK] & NAMES and client is not self._speaker:
                    changed.setdefault(client, _Changed()).names[directory, name] = None
        for slot, before in touched.inodes.items():
            self._note_inode(slot, before, changed)
        if self._speaker is not None:
            # What a client has made it knows to be empty, without looking. (What is moved gets another parent, too.)
            self._mark(self._speaker, [inode for _, inode, name in touched.names if name == b".."], NAMES)
        touched.clear()
        for client, what in changed.items():
            self._wait(client, what)

    def _note_inode(self, slot: int, before: Before, changed: dict[_Client[Key], _Changed]) -> None:
        holders = self._holders.get(slot >> PAGE_BITS)
        if not holders:
            return
        is_gone = self._inodes.ids[slot] != before.inode
        is_removed = before.is_regular and before.links and (is_gone or not self._inodes.links[slot])
        index = slot & PAGE_MASK
        for client, page in holders.items():
            bits = page[index]
            if not bits:
                continue
            if client is not self._speaker:
                if bits & ATTRIBUTES:
                    changed.setdefault(client, _Changed()).inodes[before.inode] = None
                    page[index] &= ~ATTRIBUTES
                if bits & SHOWN and is_removed:
                    changed.setdefault(client, _Changed()).removed[before.inode] = None
            if is_gone:
                page[index] = 0

    def _wait(self, client: _Client[Key], what: _Changed) -> None:
        client.waiting += len(what)
        if client.waiting > WAITING_MAX:
            self.drop(client.key)
        else:
            self._waiting.append((self._state.sequence, client, what))

    # ------------------------------------------------------------------------------------------------ what is told

    def take(self, committed: int) -> list[tuple[Key, list[Invalidate]]]:
        """What is to be told now that the log is durable up to this record; to be sent behind the answers up to it."""
        if not self._waiting or self._waiting[0][0] > committed:
            return []
        told: dict[_Client[Key], _Changed] = {}
        done = 0
        for sequence, client, what in self._waiting:
            if sequence > committed:
                break
            client.waiting -= len(what)
            told.setdefault(client, _Changed()).add(what)
            done += 1
        del self._waiting[:done]
        return [(client.key, what.notices()) for client, what in told.items()]
