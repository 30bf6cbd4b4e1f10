"""One data directory: its lock, its journal, its replicas, its open files, and the thread that writes checkpoints.

Locks: ``_table`` protects the table of replicas, pins and open files, and is never held during I/O longer than an
``open``. See docs/concurrency.md.
"""

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gfschunkserver import chunkfile
from gfschunkserver.files import File, Files, Lock, is_out_of_space
from gfschunkserver.identity import Identity, new_identity, read_identity, write_identity
from gfschunkserver.journal import DISK_ID_BYTES, Journal, Segment
from gfschunkserver.records import Base, Drop, ReplicaState
from gfschunkserver.recovery import FOLDERS, Layout, Recovery, move_to_bad
from gfschunkserver.replica import Replica
from gfsprotocol.checksums import block_count, digest
from gfsprotocol.errors import AlreadyExists, ChunkCorrupt, ChunkNotFound, DiskFailed, GfsError, NoSpace
from gfsprotocol.ids import DIGEST_BYTES
from gfsprotocol.messages import DiskUsage, Grant
from gfsprotocol.metrics import Counts

log = logging.getLogger(__name__)

OPEN_FILES_MAX: Final = 256
SPACE_SECONDS: Final = 0.5
TICK_SECONDS: Final = 1.0
DROP_SECONDS: Final = 0.01
STOP_SECONDS: Final = 30.0


class Disk:
    """A data directory that this process owns. To be opened by lock, adopt, recover and start, in this order."""

    def __init__(self, files: Files, root: Path, segment_bytes: int, reserve_bytes: int) -> None:
        self.files = files
        self.layout = Layout(root)
        self.failed = ""
        """Why it is out of use."""
        self.cluster = b""
        self.identity: Identity | None = None
        self.replicas: dict[int, Replica] = {}
        self.corrupt: dict[int, str] = {}
        """Chunks whose replica here failed verification."""
        self.on_failure: Callable[[Disk, list[int]], None] = lambda _disk, _chunks: None
        """Told once, with the chunks that went with the disk."""
        self.on_corrupt: Callable[[int], None] = lambda _chunk: None
        """Told of a chunk whose file turned out bad while its checkpoint was written."""
        self.on_sync: Callable[[float], None] = lambda _seconds: None
        """Told of each fsync of the journal; to be set before :meth:`recover`."""
        self.checksum_failures = Counts()
        self.times_full = Counts()
        self.journal: Journal
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._table = threading.Lock()
        self._idle: OrderedDict[Replica, None] = OrderedDict()
        """Replicas with an open file that nobody has pinned, the longest idle first."""
        self._space_lock = threading.Lock()
        self._space = (0, 0)
        self._space_read_at = -SPACE_SECONDS
        self._written_since = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: Lock | None = None
        self._has_journal = False

    # -------------------------------------------------------------------------------------------- start and stop

    def lock(self) -> None:
        """Takes the directory and reads whose it is. DirectoryInUse, UnsupportedFormat, or OSError."""
        self.files.make_directory(self.layout.root)
        self._lock = self.files.lock(self.layout.lock)
        self.identity = read_identity(self.files, self.layout.root)

    def adopt(self, cluster: bytes, server: int, epoch: int) -> None:
        """Makes the directory a part of this server, and remembers the epoch. Durable on return."""
        with self.guarded():
            if self.identity is None:
                self._make_folders()
            disk_id = self.identity.disk_id if self.identity else secrets.token_bytes(DISK_ID_BYTES)
            identity = new_identity(cluster, server, disk_id, epoch)
            if identity != self.identity:
                write_identity(self.files, self.layout.root, identity)
                self.identity = identity
            self.cluster = cluster

    def recover(self) -> None:
        """Recovers the replicas and begins a journal. A disk that cannot is out of use and says why."""
        assert self.identity is not None
        try:
            with self.guarded():
                found = Recovery(self.files, self.layout, self.cluster, self.identity.disk_id).run()
                self.journal = Journal(
                    self.files, self.layout.journal, self.identity.disk_id, self._segment_bytes, self.on_sync
                )
                self.journal.begin(found.next_segment, found.journal_end)
                self._has_journal = True
        except (DiskFailed, NoSpace) as error:
            self.fail(error.message)
            return
        self.corrupt = found.corrupt
        for state in found.replicas.values():
            path = self.layout.chunk_file(state.chunk)
            self.replicas[state.chunk] = Replica(self, path, state, loaded=False, name_synced=True)

    def start(self) -> None:
        """Begins to write checkpoints in the background."""
        if self.failed:
            return
        self._thread = threading.Thread(target=self._write_checkpoints, name=f"checkpoints {self.layout.root}")
        self._thread.start()

    def stop(self) -> None:
        """Checkpoints everything, so that the next start has nothing to redo, and lets the directory go."""
        if self._thread is not None:
            try:
                with self.guarded():
                    self.journal.rotate()
            except (DiskFailed, NoSpace) as error:
                log.warning("%s could not be flushed: %s", self.layout.root, error.message)
            self._stopping.set()
            self.journal.stop_waiting()
            self._thread.join(STOP_SECONDS)
        with self._table:
            # A thread that did not end in time must not touch the directory any more: it may be another process's soon.
            self.failed = self.failed or "it was stopped"
            self._let_go_all("it was stopped")
        if self._has_journal:
            self.journal.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def fail(self, reason: str) -> None:
        """Takes the disk out of use: nothing more is read, written or promised. Only a restart brings it back."""
        with self._table:
            if self.failed:
                return
            self.failed = reason
            lost = list(self.replicas)
            self._let_go_all(f"the disk {self.layout.root} failed")
            self.replicas = {}
            self.corrupt = {}
        log.error("the disk %s is out of use: %s", self.layout.root, reason)
        if self._has_journal:
            self.journal.fail()
        self.on_failure(self, lost)

    def _let_go_all(self, reason: str) -> None:
        """No replica can be pinned any more; who has one pinned closes its file."""
        for replica in self.replicas.values():
            replica.gone = reason
            if not replica.pins:
                self._close_file(replica)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns OSError into NoSpace if the disk is full; else the disk fails, and the error is DiskFailed."""
        if self.failed:
            raise DiskFailed(f"the disk {self.layout.root} is out of use: {self.failed}")
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if is_out_of_space(error):
                self.times_full.add()
                raise NoSpace(f"no space left on {self.layout.root}") from error
            self.fail(reason)
            raise DiskFailed(f"the disk {self.layout.root} failed: {reason}") from error

    def _make_folders(self) -> None:
        for folder in [self.layout.journal, self.layout.bad, self.layout.chunks]:
            self.files.make_directory(folder)
        for number in range(FOLDERS):
            self.files.make_directory(self.layout.folder(number))
        self.files.sync_directory(self.layout.chunks)
        self.files.sync_directory(self.layout.root)

    # ------------------------------------------------------------------------------------------------------ space

    def space(self) -> tuple[int, int]:
        """(total, free) bytes; free is what may still be filled, beyond the reserve."""
        now = time.monotonic()
        with self._space_lock:
            if now - self._space_read_at < SPACE_SECONDS:
                total, free = self._space
                return total, max(0, free - self._written_since)
        with self.guarded():
            total, free = self.files.space(self.layout.root)
        with self._space_lock:
            self._space = (total, max(0, free - self._reserve_bytes))
            self._space_read_at = now
            self._written_since = 0
            return self._space

    def claim_space(self, count: int) -> None:
        """NoSpace if ``count`` more bytes would touch the reserve, which is for deletions and checkpoints."""
        if self.space()[1] < count:
            raise NoSpace(f"no space left on {self.layout.root}")
        with self._space_lock:
            self._written_since += count

    def usage(self) -> DiskUsage:
        """For masters and people."""
        try:
            total, free = (0, 0) if self.failed else self.space()
        except GfsError as error:
            log.warning("%s: %s", self.layout.root, error.message)
            total, free = 0, 0
        return DiskUsage(str(self.layout.root), total, free, len(self.replicas), self.failed)

    @property
    def journal_bytes(self) -> int:
        """Of records that wait for their checkpoint; 0 without a journal."""
        return self.journal.size_bytes if self._has_journal else 0

    # ---------------------------------------------------------------------------------------------------- replicas

    def create(self, grant: Grant) -> Replica:
        """A new, empty replica with the grant's version. AlreadyExists if the chunk is here; NoSpace."""
        self.claim_space(chunkfile.data_offset(grant.chunk_bytes))
        state = ReplicaState(
            Base(grant.chunk, grant.version, grant.inode, grant.index, grant.chunk_bytes, 0, 0, b"", b"", True)
        )
        replica = Replica(self, self.layout.chunk_file(grant.chunk), state, loaded=True, name_synced=False)
        with replica.order:
            self._insert(replica)
            try:
                with self.guarded():
                    replica.file = self.files.open(replica.path, create=True)
                    try:
                        # No header yet: until the first checkpoint, a file that the journal does not know is void.
                        replica.position = self.journal.append(state, state.base(created=True))
                    except OSError:
                        self.files.remove(replica.path)
                        raise
            except GfsError:
                self._forget(replica, "it could not be created")
                raise
        with self._table:
            self._set_idle(replica)
        return replica

    def adopt_copy(self, state: ReplicaState) -> Replica:
        """Publishes the complete copy of a chunk that was written beside its place and synced. Durable on return."""
        replica = Replica(self, self.layout.chunk_file(state.chunk), state, loaded=True, name_synced=True)
        copy = self.layout.copy_file(state.chunk)
        with replica.order, self.guarded():
            replica.file = self.files.open(copy)
            try:
                self._insert(replica)
            except GfsError:
                replica.file.close()
                raise
            try:
                self.files.rename(copy, replica.path)
                self.files.sync_directory(replica.path.parent)
                # The journal may still know an earlier replica of the chunk, and that it was dropped.
                self.journal.commit(self.journal.append(state, state.base()))
            except OSError as error:
                self._forget(replica, "its copy could not be published")
                if is_out_of_space(error) and self.files.exists(replica.path):
                    self.files.remove(replica.path)
                raise
        with self._table:
            self._set_idle(replica)
        return replica

    def drop(self, replicas: Iterable[Replica], reason: str) -> None:
        """Removes replicas; one fsync for all of them. Durable on return, so that a crash never brings them back.

        NoSpace if the journal has no room for all: the first ones are dropped then, the others remain.
        """
        dropped: list[Replica] = []
        position = 0
        full: NoSpace | None = None
        for replica in replicas:
            try:
                with replica.order, self.guarded():
                    if replica.gone:
                        continue
                    position = self.journal.append(replica.state, Drop(replica.chunk))
                    replica.gone = reason
            except NoSpace as error:
                full = error
                break
            dropped.append(replica)
        with self.guarded():
            self.journal.commit(position)
            for replica in dropped:
                if self.files.exists(replica.path):
                    self.files.remove(replica.path)
        for replica in dropped:
            self._forget(replica, reason)
        if full is not None:
            raise full

    def quarantine(self, replica: Replica, reason: str) -> None:
        """Takes a replica that failed verification out of service and puts its file aside. Durable on return."""
        with replica.order, self.guarded():
            if replica.gone:
                return
            position = self.journal.append(replica.state, Drop(replica.chunk))
            replica.gone = reason
            self.checksum_failures.add()
            self.journal.commit(position)
            if self.files.exists(replica.path):
                log.error("%s; it is kept as %s", reason, move_to_bad(self.files, self.layout, replica.chunk))
            else:
                log.error("%s", reason)
            self.corrupt[replica.chunk] = reason
            self._forget(replica, reason)

    def forget_corrupt(self, chunk: int) -> None:
        """The master has enough good copies: the bad one may go."""
        with self.guarded():
            if self.corrupt.pop(chunk, None) is not None:
                for name in self.files.names(self.layout.bad):
                    if name.startswith(f"{chunk:016x}"):
                        self.files.remove(self.layout.bad / name)

    def _insert(self, replica: Replica) -> None:
        with self._table:
            if self.failed:
                raise DiskFailed(f"the disk {self.layout.root} is out of use: {self.failed}")
            if replica.chunk in self.replicas:
                raise AlreadyExists(f"chunk {replica.chunk:x} has a replica here already")
            self.replicas[replica.chunk] = replica

    def _forget(self, replica: Replica, reason: str) -> None:
        with self._table:
            replica.gone = reason
            if self.replicas.get(replica.chunk) is replica:
                del self.replicas[replica.chunk]
            if not replica.pins:
                self._close_file(replica)

    # -------------------------------------------------------------------------------------------------- open files

    def pin(self, replica: Replica) -> File:
        """See :class:`~gfschunkserver.replica.Home`. ChunkNotFound, ChunkCorrupt or DiskFailed."""
        with self._table:
            if replica.gone:
                raise ChunkNotFound(f"chunk {replica.chunk:x} is gone: {replica.gone}")
            if replica.file is None:
                replica.file = self._open_file(replica)
            if not replica.loaded:
                self._load_table(replica, replica.file)
            replica.pins += 1
            self._idle.pop(replica, None)
            return replica.file

    def unpin(self, replica: Replica) -> None:
        with self._table:
            replica.pins -= 1
            if not replica.pins:
                if replica.gone:
                    self._close_file(replica)
                else:
                    self._set_idle(replica)

    def _set_idle(self, replica: Replica) -> None:
        self._idle[replica] = None
        while len(self._idle) > OPEN_FILES_MAX:
            oldest, _ = self._idle.popitem(last=False)
            self._close_file(oldest)
            self._unload(oldest)

    def _open_file(self, replica: Replica) -> File:
        try:
            return self.files.open(replica.path)
        except FileNotFoundError as error:
            raise ChunkCorrupt(f"the file of chunk {replica.chunk:x} is missing") from error
        except OSError as error:
            raise ChunkCorrupt(f"chunk {replica.chunk:x} cannot be opened: {error.strerror or error}") from error

    def _load_table(self, replica: Replica, file: File) -> None:
        state = replica.state
        try:
            header = chunkfile.decode_header(file.read(0, chunkfile.HEADER_BYTES))
            table = file.read(chunkfile.HEADER_BYTES, block_count(state.length) * DIGEST_BYTES)
        except OSError as error:
            raise ChunkCorrupt(f"chunk {state.chunk:x} cannot be read: {error.strerror or error}") from error
        if (header.chunk, header.version, header.length) != (state.chunk, state.version, state.length):
            raise ChunkCorrupt(f"the header of chunk {state.chunk:x} is not the one that was there at the start")
        if digest(table) != header.table_digest:
            raise ChunkCorrupt(f"the digest table of chunk {state.chunk:x} does not match its digest")
        state.table = bytearray(table)
        replica.loaded = True

    def _unload(self, replica: Replica) -> None:
        """Frees the table, if the file's own is as good."""
        if replica.loaded and not self.journal.mentions(replica.chunk):
            replica.state.table = bytearray()
            replica.loaded = False

    def _close_file(self, replica: Replica) -> None:
        self._idle.pop(replica, None)
        if replica.file is not None:
            replica.file.close()
            replica.file = None

    # -------------------------------------------------------------------------------------------------- checkpoints

    def _write_checkpoints(self) -> None:
        """The thread: checkpoints what old segments mention, then removes them; otherwise marks the journal."""
        while not self.failed:
            stopping = self._stopping.is_set()
            try:
                if not self.checkpoint_oldest(0 if stopping else TICK_SECONDS) and stopping:
                    return
            except NoSpace as error:
                log.warning("%s: checkpoints wait for space: %s", self.layout.root, error.message)
                if stopping:
                    return
                self._stopping.wait(TICK_SECONDS)
            except DiskFailed as error:
                log.debug("checkpoints end: %s", error.message)

    def checkpoint_oldest(self, seconds: float) -> bool:
        """Checkpoints and removes the oldest full segment; False if none can be in time. NoSpace, DiskFailed."""
        segment = self.journal.wait_for_old(seconds)
        with self.guarded():
            if segment is None:
                self.journal.mark()
                return False
            return self._checkpoint(segment)

    def _checkpoint(self, segment: Segment) -> bool:
        mentioned = [replica for chunk in sorted(segment.chunks) if (replica := self.replicas.get(chunk)) is not None]
        for replica in mentioned:
            try:
                replica.write_checkpoint()
                with replica.pinned() as file:
                    file.sync()
            except ChunkNotFound:
                if self.replicas.get(replica.chunk) is replica:
                    # Its file is still to be removed: without the record of that, a crash would bring it back.
                    self._stopping.wait(DROP_SECONDS)
                    return False
                log.debug("chunk %x was dropped before its checkpoint", replica.chunk)
            except ChunkCorrupt as error:
                self.quarantine(replica, error.message)
                self.on_corrupt(replica.chunk)
            with replica.order:
                # An fsync error is reported once: if a writer got it instead of us, it has failed the disk by now.
                pass
        # Also of chunks that were dropped: without their record, the removal of their files must be durable.
        for folder in sorted({self.layout.folder(chunk) for chunk in segment.chunks}):
            self.files.sync_directory(folder)
        for replica in mentioned:
            replica.name_synced = True
        if self.failed:
            # Replicas are gone with the disk, not dropped: what the segment says of them is all that there is.
            raise DiskFailed(f"the disk {self.layout.root} is out of use: {self.failed}")
        self.journal.remove(segment)
        with self._table:
            for replica in mentioned:
                if not replica.pins and replica.file is None:
                    self._unload(replica)
        return True
