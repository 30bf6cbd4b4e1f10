"""Every error of the file system, with its wire code, errno, HTTP status and exit code.

::

    GfsError
    ├── NamespaceError            the request makes no sense in this namespace; asking again gives the same answer
    │   ├── NotFound, AlreadyExists, NotADirectory, IsADirectory, DirectoryNotEmpty
    │   ├── PermissionDenied, NotPermitted
    │   ├── InvalidArgument, NameTooLong, SymlinkLoop, TooManyLinks, NoSuchAttribute
    │   ├── FileTooLarge, StaleHandle, CallForgotten, ConditionFailed
    │   └── AttributesFull, AttributeTooLarge
    ├── DataError                 a chunk or a replica cannot give or take the bytes
    │   ├── ChunkNotFound, StaleReplica, ChunkCorrupt, ChunkFull
    │   ├── TokenRefused, LeaseLost
    │   ├── ReplicaFailed
    │   └── NoSpace, DataLost, WritesLost
    ├── AvailabilityError         try again, here or elsewhere, until the deadline
    │   ├── NotLeader, SafeMode, Busy, TooFewServers
    │   └── Unreachable, DeadlineExceeded, ConnectionLost
    ├── WireError                 what arrived is not our protocol
    │   ├── LocalProtocolError    we were about to break it
    │   ├── RemoteProtocolError   the peer broke it
    │   └── VersionMismatch, AuthenticationFailed
    └── StartupError              the process cannot start, or must stop: a person has to look
        ├── ConfigurationError, DirectoryInUse, AddressInUse, ForeignStore, UnsupportedFormat
        └── LogDamaged, LogFenced, LogFailed, LogLocked, StateDiverged, DiskFailed

``kind`` answers the question that replication asks of each failure (after toydb's ``is_deterministic``): a
deterministic error is a result like any other; a retryable one may succeed elsewhere or later; a fatal one stops
whoever met it. Exit codes come in bands: 2 usage, 3-19 namespace, 20-29 data, 30-39 availability, 40-49 wire,
50-69 start-up.
"""

import errno
from enum import Enum
from typing import ClassVar


class Kind(Enum):
    """What a failure means to whoever meets it."""

    DETERMINISTIC = "deterministic"
    RETRYABLE = "retryable"
    FATAL = "fatal"


class GfsError(Exception):
    """Something went wrong inside the file system."""

    code: ClassVar[int] = 1
    errno: ClassVar[int] = errno.EIO
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    kind: ClassVar[Kind] = Kind.FATAL

    def __init__(self, message: str = "", hint: str = "") -> None:
        """``message`` is one line for a person; ``hint`` (an address, a server id) is for the program that reads it."""
        super().__init__(message or (type(self).__doc__ or "").rstrip("."))
        self.hint = hint

    @property
    def message(self) -> str:
        return str(self.args[0])


class NamespaceError(GfsError):
    """The request makes no sense in this namespace."""

    code = 100
    errno = errno.EINVAL
    http_status = 400
    exit_code = 3
    kind = Kind.DETERMINISTIC


class NotFound(NamespaceError):
    """No such file or directory."""

    code = 101
    errno = errno.ENOENT
    http_status = 404
    exit_code = 4


class AlreadyExists(NamespaceError):
    """File exists."""

    code = 102
    errno = errno.EEXIST
    http_status = 409
    exit_code = 5


class NotADirectory(NamespaceError):
    """Not a directory."""

    code = 103
    errno = errno.ENOTDIR
    http_status = 409
    exit_code = 6


class IsADirectory(NamespaceError):
    """Is a directory."""

    code = 104
    errno = errno.EISDIR
    http_status = 409
    exit_code = 7


class DirectoryNotEmpty(NamespaceError):
    """Directory not empty."""

    code = 105
    errno = errno.ENOTEMPTY
    http_status = 409
    exit_code = 8


class PermissionDenied(NamespaceError):
    """Permission denied."""

    code = 106
    errno = errno.EACCES
    http_status = 403
    exit_code = 9


class NotPermitted(NamespaceError):
    """Operation not permitted."""

    code = 107
    errno = errno.EPERM
    http_status = 403
    exit_code = 9


class InvalidArgument(NamespaceError):
    """Invalid argument."""

    code = 108
    errno = errno.EINVAL
    exit_code = 10


class NameTooLong(NamespaceError):
    """File name too long."""

    code = 109
    errno = errno.ENAMETOOLONG
    exit_code = 11


class SymlinkLoop(NamespaceError):
    """Too many levels of symbolic links."""

    code = 110
    errno = errno.ELOOP
    exit_code = 12


class TooManyLinks(NamespaceError):
    """Too many links."""

    code = 111
    errno = errno.EMLINK
    http_status = 409
    exit_code = 12


class NoSuchAttribute(NamespaceError):
    """No such extended attribute."""

    code = 112
    errno = errno.ENODATA
    http_status = 404
    exit_code = 13


class FileTooLarge(NamespaceError):
    """File too large."""

    code = 113
    errno = errno.EFBIG
    http_status = 413
    exit_code = 14


class StaleHandle(NamespaceError):
    """The file was removed while it was in use."""

    code = 114
    errno = errno.ESTALE
    http_status = 410
    exit_code = 15


class CallForgotten(NamespaceError):
    """The call was made so long ago that its outcome is no longer known."""

    code = 115
    errno = errno.EIO
    http_status = 409
    exit_code = 16


class ConditionFailed(NamespaceError):
    """The file is not the one that the change was meant for."""

    code = 116
    errno = errno.ECANCELED
    http_status = 412
    exit_code = 17


class AttributesFull(NamespaceError):
    """The file has as many extended attributes as a file can have."""

    code = 117
    errno = errno.ENOSPC
    http_status = 507
    exit_code = 18


class AttributeTooLarge(NamespaceError):
    """The value of an extended attribute is too large."""

    code = 118
    errno = errno.E2BIG
    http_status = 413
    exit_code = 19


class DataError(GfsError):
    """A chunk or a replica cannot give or take the bytes."""

    code = 200
    http_status = 503
    exit_code = 20
    kind = Kind.RETRYABLE


class ChunkNotFound(DataError):
    """This server holds no replica of the chunk."""

    code = 201
    exit_code = 21


class StaleReplica(DataError):
    """The replica's version is not the one asked for."""

    code = 202
    exit_code = 21


class ChunkCorrupt(DataError):
    """The replica's bytes do not match their digests."""

    code = 203
    exit_code = 22


class ChunkFull(DataError):
    """The record does not fit into the rest of the chunk."""

    code = 204
    exit_code = 23


class TokenRefused(DataError):
    """The access token is missing, expired or not for this chunk."""

    code = 205
    errno = errno.EACCES
    http_status = 403
    exit_code = 24


class LeaseLost(DataError):
    """The write lease has ended; ask the master for a new one."""

    code = 206
    exit_code = 24


class ReplicaFailed(DataError):
    """A replica of the chain failed; ``hint`` is its server id."""

    code = 207
    exit_code = 25


class NoSpace(DataError):
    """No space left on the chunk servers."""

    code = 208
    errno = errno.ENOSPC
    http_status = 507
    exit_code = 26
    kind = Kind.DETERMINISTIC


class DataLost(DataError):
    """No good replica of a part of the file can be reached."""

    code = 209
    errno = errno.EIO
    http_status = 503
    exit_code = 27


class WritesLost(DataError):
    """Bytes that were written and not synced may be lost; ``hint`` names the servers that cannot vouch for them."""

    code = 210
    errno = errno.EIO
    http_status = 500
    exit_code = 28


class AvailabilityError(GfsError):
    """The service cannot answer now."""

    code = 300
    errno = errno.EAGAIN
    http_status = 503
    exit_code = 30
    kind = Kind.RETRYABLE


class NotLeader(AvailabilityError):
    """This master is not the leader; ``hint`` is the address of the one that is, if known."""

    code = 301
    exit_code = 31


class SafeMode(AvailabilityError):
    """The master waits until enough chunks are reported (safe mode)."""

    code = 302
    exit_code = 32


class Busy(AvailabilityError):
    """Too many requests at once."""

    code = 303
    http_status = 429
    exit_code = 33


class TooFewServers(AvailabilityError):
    """Fewer chunk servers are available than the write needs."""

    code = 304
    errno = errno.ETIMEDOUT
    exit_code = 34


class Unreachable(AvailabilityError):
    """No master could be reached."""

    code = 305
    errno = errno.ETIMEDOUT
    exit_code = 35


class DeadlineExceeded(AvailabilityError):
    """The deadline passed before an answer came."""

    code = 306
    errno = errno.ETIMEDOUT
    http_status = 504
    exit_code = 36


class ConnectionLost(AvailabilityError):
    """The connection ended before an answer came."""

    code = 307
    errno = errno.ECONNRESET
    exit_code = 37


class WireError(GfsError):
    """What was sent or received is not the protocol."""

    code = 400
    errno = errno.EPROTO
    http_status = 400
    exit_code = 40


class LocalProtocolError(WireError):
    """We were about to send something that the protocol does not allow."""

    code = 401
    exit_code = 41


class RemoteProtocolError(WireError):
    """The peer sent something that the protocol does not allow."""

    code = 402
    exit_code = 42


class VersionMismatch(WireError):
    """The peer speaks a protocol version that we do not."""

    code = 403
    errno = errno.EPROTONOSUPPORT
    exit_code = 43


class AuthenticationFailed(WireError):
    """The peer does not know the cluster's secret."""

    code = 404
    errno = errno.EACCES
    http_status = 401
    exit_code = 44


class StartupError(GfsError):
    """The process cannot start, or has to stop."""

    code = 500
    exit_code = 50


class ConfigurationError(StartupError):
    """The configuration is not valid."""

    code = 501
    errno = errno.EINVAL
    exit_code = 51


class DirectoryInUse(StartupError):
    """Another process uses this data directory."""

    code = 502
    errno = errno.EBUSY
    exit_code = 52


class AddressInUse(StartupError):
    """Another process listens on this address."""

    code = 503
    errno = errno.EADDRINUSE
    exit_code = 53


class ForeignStore(StartupError):
    """The stored data belongs to another cluster, or to another server."""

    code = 504
    exit_code = 54


class UnsupportedFormat(StartupError):
    """The stored data has a format that this version does not know."""

    code = 505
    exit_code = 55


class LogDamaged(StartupError):
    """The operation log is damaged."""

    code = 506
    exit_code = 56


class LogFenced(StartupError):
    """Another master has become the leader; this one may write no more."""

    code = 507
    exit_code = 57


class LogFailed(StartupError):
    """The operation log could not be written, and the outcome is not known."""

    code = 508
    exit_code = 58


class LogLocked(LogFailed):
    """Another process holds a lock in the operation log's database."""

    code = 511
    exit_code = 58


class LogOutdated(StartupError):
    """The operation log lacks records that this node has seen in it."""

    code = 512
    exit_code = 61


class StateDiverged(StartupError):
    """Applying the operation log gave another state than the leader had."""

    code = 509
    exit_code = 59


class DiskFailed(StartupError):
    """A disk failed and is no longer used."""

    code = 510
    exit_code = 60


def _tree(root: type[GfsError]) -> list[type[GfsError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


ERRORS_BY_CODE: dict[int, type[GfsError]] = {error.code: error for error in _tree(GfsError)}


def from_wire(code: int, message: str, hint: str = "") -> GfsError:
    """The error that a peer meant; an unknown code (a newer peer) becomes the nearest band's base class."""
    error = ERRORS_BY_CODE.get(code) or ERRORS_BY_CODE.get(code // 100 * 100, GfsError)
    return error(message, hint)
