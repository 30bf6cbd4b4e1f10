"""The operations of the log: what happened, with everything that was chosen when it was planned.

An operation names inodes and chunks by id, carries new ids and times, and says nothing about who was allowed to: the
planner has checked that. Structs are stored as arrays; fields may only be added at the end, with a default.
"""

import msgspec

from gfsprotocol.messages import ChunkLength, ReplyBody

LOG_FORMAT = 1


class Operation(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all operations."""


class Genesis(Operation, frozen=True, tag=1):
    """The first record of a cluster, once (sequence 1): the root directory."""

    cluster: bytes
    format: int
    mode: int
    uid: int
    gid: int
    replication: int
    chunk_bytes: int


class BeginEpoch(Operation, frozen=True, tag=2):
    """A new leader's first record."""

    epoch: int
    node: str


class StateDigest(Operation, frozen=True, tag=3):
    """What the leader's state digest was before this record; whoever computes another one stops."""

    digest: bytes


class Answered(Operation, frozen=True, tag=4):
    """What a retried call was answered with although it changes nothing: a refusal, most often.

    The call may have been sent before, on a connection that broke, and come late: it must not be carried out then.
    """

    reply: ReplyBody


class MakeDirectory(Operation, frozen=True, tag=10):
    parent: int
    name: bytes
    inode: int
    mode: int
    uid: int
    gid: int
    replication: int
    chunk_bytes: int


class MakeFile(Operation, frozen=True, tag=11):
    """An empty regular file; an empty name makes an anonymous one, whose parent is where it would have been."""

    parent: int
    name: bytes
    inode: int
    mode: int
    uid: int
    gid: int
    replication: int
    chunk_bytes: int
    writer: bytes = b""
    """The client that has it open, if any."""
    chunk: int = 0
    """Its first chunk, if it gets one at once."""


class MakeSymlink(Operation, frozen=True, tag=12):
    parent: int
    name: bytes
    inode: int
    target: bytes
    uid: int
    gid: int


class MakeLink(Operation, frozen=True, tag=13):
    """A further name of a file, or the first one of an anonymous file."""

    parent: int
    name: bytes
    inode: int


class Move(Operation, frozen=True, tag=14):
    """rename(2); what stood under the new name is removed as if by RemoveName."""

    parent: int
    name: bytes
    new_parent: int
    new_name: bytes
    holder: bytes = b""
    """As in RemoveName, for what is replaced."""


class Exchange(Operation, frozen=True, tag=15):
    parent: int
    name: bytes
    new_parent: int
    new_name: bytes
    holder: bytes = b""
    """Only so that the result is Removed, as of a Move; nothing loses its name."""


class RemoveName(Operation, frozen=True, tag=16):
    """Removes a name: a file lives on while it has other names or writers; a directory with all that is in it."""

    parent: int
    name: bytes
    holder: bytes = b""
    """The client that keeps a regular file whose last name it was, as a writer; then the result is Removed."""


class ChangeAttributes(Operation, frozen=True, tag=17):
    """None leaves a value as it is. A smaller size frees chunks and marks the last one to be cut."""

    inode: int
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    accessed_ns: int | None = None
    modified_ns: int | None = None
    size: int | None = None
    replication: int | None = None


class PutXattr(Operation, frozen=True, tag=18):
    inode: int
    name: bytes
    value: bytes


class DropXattr(Operation, frozen=True, tag=19):
    inode: int
    name: bytes


class OpenWriter(Operation, frozen=True, tag=20):
    inode: int
    client: bytes


class CloseWriter(Operation, frozen=True, tag=21):
    inode: int
    client: bytes
    frees_unused: bool = False
    """Whether the chunks of a file that the last writer leaves empty are freed."""


class CloseClient(Operation, frozen=True, tag=22):
    """A client has gone: all that it has open is closed as it stands."""

    client: bytes
    frees_unused: bool = False
    """As in CloseWriter."""


class MakeNode(Operation, frozen=True, tag=23):
    """A fifo, a socket or a device."""

    parent: int
    name: bytes
    inode: int
    mode: int
    """With the file type."""
    uid: int
    gid: int
    device: int


class AddChunk(Operation, frozen=True, tag=30):
    """A new chunk at ``index``; one that stood there is freed."""

    inode: int
    index: int
    chunk: int


class SetChunkVersion(Operation, frozen=True, tag=31):
    """All replicas of the set have this version; older ones are stale from now on."""

    chunk: int
    version: int


class RecordLengths(Operation, frozen=True, tag=32):
    inode: int
    chunks: tuple[ChunkLength, ...]
    size: int
    """The file is at least so long."""
    modified_ns: int


class TrashName(Operation, frozen=True, tag=40):
    parent: int
    name: bytes
    path: bytes
    uid: int
    expires_ns: int


class RestoreTrashed(Operation, frozen=True, tag=41):
    inode: int
    parent: int
    name: bytes


class PurgeTrash(Operation, frozen=True, tag=42):
    inodes: tuple[int, ...]


class Reclaim(Operation, frozen=True, tag=43):
    """Frees up to ``entries`` entries of removed trees."""

    entries: int


AnyOperation = (
    Genesis
    | BeginEpoch
    | StateDigest
    | Answered
    | MakeDirectory
    | MakeFile
    | MakeSymlink
    | MakeLink
    | Move
    | Exchange
    | RemoveName
    | ChangeAttributes
    | PutXattr
    | DropXattr
    | OpenWriter
    | CloseWriter
    | CloseClient
    | MakeNode
    | AddChunk
    | SetChunkVersion
    | RecordLengths
    | TrashName
    | RestoreTrashed
    | PurgeTrash
    | Reclaim
)


Operations = tuple[AnyOperation, ...]


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One entry of the log: the operations of one call, applied together or not at all."""

    time_ns: int
    """The leader's clock when it was planned; never smaller than the record's before."""
    operations: tuple[AnyOperation, ...]
    client: bytes = b""
    """The caller, empty for the master's own doing."""
    call: int = 0
    floor: int = 0
    """Results of this client's calls below it need not be kept (RIFL, SOSP'15)."""


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Record]] = msgspec.msgpack.Decoder(list[Record])


def encode_record(record: Record) -> bytes:
    return _encoder.encode(record)


def join_records(encoded: list[bytes]) -> bytes:
    """The payload of a batch from records encoded one by one: a msgpack array of up to 2**32 - 1."""
    return b"\xdd" + len(encoded).to_bytes(4, "big") + b"".join(encoded)


def decode_records(payload: bytes) -> list[Record]:
    """The records of a batch. msgspec.DecodeError if it is not one."""
    return _decoder.decode(payload)
