"""Sans-I/O codec of the bulk channel: how chunk data travels between clients and chunk servers, and along the chain.

A connection starts with :data:`PREAMBLE`, whose first byte no HTTP request can have: that is how one port serves both.
Then both sides send frames: an 8-byte prefix (magic, header length, payload length), a msgpack header, raw payload.
A client may send several requests without waiting; answers come in order. An error that leaves the two sides out of
step, or any error of a write session, ends the connection. ``docs/formats.md`` has the bytes.
"""

import struct
from typing import Final

import msgspec

from gfsprotocol.errors import LocalProtocolError, RemoteProtocolError
from gfsprotocol.ids import CHUNK_BYTES_MAX, KIB, PACKET_BYTES

BULK_VERSION: Final = 1
PREAMBLE: Final = b"\xf6GFSB\x00\x00" + bytes([BULK_VERSION])
PREFIX: Final = struct.Struct("<2sHI")
MAGIC: Final = b"\xf6b"
HEADER_BYTES_MAX: Final = 0xFFFF
SYNC_ITEMS_MAX: Final = 64
"""So many grants fit into a header."""
SINGLE_BYTES_MAX: Final = 128 * KIB
"""What is larger had better stream through the chain, in a session."""
REQUEST_PAYLOAD_BYTES_MAX: Final = PACKET_BYTES
REPLY_PAYLOAD_BYTES_MAX: Final = CHUNK_BYTES_MAX

WRITE: Final = 0
"""Put the payload at ``offset``."""
APPEND: Final = 1
"""Put the payload where the primary chooses; ``offset`` is ignored on the way to it."""
CUT: Final = 2
"""Cut or extend with zeros to ``offset`` bytes."""
SYNC: Final = 3
"""Nothing but the promise: all before is on stable storage."""


class Header(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of bulk headers."""


class OpenWrite(Header, frozen=True, tag=1):
    """Starts a write session on a chunk. Reply: WriteOpened."""

    grant: bytes
    """A signed :class:`~gfsprotocol.messages.Grant`."""
    position: int
    """Which member of the grant the receiver is; it forwards to the next one."""
    client: bytes
    """16 bytes: with ``record`` it makes a repeated append the same append."""
    verifier: int = 0
    """To the primary: that of the unsynced writes which the client relies on, 0 for none; WritesLost if the primary
    may lack them. To the others: the chain's."""
    begins: bool = False
    """To the others: the chunk is new, and the primary has begun with an empty replica just now. A member that has none
    at any other time has lost it."""


class Mutate(Header, frozen=True, tag=2):
    """One mutation with its payload. Reply: Ack, in order, once every later member has applied it too."""

    kind: int
    serial: int
    """The primary's order of mutations under this grant; 0 on the way to the primary."""
    offset: int
    digests: bytes = b""
    """Of the payload cut at block boundaries; for APPEND on the way to the primary, of the whole payload."""
    record: int = 0
    """The client's number for an append, rising; 0 for none."""
    sync: bool = False
    """Answer only when it is on stable storage everywhere."""


class CloseWrite(Header, frozen=True, tag=3):
    """Ends the session; the connection may be used again. Reply: WriteClosed."""


class Read(Header, frozen=True, tag=4):
    """Bytes of a chunk. Reply: ReadReply with the bytes.

    A read of whole blocks (``offset`` a multiple of the block, to a block's end or the chunk's) is answered with the
    stored digests and unverified bytes, which the caller verifies; any other is verified here and answered with the
    digest of what is sent.
    """

    token: bytes
    chunk: int
    version: int
    """Refused with StaleReplica by a replica that is older."""
    offset: int
    length: int
    verify: bool = False
    """Verify here in any case (a reader that saw a mismatch wants to know whose fault it was)."""
    copy: bool = False
    """From a server that copies the chunk: refused with StaleReplica unless the replica has exactly ``version``, with
    Busy while it is being written; from now on nothing is written here under that version."""


class Prepare(Header, frozen=True, tag=5):
    """The primary of a grant asks a member for what it has. Reply: Table; more Prepare-session requests may follow."""

    grant: bytes
    position: int


class Reconcile(Header, frozen=True, tag=6):
    """Within a Prepare session: blocks that differ, from ``offset``, a block boundary. Reply: Ack."""

    offset: int
    digests: bytes
    verifier: int = 0
    """Of the replica whose blocks they are."""


class CommitVersion(Header, frozen=True, tag=7):
    """Ends a Prepare session: set the length and the grant's version, on stable storage. Reply: Ack."""

    length: int
    verifier: int = 0
    """What all members can vouch for from now on: they are equal."""


class SyncItem(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A chunk that has unsynced writes."""

    grant: bytes
    """The signed grant under which they were acknowledged."""
    position: int
    """Which member of the grant the receiver is."""
    verifier: int
    """Under which they were acknowledged."""


class SyncChunks(Header, frozen=True, tag=8):
    """Outside a session: what was acknowledged of these chunks is to be on this server's stable storage. Reply: Synced.

    NFS's COMMIT (RFC 1813 §3.3.21) for many chunks at once, to each member of their grants.
    """

    items: tuple[SyncItem, ...]
    """At most SYNC_ITEMS_MAX."""


class SingleWrite(Header, frozen=True, tag=9):
    """A whole write session of one WRITE with its payload: OpenWrite, Mutate and CloseWrite. Reply: SingleWritten.

    For a small file each member of the chain has one request to read and one reply to send.
    """

    grant: bytes
    """As in OpenWrite, like the next two and ``begins``."""
    position: int
    verifier: int
    serial: int
    """As in Mutate, like the next three."""
    offset: int
    digests: bytes
    sync: bool = False
    begins: bool = False


class WriteOpened(Header, frozen=True, tag=20):
    length: int
    """Of the chunk, at the primary."""
    verifier: int = 0
    """Changes when writes that were acknowledged and not synced may have been lost (as NFS's, RFC 1813 §3.3.7)."""


class Ack(Header, frozen=True, tag=21):
    """A mutation is applied by this server and all behind it."""

    offset: int
    """Where it was put."""
    length: int
    """Of the chunk after it."""


class WriteClosed(Header, frozen=True, tag=22):
    pass


class ReadReply(Header, frozen=True, tag=23):
    offset: int
    chunk_length: int
    version: int
    digests: bytes
    """Of the blocks covered, or one digest of all bytes sent if ``verified``."""
    verified: bool
    inode: int = 0
    """With ``index`` and ``chunk_bytes``: what a server that copies the chunk writes into its header."""
    index: int = 0
    chunk_bytes: int = 0
    verifier: int = 0
    """Of the replica: a complete copy of it can vouch for the same writes."""


class Table(Header, frozen=True, tag=24):
    """Payload: the digests of all blocks, 32 bytes each."""

    version: int
    length: int
    verifier: int = 0
    """0 if the server was started since the replica was last written to: it may lack what was not synced."""


class Synced(Header, frozen=True, tag=26):
    """Which of the chunks are: not those of which this server may lack something, or that have another grant by now."""

    done: tuple[bool, ...]


class SingleWritten(Header, frozen=True, tag=27):
    """The mutation is applied by this server and all behind it, and the session is over."""

    length: int
    """Of the chunk after it."""
    verifier: int
    """As in WriteOpened."""


class BulkError(Header, frozen=True, tag=25):
    """A request failed; ``code``, ``message`` and ``hint`` as in :mod:`gfsprotocol.errors`."""

    code: int
    message: str
    hint: str = ""


RequestHeader = OpenWrite | Mutate | CloseWrite | Read | Prepare | Reconcile | CommitVersion | SyncChunks | SingleWrite
ReplyHeader = WriteOpened | Ack | WriteClosed | ReadReply | Table | BulkError | Synced | SingleWritten

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[RequestHeader] = msgspec.msgpack.Decoder(RequestHeader)
_reply_decoder: msgspec.msgpack.Decoder[ReplyHeader] = msgspec.msgpack.Decoder(ReplyHeader)


def encode(header: RequestHeader | ReplyHeader, payload_bytes: int = 0) -> bytes:
    """Prefix and header of a frame whose payload of ``payload_bytes`` follows."""
    body = _encoder.encode(header)
    if len(body) > HEADER_BYTES_MAX:
        raise LocalProtocolError(f"a bulk header of {len(body)} bytes is larger than the limit of {HEADER_BYTES_MAX}")
    return PREFIX.pack(MAGIC, len(body), payload_bytes) + body


def decode_prefix(prefix: bytes | memoryview, payload_bytes_max: int) -> tuple[int, int]:
    """(header bytes, payload bytes) of a frame; RemoteProtocolError if the magic is wrong or the payload too large."""
    magic, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise RemoteProtocolError(f"a bulk frame starts with {bytes(prefix).hex()}, which is not ours")
    if payload_bytes > payload_bytes_max:
        raise RemoteProtocolError(f"a bulk frame announces {payload_bytes} bytes, the limit is {payload_bytes_max}")
    return header_bytes, payload_bytes


def decode_request(header: bytes | memoryview) -> RequestHeader:
    """RemoteProtocolError if it is not one of :data:`RequestHeader`."""
    try:
        return _request_decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a bulk request cannot be read: {error}") from error


def decode_reply(header: bytes | memoryview) -> ReplyHeader:
    """RemoteProtocolError if it is not one of :data:`ReplyHeader`."""
    try:
        return _reply_decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"a bulk reply cannot be read: {error}") from error
