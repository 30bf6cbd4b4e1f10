"""Planning what writers of a file do: open it, hold it, record its length, close it, give it a name. Pure."""

import stat

from gfsmaster import operations as op
from gfsmaster.attributes import AttributePlanner, check_times
from gfsmaster.namespace import WRITE, Namespace, User, shown
from gfsmaster.places import Places, Plan
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import AlreadyExists, FileTooLarge, InvalidArgument, IsADirectory, StaleHandle
from gfsprotocol.ids import FILE_BYTES_MAX


class WritingPlanner:
    """Plans OpenForWrite, Hold, Publish, RecordLength and Close."""

    def __init__(self, state: State, namespace: Namespace, places: Places, attributes: AttributePlanner) -> None:
        self._state = state
        self._inodes = state.inodes
        self._namespace = namespace
        self._places = places
        self._attributes = attributes

    def open_for_write(self, body: msg.OpenForWrite, user: User, client: bytes, _now_ns: int) -> Plan:
        slot = self._namespace.find(user, body.base, body.path, body.follow)
        return self.open_existing(slot, body.path, user, client, body.truncate)

    def open_existing(self, slot: int, path: bytes, user: User, writer: bytes, truncate: bool) -> Plan:
        """Registers ``writer``, if it is not empty, with the file that ``path`` has led to."""
        if slot in self._inodes.directories:
            raise IsADirectory(f"{shown(path)}: is a directory")
        if writer or truncate:
            self._namespace.require(slot, user, WRITE, path)
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"{shown(path)}: not a regular file")
        operations: list[op.AnyOperation] = []
        inode = self._inodes.ids[slot]
        if truncate:
            operations.append(op.ChangeAttributes(inode, self._attributes.mode_written_by(slot, user), size=0))
        if writer:
            operations.append(op.OpenWriter(inode, writer))
        return tuple(operations) or msg.AttributesReply(self._state.attributes(slot))

    def hold(self, body: msg.Hold, _user: User, client: bytes, _now_ns: int) -> Plan:
        slot = self._namespace.base(body.inode)
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"inode {body.inode} is not a regular file")
        return (op.OpenWriter(body.inode, client),)

    def publish(self, body: msg.Publish, user: User, client: bytes, _now_ns: int) -> Plan:
        slot = self._namespace.base(body.inode)
        if self._inodes.links[slot] or not self._state.writers.has(slot, client):
            raise InvalidArgument(f"inode {body.inode} is not an anonymous file of this client")
        place = self._namespace.walk(user, body.base, body.path, follow=False)
        self._places.require_creation(place, user, body.path)
        link = op.MakeLink(self._inodes.ids[place.parent], place.name, body.inode)
        self._places.check_expected(place.slot, body.expected, body.path)
        if not place.slot:
            return (link,)
        if not body.replace:
            raise AlreadyExists(f"{shown(body.path)}: file exists")
        if place.slot in self._inodes.directories:
            raise IsADirectory(f"{shown(body.path)}: is a directory")
        self._namespace.require_change(place, user, body.path)
        return (op.RemoveName(self._inodes.ids[place.parent], place.name), link)

    def close(self, body: msg.Close, user: User, client: bytes, now_ns: int) -> Plan:
        check_times(body.modified_ns)
        slot = self._namespace.base(body.inode)
        if not self._state.writers.has(slot, client):
            raise StaleHandle(f"inode {body.inode} is not open for this client (any more)")
        return (
            *self._lengths(body, slot, user, now_ns, body.modified_ns),
            op.CloseWriter(body.inode, client, frees_unused=True),
        )

    def record_length(self, body: msg.RecordLength, user: User, client: bytes, now_ns: int) -> Plan:
        slot = self._namespace.base(body.inode)
        if not stat.S_ISREG(self._inodes.mode[slot]):
            raise InvalidArgument(f"inode {body.inode} is not a regular file")
        if not self._state.writers.has(slot, client):
            self._namespace.require(slot, user, WRITE, b"")
        return self._lengths(body, slot, user, now_ns, 0) or msg.AttributesReply(self._state.attributes(slot))

    def _lengths(
        self, body: msg.Close | msg.RecordLength, slot: int, user: User, now_ns: int, modified_ns: int
    ) -> op.Operations:
        """Recorded lengths, checked against what the file has now."""
        chunk_bytes = self._inodes.chunk_bytes(slot)
        size = body.size
        for recorded in body.chunks:
            chunk = self._state.chunks.slot_of(recorded.chunk)
            if not chunk or self._inodes.chunk_at(slot, recorded.index) != chunk:
                raise StaleHandle(f"chunk {recorded.chunk} is no longer part of the file: it was truncated meanwhile")
            if recorded.length > self._state.chunks.cuts.get(chunk, chunk_bytes):
                raise StaleHandle(f"chunk {recorded.chunk} was truncated after its length was acknowledged")
            if not 0 <= recorded.length <= chunk_bytes:
                raise InvalidArgument(f"a chunk cannot be {recorded.length} bytes long")
            size = max(size, recorded.index * chunk_bytes + recorded.length)
        if size > FILE_BYTES_MAX:
            raise FileTooLarge(f"a file of {size} bytes is larger than the limit of {FILE_BYTES_MAX}")
        if not body.chunks and size < 0:
            return ()
        inode = self._inodes.ids[slot]
        recording = op.RecordLengths(inode, body.chunks, max(size, 0), modified_ns or now_ns)
        mode = self._attributes.mode_written_by(slot, user)
        return (recording,) if mode is None else (op.ChangeAttributes(inode, mode), recording)
