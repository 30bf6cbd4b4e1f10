"""Record append (GFS §3.3): the system chooses the place, each record is whole, and its offset is returned.

An open write session is kept for each file, so that a record costs one round trip through the chain and one to the
master, which makes it visible before the call returns. Records that callers bring at the same time travel together.
"""

import threading
import time
from collections import OrderedDict, deque
from typing import Final

from gfsclient.core import Core
from gfsclient.leases import ChunkLease
from gfsclient.links import backoff_seconds
from gfsclient.session import Packet, WriteSession
from gfsprotocol import bulk
from gfsprotocol.checksums import digest
from gfsprotocol.errors import (
    AvailabilityError,
    ChunkFull,
    DataError,
    GfsError,
    InvalidArgument,
    RemoteProtocolError,
    StaleHandle,
    TooFewServers,
)
from gfsprotocol.ids import RECORD_BYTES_MAX
from gfsprotocol.messages import (
    Attributes,
    AttributesReply,
    ChunkLength,
    Close,
    Lease,
    OpenForWrite,
    RecordLength,
)

BATCH_RECORDS_MAX: Final = 32
BATCH_BYTES_MAX: Final = 4 * RECORD_BYTES_MAX
IDLE_SECONDS: Final = 20.0
WATCH_SECONDS: Final = 1.0
APPENDERS_MAX: Final = 64


class Record:
    """One record on its way: then its offset, or why it has none."""

    def __init__(self, data: bytes, number: int, sync: bool) -> None:
        self.data = data
        self.number = number
        self.sync = sync
        self.offset = -1
        self.error: GfsError | None = None
        self.is_settled = False

    def packet(self) -> Packet:
        packet = Packet(0, self.data, bulk.APPEND)
        packet.length = len(self.data)
        packet.digests = digest(self.data)
        packet.record = self.number
        packet.sync = self.sync
        return packet


class Appender:
    """Appends records to one file. Safe for threads: one of those that wait sends for all (group commit)."""

    def __init__(self, core: Core, attributes: Attributes) -> None:
        """For a file on which the caller is registered as a writer."""
        self.inode = attributes.inode
        self.used_at = time.monotonic()
        self.closed = False
        self._core = core
        self._chunk_bytes = attributes.chunk_bytes
        self._changed = threading.Condition()
        self._waiting: deque[Record] = deque()
        self._is_sending = False
        self._lease: ChunkLease
        self._session: WriteSession | None = None
        self._index = 0
        self._begin(attributes.size)

    def append(self, data: bytes, size: int, sync: bool) -> int:
        """The offset of the record in the file; ``size`` is what the master says that the file has now."""
        record = Record(data, next(self._core.records), sync)
        self.used_at = time.monotonic()
        with self._changed:
            if self.closed:
                raise StaleHandle("the file was closed meanwhile")
            self._waiting.append(record)
            while self._is_sending and not record.is_settled:
                self._changed.wait()
            is_ours_to_send = not record.is_settled
            self._is_sending = self._is_sending or is_ours_to_send
        if is_ours_to_send:
            self._send_waiting(record, size)
        if record.error is not None:
            raise record.error
        return record.offset

    def close(self) -> None:
        """Ends the session and the registration as a writer."""
        with self._changed:
            while self._is_sending:
                self._changed.wait()
            self.closed = True
            self._end_session()
        self._core.count_writer(-1)
        self._core.call(Close(self.inode), AttributesReply)

    # ---------------------------------------------------------------------------- by the one thread that is sending

    def _send_waiting(self, own: Record, size: int) -> None:
        try:
            while not own.is_settled:
                self._send(self._batch(), size)
        finally:
            with self._changed:
                self._is_sending = False
                self._changed.notify_all()

    def _batch(self) -> list[Record]:
        batch: list[Record] = []
        count = 0
        with self._changed:
            while self._waiting and len(batch) < BATCH_RECORDS_MAX and count < BATCH_BYTES_MAX:
                batch.append(self._waiting.popleft())
                count += len(batch[-1].data)
        return batch

    def _send(self, batch: list[Record], size: int) -> None:
        """Settles all records of the batch, one way or the other."""
        if size > (self._index + 1) * self._chunk_bytes:
            self._begin(size)  # others have filled the chunk that we know as the last
        lengths: dict[int, ChunkLength] = {}
        try:
            self._deliver(deque(batch), lengths)
            self._core.call(RecordLength(self.inode, tuple(lengths.values())), AttributesReply)
        except BaseException as error:
            self._end_session()
            for record in batch:
                record.error = error if isinstance(error, GfsError) else GfsError(f"the append ended by {error!r}")
            if not isinstance(error, GfsError):
                raise
        finally:
            with self._changed:
                for record in batch:
                    record.is_settled = True
                self._changed.notify_all()

    def _deliver(self, undelivered: "deque[Record]", lengths: dict[int, ChunkLength]) -> None:
        """Sends until every record has its place, through failures of servers, until the deadline."""
        patience = self._core.config.deadline_seconds
        deadline, attempt = time.monotonic() + patience, 0
        while undelivered:
            left = len(undelivered)
            try:
                lease = self._lease.obtain(deadline)
                self._exchange(lease, undelivered, lengths)
            except (DataError, AvailabilityError, RemoteProtocolError) as error:
                self._end_session()
                if len(undelivered) < left:
                    deadline, attempt = time.monotonic() + patience, 0
                if time.monotonic() > deadline:
                    raise
                if attempt or isinstance(error, TooFewServers):
                    time.sleep(backoff_seconds(attempt))
                attempt += 1

    def _exchange(self, lease: Lease, undelivered: "deque[Record]", lengths: dict[int, ChunkLength]) -> None:
        """Sends all records and takes what comes back; those that did not fit stay, for the next chunk."""
        misfits: list[Record] = []
        try:
            session = self._open_session(lease)
            for record in undelivered:
                session.send(record.packet())
            while session.is_waiting:
                if not session.wait(None, WATCH_SECONDS):
                    self._lease.watch(session)
                    continue
                try:
                    answer = session.receive()
                except ChunkFull:
                    misfits.append(undelivered.popleft())
                    continue
                if answer is not None:
                    self._lease.worked()
                    self._placed(lease, undelivered.popleft(), answer[1].offset, lengths)
        except (DataError, AvailabilityError, RemoteProtocolError) as error:
            self._lease.failed(lease, error, self._session is not None)
            raise
        finally:
            undelivered.extendleft(reversed(misfits))
        if misfits:
            self._begin((self._index + 1) * self._chunk_bytes)

    def _placed(self, lease: Lease, record: Record, offset: int, lengths: dict[int, ChunkLength]) -> None:
        record.offset = self._index * self._chunk_bytes + offset
        known = lengths.get(self._index)
        end = max(offset + len(record.data), known.length if known is not None else 0)
        lengths[self._index] = ChunkLength(self._index, lease.grant.chunk, end, lease.grant.version)

    def _begin(self, size: int) -> None:
        """Goes on in the chunk where a file of ``size`` bytes ends."""
        self._end_session()
        self._index = size // self._chunk_bytes
        self._lease = ChunkLease(self._core, self.inode, self._index, may_replace=False)

    def _open_session(self, lease: Lease) -> WriteSession:
        session = self._session
        if session is not None and (session.lease is not lease or session.connection.is_stale()):
            self._end_session()
            session = None
        if session is None:
            primary = lease.grant.members[0]
            connection = self._core.pool.take(primary.host, primary.port)
            session = self._session = WriteSession(connection, lease, self._core.masters.client)
        self._lease.renew_early()
        return session

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.connection.close()
            self._session = None


class Appenders:
    """The appenders of one client, by inode; those that are not used for a while are closed."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._by_inode: OrderedDict[int, Appender] = OrderedDict()

    def append(self, path: bytes, attributes: Attributes, data: bytes, sync: bool) -> int:
        """The offset of the record in the file at ``path``, which has ``attributes``. StaleHandle if it is gone."""
        limit = min(RECORD_BYTES_MAX, attributes.chunk_bytes // 4)
        if not 0 < len(data) <= limit:
            raise InvalidArgument(f"a record of {len(data)} bytes cannot be appended: 1 to {limit} bytes can")
        appender = self._of(path, attributes)
        try:
            return appender.append(data, attributes.size, sync)
        except StaleHandle:
            self._forget(appender)
            raise

    def close(self) -> None:
        """Closes all; the first error is raised when all have been tried."""
        with self._lock:
            appenders = list(self._by_inode.values())
            self._by_inode.clear()
        _close_all(appenders)

    def close_idle(self) -> bool:
        """Closes what has not been used for a while; whether any is left."""
        now = time.monotonic()
        with self._lock:
            idle = [appender for appender in self._by_inode.values() if now - appender.used_at > IDLE_SECONDS]
            for appender in idle:
                del self._by_inode[appender.inode]
            is_left = bool(self._by_inode)
        _close_all(idle)
        return is_left

    def _of(self, path: bytes, attributes: Attributes) -> Appender:
        with self._lock:
            appender = self._by_inode.get(attributes.inode)
            if appender is None:
                opened = self._core.call(OpenForWrite(path), AttributesReply).attributes
                if opened.inode != attributes.inode:
                    self._core.call(Close(opened.inode), AttributesReply)
                    raise StaleHandle("another file took the path's place meanwhile")
                appender = self._by_inode[opened.inode] = Appender(self._core, opened)
                self._core.count_writer(1)
            self._by_inode.move_to_end(appender.inode)
            surplus = self._by_inode.popitem(last=False)[1] if len(self._by_inode) > APPENDERS_MAX else None
        if surplus is not None:
            surplus.close()
        return appender

    def _forget(self, appender: Appender) -> None:
        with self._lock:
            known = self._by_inode.get(appender.inode) is appender
            if known:
                del self._by_inode[appender.inode]
        if known:
            _close_all([appender])


def _close_all(appenders: list[Appender]) -> None:
    errors = []
    for appender in appenders:
        try:
            appender.close()
        except StaleHandle:
            continue  # the file was removed: there is nothing left to close
        except GfsError as error:
            errors.append(error)
    if errors:
        raise errors[0]
