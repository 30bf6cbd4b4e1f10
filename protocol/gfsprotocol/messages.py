"""Every control message, in one file: what clients, masters and chunk servers say to each other over the RPC channel.

A frame is a msgpack array of :data:`Message`; see ``docs/formats.md``. Structs travel as arrays, so fields may only be
added at the end, with a default. Paths and names are bytes, as POSIX has them; times are nanoseconds since the epoch;
sizes and offsets are bytes.
"""

from __future__ import annotations

import msgspec

from gfsprotocol.ids import ROOT_INODE

PROTOCOL_VERSION = 1


class Wire(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of plain values inside messages."""


# ---------------------------------------------------------------------------------------------------------- hello


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """The first frame of either side. ``nonce`` is what the peer must answer to show that it knows the key."""

    protocol_version: int
    role: str
    """``client``, ``chunkserver`` or ``master``: also which key proves the peer."""
    name: bytes
    """Who speaks: a client id, a server id or a node name."""
    nonce: bytes
    features: list[str] = []


class Proof(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """The second frame: HMAC over both nonces and the role, with the key of that role."""

    mac: bytes


# ------------------------------------------------------------------------------------------------------ envelopes


class Call(Wire, frozen=True):
    """The identity of a mutation inside its client (RIFL, SOSP'15 §3): results below ``floor`` may be forgotten."""

    number: int
    floor: int
    retry: bool = False
    """Whether it may have been sent before."""
    unknown_is_new: bool = False
    """Whether the client knows that it has made no change lately: that its calls are unknown is no reason to refuse."""


class Request(msgspec.Struct, array_like=True, frozen=True, tag=10, gc=False):
    id: int
    body: RequestBody
    deadline_ms: int
    """How long the sender will wait from now."""
    user: tuple[int, ...] = ()
    """uid, gid and supplementary groups; empty means the ones of the hello's process: root for servers."""
    call: Call | None = None
    minimum_sequence: int = 0
    """Answer only from a state that contains the log up to here."""
    at_standby: bool = False
    """A standby may answer, if its state contains that."""
    confined: tuple[bytes, ...] = ()
    """If there are any, directories: no symbolic link is followed in a path but above these."""


class Response(msgspec.Struct, array_like=True, frozen=True, tag=11, gc=False):
    id: int
    body: ReplyBody
    sequence: int = 0
    """The log sequence that the answer reflects."""


class Notice(msgspec.Struct, array_like=True, frozen=True, tag=12, gc=False):
    """A message that wants no answer."""

    body: NoticeBody


# -------------------------------------------------------------------------------------------------- shared values


class Attributes(Wire, frozen=True):
    """What ``stat`` shows. ``mode`` holds the file type and the permission bits, as ``st_mode``."""

    inode: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    accessed_ns: int
    modified_ns: int
    changed_ns: int
    replication: int
    chunk_bytes: int
    open_writers: int
    """How many clients have it open for writing."""
    device: int = 0
    """Of a device node: its number, as ``st_rdev``."""
    has_xattrs: bool = True
    """Whether there are extended attributes; masters of before do not say."""


class Entry(Wire, frozen=True):
    """One line of a directory listing."""

    name: bytes
    attributes: Attributes


class FileVersion(Wire, frozen=True):
    """One state of one file: with equal fields, its content is the same (HTTP's strong validator)."""

    inode: int
    size: int
    changed_ns: int


class ServerAddress(Wire, frozen=True):
    """Where a chunk server takes bulk data."""

    server: int
    host: str
    port: int


class ChunkLength(Wire, frozen=True):
    """How many bytes of a chunk a writer has had acknowledged by all its replicas."""

    index: int
    chunk: int
    length: int
    version: int = 0
    """Under which it was acknowledged; a length from before a cut is refused."""


class ChunkLocation(Wire, frozen=True):
    """Where one chunk of a file can be read. ``chunk`` 0 is a hole: zeros that no server stores."""

    index: int
    chunk: int
    version: int
    length: int
    """Bytes recorded; beyond them the chunk reads as zeros up to the file's size."""
    servers: tuple[int, ...]
    token: bytes


class Grant(Wire, frozen=True):
    """The right to mutate a chunk for a while; :mod:`gfsprotocol.tokens` signs it."""

    chunk: int
    base_version: int
    """Replicas with this version or more hold all that was acknowledged. 0 for a chunk of which nothing was ever
    recorded: a member without a replica begins with an empty one."""
    version: int
    inode: int
    index: int
    chunk_bytes: int
    cut_length: int
    """The replicas must be cut to this length before the first mutation; -1 for no cut."""
    epoch: int
    issued_ms: int
    expires_ms: int
    """On the issuing leader's token clock (milliseconds since its epoch began, monotonic)."""
    members: tuple[ServerAddress, ...]
    """The chain in order; the first is the primary."""

    @property
    def is_first(self) -> bool:
        """Whether it is a new chunk's first: its version came into the log with the chunk, and nobody has it yet."""
        return self.base_version == 0 and self.version == 1


class TrashEntry(Wire, frozen=True):
    inode: int
    path: bytes
    """Where it was."""
    deleted_ns: int
    expires_ns: int
    uid: int
    is_directory: bool
    size: int


# ------------------------------------------------------------------------------------- requests: namespace (client)


class PathRequest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of requests that name a place: ``path`` below the inode ``base``."""

    path: bytes
    base: int = ROOT_INODE


class Stat(PathRequest, frozen=True, tag=100):
    """Reply: :class:`AttributesReply`. An empty path is the base itself."""

    follow: bool = True


class List(PathRequest, frozen=True, tag=101):
    """Names greater than ``after``, in byte order. Reply: :class:`Listing`."""

    after: bytes = b""
    limit: int = 1000


class ReadLink(PathRequest, frozen=True, tag=102):
    """Reply: :class:`Data`."""


class Mkdir(PathRequest, frozen=True, tag=103):
    """``parents`` makes missing ancestors and accepts an existing directory (``mkdir -p``). Reply: AttributesReply."""

    mode: int = 0o755
    parents: bool = False


class Create(PathRequest, frozen=True, tag=104):
    """Makes a regular file, or opens the existing one. Reply: :class:`AttributesReply`.

    ``exclusive`` refuses an existing one; ``truncate`` empties it; ``open`` registers the caller as a writer, to be
    ended by :class:`Close`. ``anonymous`` makes a file without a name in the directory that the path names; it lives as
    long as its writer, unless :class:`Publish` names it. 0 for replication and chunk_bytes takes the defaults.
    """

    mode: int = 0o644
    replication: int = 0
    chunk_bytes: int = 0
    exclusive: bool = False
    truncate: bool = False
    open: bool = True
    anonymous: bool = False
    allocate: bool = False
    """For a new, open file: its first chunk and the lease on it are wanted in the same answer, if that can be."""
    follow: bool = True
    """If not, a symlink at the end of the path is refused with SymlinkLoop, as with O_NOFOLLOW of open(2)."""


class OpenForWrite(PathRequest, frozen=True, tag=105):
    """Registers the caller as a writer of an existing file. Reply: AttributesReply."""

    truncate: bool = False
    follow: bool = True


class Close(msgspec.Struct, array_like=True, frozen=True, tag=106, gc=False):
    """Records lengths and ends one registration as a writer (HDFS calls it complete). Reply: AttributesReply."""

    inode: int
    chunks: tuple[ChunkLength, ...] = ()
    size: int = -1
    """The file grows to this size; -1 leaves it to the chunks' lengths."""
    modified_ns: int = 0
    """0 takes the master's clock."""


class RecordLength(msgspec.Struct, array_like=True, frozen=True, tag=107, gc=False):
    """Makes acknowledged bytes visible to readers; a size never shrinks by it. Reply: AttributesReply."""

    inode: int
    chunks: tuple[ChunkLength, ...]
    size: int = -1


class Publish(PathRequest, frozen=True, tag=108):
    """Gives an anonymous file its name; ``replace`` puts it in place of an existing file. Reply: AttributesReply."""

    inode: int = 0
    replace: bool = False
    expected: FileVersion | None = None
    """Only if this is what is replaced, else ConditionFailed."""


class Rename(PathRequest, frozen=True, tag=109):
    """rename(2) and renameat2(2)'s NOREPLACE and EXCHANGE. Reply: Done, or Removed with ``hold``."""

    target: bytes = b""
    target_base: int = ROOT_INODE
    no_replace: bool = False
    exchange: bool = False
    hold: bool = False
    """As in Unlink, for the file that is replaced."""
    expected: FileVersion | None = None
    """Only if this is at ``target``, else ConditionFailed."""


class Unlink(PathRequest, frozen=True, tag=110):
    """Removes a name that is not a directory. Reply: Done, or Removed with ``hold``.

    ``hold`` registers the caller as a writer of a regular file whose last name this was, in the same step: the file
    lives until the caller's Close. That is how a mount keeps a file that one of its programs still has open.
    """

    hold: bool = False
    expected: FileVersion | None = None
    """Only if this is what is removed, else ConditionFailed."""


class Rmdir(PathRequest, frozen=True, tag=111):
    """Removes an empty directory. Reply: Done."""


class RemoveTree(PathRequest, frozen=True, tag=112):
    """Removes a file or a directory with all that is in it, in one step; space is reclaimed later. Reply: Done."""


class MoveToTrash(PathRequest, frozen=True, tag=113):
    """As RemoveTree, but kept for ``keep_seconds``. Reply: TrashReply."""

    keep_seconds: int = 86400


class Link(PathRequest, frozen=True, tag=114):
    """Gives the file at ``path`` the second name ``target``. Reply: AttributesReply."""

    target: bytes = b""
    target_base: int = ROOT_INODE


class Symlink(PathRequest, frozen=True, tag=115):
    """Makes ``path`` a symbolic link to ``target``. Reply: AttributesReply."""

    target: bytes = b""


class SetAttributes(PathRequest, frozen=True, tag=116):
    """Changes what is not None. A time of -1 is the master's now. Reply: AttributesReply."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    accessed_ns: int | None = None
    modified_ns: int | None = None
    size: int | None = None
    follow: bool = True
    as_writer: bool = False
    """For size and times: that the caller is registered as a writer is right enough, as with ftruncate(2)."""


class SetReplication(PathRequest, frozen=True, tag=117):
    """Reply: AttributesReply."""

    replication: int = 3


class SetXattr(PathRequest, frozen=True, tag=118):
    """Reply: Done."""

    name: bytes = b""
    value: bytes = b""
    create: bool = False
    replace: bool = False
    follow: bool = True


class GetXattr(PathRequest, frozen=True, tag=119):
    """Reply: Data."""

    name: bytes = b""
    follow: bool = True


class ListXattrs(PathRequest, frozen=True, tag=120):
    """Reply: Names."""

    follow: bool = True


class RemoveXattr(PathRequest, frozen=True, tag=121):
    """Reply: Done."""

    name: bytes = b""
    follow: bool = True


class ListTrash(msgspec.Struct, array_like=True, frozen=True, tag=122, gc=False):
    """The caller's entries (all of them for uid 0), in order of deletion. Reply: Trash."""

    after: int = 0
    """``deleted_ns`` of the last entry seen, which is no other entry's; 0 to begin."""
    limit: int = 1000


class RestoreTrash(PathRequest, frozen=True, tag=123):
    """Puts an entry back at ``path``, or where it was if that is empty. Reply: AttributesReply."""

    inode: int = 0


class EmptyTrash(msgspec.Struct, array_like=True, frozen=True, tag=124, gc=False):
    """Removes up to PURGED_ENTRIES_MAX entries for good; none named means the first of the caller's. Reply: Count."""

    inodes: tuple[int, ...] = ()


class Summarize(PathRequest, frozen=True, tag=125):
    """Totals of a subtree, walked in slices. Reply: Summary."""


class ListOpen(msgspec.Struct, array_like=True, frozen=True, tag=126, gc=False):
    """Files that some client has open for writing (for others than root: one's own). Reply: OpenFiles."""

    after: int = 0
    """``next`` of the reply before; 0 to begin."""
    limit: int = 1000


class CheckAccess(PathRequest, frozen=True, tag=127):
    """``mask`` as access(2): 4 read, 2 write, 1 search. Reply: Done, or the error."""

    mask: int = 0


class MakeNode(PathRequest, frozen=True, tag=128):
    """mknod(2) for what is no regular file: a fifo, a socket, a device. Reply: AttributesReply."""

    mode: int = 0
    """With the file type."""
    device: int = 0


class Hold(msgspec.Struct, array_like=True, frozen=True, tag=129, gc=False):
    """Registers the caller as a writer of an inode, removed or not, without any right to write: it is to live until the
    caller's Close. For files that others remove while they are open here for reading. Reply: AttributesReply."""

    inode: int


# ------------------------------------------------------------------------------------------ requests: data (client)


class Locate(msgspec.Struct, array_like=True, frozen=True, tag=140, gc=False):
    """Where the chunks ``first`` to ``first + count - 1`` are. Reply: Locations."""

    path: bytes
    base: int
    first: int = 0
    count: int = 16


class LocateFiles(msgspec.Struct, array_like=True, frozen=True, tag=150, gc=False):
    """What many regular files are and where their first chunks are, by inode. Reply: FileLocations.

    At most LOCATED_FILES_MAX; InvalidArgument for more. What is missing, no regular file or not for the caller to read
    is left out.
    """

    inodes: tuple[int, ...]


class AllocateChunk(msgspec.Struct, array_like=True, frozen=True, tag=141, gc=False):
    """A new chunk at ``index``, or a lease on the one that is there. Reply: Lease.

    ``replaced`` is a chunk just allocated by the caller on which nothing was acknowledged: it is dropped for another.
    ``excluded`` are servers that failed the caller a moment ago.
    """

    inode: int
    index: int
    excluded: tuple[int, ...] = ()
    replaced: int = 0


class RenewLease(msgspec.Struct, array_like=True, frozen=True, tag=142, gc=False):
    """A lease on an existing chunk: the running one if it is sound, else a new one. Reply: Lease.

    ``failed`` are members that failed under ``version``: the master drops them from the set, with a new version.
    ``refused`` have said that they may lack what the client wrote and did not sync: other holders are wanted then, also
    those that have failed before. WritesLost if there are none that could still have it.
    """

    inode: int
    index: int
    chunk: int
    version: int
    failed: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()


class ReportCorrupt(msgspec.Struct, array_like=True, frozen=True, tag=143, gc=False):
    """A reader saw bytes that do not match their digest; the master lets the server verify its replica. Reply: Done."""

    chunk: int
    version: int
    server: int


class KeepAlive(msgspec.Struct, array_like=True, frozen=True, tag=144, gc=False):
    """The client lives: its open files stay open. Reply: Done."""


class ClusterStatus(msgspec.Struct, array_like=True, frozen=True, tag=145, gc=False):
    """Reply: Status."""


class StatSpace(msgspec.Struct, array_like=True, frozen=True, tag=146, gc=False):
    """Asks for the cluster's sizes only, as statfs(2). Reply: Space."""


class ReleaseBrake(msgspec.Struct, array_like=True, frozen=True, tag=147, gc=False):
    """The operator has looked: held-back deletions may go on. uid 0 only. Reply: Count."""


class Handover(msgspec.Struct, array_like=True, frozen=True, tag=148, gc=False):
    """A planned change of the leader. uid 0 only. Reply: HandedOver, when the leader has given its epoch back."""

    to: str = ""
    """The node that is to follow; empty for the one that is nearest."""


class Watch(msgspec.Struct, array_like=True, frozen=True, tag=149, gc=False):
    """The caller keeps what it is answered from now on, and is to be told by :class:`Invalidate` when another client
    changes it. It holds for this connection. Reply: Done."""


# ------------------------------------------------------------------------------------------------- requests: master


class TailLog(msgspec.Struct, array_like=True, frozen=True, tag=170, gc=False):
    """A standby asks the leader for what follows record ``after``.

    Reply: LogTail, as soon as there is something, or after a while with nothing. It is also how the leader knows its
    standbys, and how these know that it lives. Who leads no more replies EpochEnded.
    """

    node: str
    address: str
    after: int


# ------------------------------------------------------------------------------------------- requests: chunk server


class DiskUsage(Wire, frozen=True):
    path: str
    total_bytes: int
    free_bytes: int
    chunks: int
    failed: str
    """Why the disk is out of use; empty while it works."""


class Register(msgspec.Struct, array_like=True, frozen=True, tag=160, gc=False):
    """A chunk server introduces itself; :class:`ChunkReport` follow. Reply: Registered."""

    server: int
    cluster: bytes
    """16 bytes; empty for a new store, which then belongs to this cluster."""
    host: str
    port: int
    disks: tuple[DiskUsage, ...]
    highest_epoch: int
    highest_chunk: int
    """The largest chunk id stored: a master that has not allocated that far is older than the data."""
    rack: str = ""
    uptime_seconds: float = 0.0
    """Since the process began: one that has just begun remembers nothing of what was not synced."""


class ChunkReport(msgspec.Struct, array_like=True, frozen=True, tag=161, gc=False):
    """A slice of all replicas of a server, each 24 bytes little-endian: chunk id, version, length. Reply: Done."""

    server: int
    replicas: bytes
    last: bool


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag=162, gc=False):
    """Every second, or as soon as something happened. Reply: Orders."""

    server: int
    disks: tuple[DiskUsage, ...]
    stored: bytes
    """New or changed replicas since the last heartbeat, packed as in ChunkReport."""
    dropped: tuple[int, ...]
    """Chunks that this server has no more."""
    corrupt: tuple[int, ...]
    """Chunks whose replica here failed verification; it is kept but never served."""
    finished: tuple[OrderResult, ...] = ()
    connections: int = 0


class OrderResult(Wire, frozen=True):
    order: int
    error: str
    """Empty when done."""


class ConfirmGrant(msgspec.Struct, array_like=True, frozen=True, tag=163, gc=False):
    """The primary has brought all members of a grant to its version; mutations start with the reply. Reply: Done."""

    server: int
    chunk: int
    version: int
    length: int
    """The common length of the replicas."""


# -------------------------------------------------------------------------------------------------- orders (master)


class ReplicateOrder(Wire, frozen=True, tag="replicate"):
    """Copy a chunk from one of ``sources``."""

    order: int
    chunk: int
    version: int
    """Exactly: a source with another one has been written to since the copy was decided on."""
    sources: tuple[ServerAddress, ...]
    token: bytes


class DeleteOrder(Wire, frozen=True, tag="delete"):
    order: int
    chunk: int
    version: int
    """Only a replica of this version or an older one is deleted."""


class VerifyOrder(Wire, frozen=True, tag="verify"):
    order: int
    chunk: int


Order = ReplicateOrder | DeleteOrder | VerifyOrder


# ---------------------------------------------------------------------------------------------------------- replies


class ErrorReply(msgspec.Struct, array_like=True, frozen=True, tag=200, gc=False):
    code: int
    message: str
    hint: str = ""


class Done(msgspec.Struct, array_like=True, frozen=True, tag=201, gc=False):
    pass


class AttributesReply(msgspec.Struct, array_like=True, frozen=True, tag=202, gc=False):
    attributes: Attributes
    lease: Lease | None = None
    """Of the first chunk of a file just made, if Create asked for it."""


class Listing(msgspec.Struct, array_like=True, frozen=True, tag=203, gc=False):
    entries: tuple[Entry, ...]
    more: bool


class Data(msgspec.Struct, array_like=True, frozen=True, tag=204, gc=False):
    data: bytes


class Names(msgspec.Struct, array_like=True, frozen=True, tag=205, gc=False):
    names: tuple[bytes, ...]


class Trash(msgspec.Struct, array_like=True, frozen=True, tag=206, gc=False):
    entries: tuple[TrashEntry, ...]
    more: bool


class Count(msgspec.Struct, array_like=True, frozen=True, tag=207, gc=False):
    count: int


class Summary(msgspec.Struct, array_like=True, frozen=True, tag=208, gc=False):
    files: int
    directories: int
    bytes: int
    """File sizes, each inode once."""
    stored_bytes: int
    """Times the replication."""


class OpenFile(Wire, frozen=True):
    inode: int
    path: bytes
    size: int
    writers: int


class OpenFiles(msgspec.Struct, array_like=True, frozen=True, tag=209, gc=False):
    files: tuple[OpenFile, ...]
    next: int
    """0 if there are no more."""


class Locations(msgspec.Struct, array_like=True, frozen=True, tag=210, gc=False):
    attributes: Attributes
    chunks: tuple[ChunkLocation, ...]
    servers: tuple[ServerAddress, ...]


class FileLocation(Wire, frozen=True):
    """A file, and where its first chunk is; None for an empty file."""

    attributes: Attributes
    chunk: ChunkLocation | None


class FileLocations(msgspec.Struct, array_like=True, frozen=True, tag=216, gc=False):
    """In the order in which they were asked for."""

    files: tuple[FileLocation, ...]
    servers: tuple[ServerAddress, ...]


class Lease(msgspec.Struct, array_like=True, frozen=True, tag=211, gc=False):
    grant: Grant
    token: bytes
    length: int
    """Bytes of the chunk that are recorded."""
    valid_ms: int
    """How long the lease lasts from now."""


class Space(msgspec.Struct, array_like=True, frozen=True, tag=212, gc=False):
    total_bytes: int
    free_bytes: int
    used_bytes: int
    inodes: int
    chunks: int


class ServerStatus(Wire, frozen=True):
    server: int
    host: str
    port: int
    alive: bool
    last_heartbeat_seconds: float
    chunks: int
    disks: tuple[DiskUsage, ...]


class StandbyStatus(Wire, frozen=True):
    node: str
    address: str
    sequence: int
    """The last record that it has applied, as it said when it was last heard."""
    silent_seconds: float


class Status(msgspec.Struct, array_like=True, frozen=True, tag=213, gc=False):
    cluster: bytes
    node: str
    role: str
    epoch: int
    leader: str
    sequence: int
    committed_sequence: int
    safe_mode: bool
    brake: str
    """Why deletions are held back; empty while they are not."""
    inodes: int
    chunks: int
    under_replicated: int
    missing: int
    """Chunks of which no good replica is known."""
    corrupt_replicas: int
    pending_deletions: int
    open_files: int
    clients: int
    servers: tuple[ServerStatus, ...]
    replication: int = 3
    uptime_seconds: float = 0.0
    standbys: tuple[StandbyStatus, ...] = ()
    """As the leader hears of them."""
    lag_ms: int = 0
    """Of a standby: how long ago it last had all that the leader had committed; 0 while it has."""


class TrashReply(msgspec.Struct, array_like=True, frozen=True, tag=214, gc=False):
    entry: TrashEntry


class Removed(msgspec.Struct, array_like=True, frozen=True, tag=215, gc=False):
    """What lost a name, with ``hold``."""

    inode: int
    """0 if nothing was replaced."""
    held: bool
    """Whether it was the last name and the caller is registered as a writer now."""


class Registered(msgspec.Struct, array_like=True, frozen=True, tag=220, gc=False):
    cluster: bytes
    epoch: int
    """0 while this master is not the leader."""
    token_clock_ms: int
    heartbeat_seconds: float


class Orders(msgspec.Struct, array_like=True, frozen=True, tag=221, gc=False):
    """What the master wants done; a chunk server refuses it from an epoch below the highest it has seen."""

    epoch: int
    token_clock_ms: int
    orders: tuple[Order, ...]
    report_again: bool = False
    """The master does not know this server (any more): register and report all chunks."""


class LogBatch(Wire, frozen=True):
    """A row of the operation log, see docs/formats.md."""

    first: int
    last: int
    epoch: int
    hash: bytes
    payload: bytes


class LogTail(msgspec.Struct, array_like=True, frozen=True, tag=222, gc=False):
    """What a standby gets from the leader. What is missing between its state and the batches it reads from the log."""

    epoch: int
    committed: int
    token_clock_ms: int
    batches: tuple[LogBatch, ...] = ()
    successor: str = ""
    """The leader has given its epoch back, in favour of this node."""


class EpochEnded(msgspec.Struct, array_like=True, frozen=True, tag=225, gc=False):
    """This node has led the epoch and does not any more, whether or not the log could be told."""

    epoch: int


class HandedOver(msgspec.Struct, array_like=True, frozen=True, tag=223, gc=False):
    node: str
    address: str


class Leading(msgspec.Struct, array_like=True, frozen=True, tag=180, gc=False):
    """Notice to chunk servers: this master has begun to lead. They send a heartbeat at once."""

    epoch: int
    token_clock_ms: int


class Invalidate(msgspec.Struct, array_like=True, frozen=True, tag=181, gc=False):
    """Notice to a client that watches: others have changed what it may have kept."""

    inodes: tuple[int, ...] = ()
    """Attributes, extended attributes and content."""
    names: tuple[tuple[int, bytes], ...] = ()
    """(directory, name): what is there now, or that nothing is."""
    removed: tuple[int, ...] = ()
    """Regular files that have lost their last name: who still reads them says so by :class:`Hold` before long."""
    everything: bool = False
    """Whatever was kept is to be dropped; what is answered from now on is watched again."""


RequestBody = (
    Stat
    | List
    | ReadLink
    | Mkdir
    | Create
    | OpenForWrite
    | Close
    | RecordLength
    | Publish
    | Rename
    | Unlink
    | Rmdir
    | RemoveTree
    | MoveToTrash
    | Link
    | Symlink
    | SetAttributes
    | SetReplication
    | SetXattr
    | GetXattr
    | ListXattrs
    | RemoveXattr
    | ListTrash
    | RestoreTrash
    | EmptyTrash
    | Summarize
    | ListOpen
    | CheckAccess
    | MakeNode
    | Hold
    | Watch
    | Locate
    | LocateFiles
    | AllocateChunk
    | RenewLease
    | ReportCorrupt
    | KeepAlive
    | ClusterStatus
    | StatSpace
    | ReleaseBrake
    | Handover
    | TailLog
    | Register
    | ChunkReport
    | Heartbeat
    | ConfirmGrant
)
ReplyBody = (
    ErrorReply
    | Done
    | AttributesReply
    | Listing
    | Data
    | Names
    | Trash
    | TrashReply
    | Removed
    | Count
    | Summary
    | OpenFiles
    | Locations
    | FileLocations
    | Lease
    | Space
    | Status
    | Registered
    | Orders
    | LogTail
    | EpochEnded
    | HandedOver
)
NoticeBody = Done | Leading | Invalidate
Message = Hello | Proof | Request | Response | Notice
