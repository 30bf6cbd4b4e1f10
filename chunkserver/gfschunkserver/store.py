"""All disks of a server: whose they are, which chunk is where, and who is told when that changes.

Safe for threads. The listener is called from any thread and must only take note.
"""

import errno
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from gfschunkserver.disk import Disk
from gfschunkserver.files import Files
from gfschunkserver.replica import Replica
from gfsprotocol.errors import (
    ChunkCorrupt,
    ChunkNotFound,
    ConfigurationError,
    DataError,
    DiskFailed,
    ForeignStore,
    LeaseLost,
    NoSpace,
)
from gfsprotocol.messages import DiskUsage, Grant

log = logging.getLogger(__name__)

BROKEN_DISK: Final = (errno.EIO, errno.ENXIO, errno.ENODEV)
"""What the hardware says; the other disks of the server go on."""


class Store:
    """The data directories of one chunk server. :meth:`open` first, :meth:`close` last."""

    def __init__(self, files: Files, directories: Sequence[Path], segment_bytes: int, reserve_bytes: int) -> None:
        self.disks = [Disk(files, directory, segment_bytes, reserve_bytes) for directory in directories]
        self.server = 0
        """This server's id, for ever."""
        self.cluster = b""
        """Empty until a master has accepted the server."""
        self.highest_epoch = 0
        self.listener: Callable[[int], None] = lambda _chunk: None
        """Told of each chunk whose replica came, went, changed or turned bad."""
        self._identity_lock = threading.Lock()

    def open(self) -> None:
        """Takes the directories and recovers them. DirectoryInUse, ForeignStore, UnsupportedFormat."""
        try:
            for disk in self.disks:
                self._lock(disk)
            self._identify()
            for disk in self.disks:
                if disk.failed:
                    continue
                disk.on_failure = lambda _disk, chunks: self._tell(chunks)
                disk.on_corrupt = self.listener_of_one
                self._adopt(disk)
                disk.recover()
                disk.start()
            self._drop_doubles()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for disk in self.disks:
            disk.stop()

    def listener_of_one(self, chunk: int) -> None:
        """Passes a change on to the listener."""
        self.listener(chunk)

    # ------------------------------------------------------------------------------------------------- identity

    def join_cluster(self, cluster: bytes) -> None:
        """A master accepted the server. ForeignStore if the data belongs to another cluster."""
        with self._identity_lock:
            if self.cluster == cluster:
                return
            if self.cluster:
                raise ForeignStore(
                    f"the stored chunks belong to cluster {self.cluster.hex()}, this master to {cluster.hex()}"
                )
            self._persist(cluster, self.highest_epoch)
            self.cluster = cluster
            log.info("this server, %016x, now belongs to cluster %s", self.server, cluster.hex())

    def obey(self, epoch: int) -> None:
        """Remembers the epoch, durably, before anything it says is done. LeaseLost if it is over."""
        with self._identity_lock:
            if epoch < self.highest_epoch:
                raise LeaseLost(f"epoch {epoch} is over: epoch {self.highest_epoch} has begun")
            if epoch > self.highest_epoch:
                self._persist(self.cluster, epoch)
                self.highest_epoch = epoch

    def _lock(self, disk: Disk) -> None:
        try:
            disk.lock()
        except OSError as error:
            reason = f"cannot use the data directory {disk.layout.root}: {error.strerror}"
            if error.errno in BROKEN_DISK and any(other is not disk and not other.failed for other in self.disks):
                disk.fail(reason)
                return
            # A person's mistake, or nothing is left to serve.
            raise ConfigurationError(reason) from error

    def _adopt(self, disk: Disk) -> None:
        """A disk that is ours and cannot be written is out of use; a new one is a mistake that a person should see."""
        try:
            disk.adopt(self.cluster, self.server, self.highest_epoch)
        except (DiskFailed, NoSpace) as error:
            if disk.identity is None:
                raise
            disk.fail(error.message)

    def _identify(self) -> None:
        identities = [(disk, disk.identity) for disk in self.disks if disk.identity is not None]
        servers = {identity.server_id for _, identity in identities}
        clusters = {identity.cluster_id for _, identity in identities} - {b""}
        if len(servers) > 1:
            raise ForeignStore("the data directories belong to different servers: " + _whose(identities))
        if len(clusters) > 1:
            raise ForeignStore("the data directories belong to different clusters: " + _whose(identities))
        self.server = servers.pop() if servers else secrets.randbits(62) + 1
        self.cluster = clusters.pop() if clusters else b""
        self.highest_epoch = max((identity.highest_epoch for _, identity in identities), default=0)

    def _persist(self, cluster: bytes, epoch: int) -> None:
        """On every disk that works; DiskFailed if that is none."""
        persisted = 0
        for disk in self.disks:
            if disk.failed:
                continue
            try:
                disk.adopt(cluster, self.server, epoch)
                persisted += 1
            except (DiskFailed, NoSpace) as error:
                log.error("%s", error.message)  # noqa: TRY400 - the message says it all
        if not persisted:
            raise DiskFailed("no disk is left that could remember the epoch")

    # ------------------------------------------------------------------------------------------------- replicas

    def find(self, chunk: int) -> Replica | None:
        """The replica that is here, if there is one that may be used."""
        for disk in self.disks:
            replica = disk.replicas.get(chunk)
            if replica is not None and not replica.gone:
                return replica
        return None

    def get(self, chunk: int) -> Replica:
        """ChunkNotFound, or ChunkCorrupt if what was here failed verification."""
        replica = self.find(chunk)
        if replica is not None:
            return replica
        for disk in self.disks:
            reason = disk.corrupt.get(chunk)
            if reason is not None:
                raise ChunkCorrupt(reason)
        raise ChunkNotFound(f"this server holds no replica of chunk {chunk:x}")

    def create(self, grant: Grant) -> Replica:
        """A new replica on the emptiest disk. AlreadyExists, or NoSpace if no disk has room."""
        replica = self.choose_disk().create(grant)
        self.supersede_corrupt(grant.chunk)
        self.listener(grant.chunk)
        return replica

    def supersede_corrupt(self, chunk: int) -> None:
        """A good replica has come: a bad one is still kept for a person, but is no news any more."""
        for disk in self.disks:
            disk.corrupt.pop(chunk, None)

    def choose_disk(self) -> Disk:
        """The one with the largest free share that works; NoSpace if none does."""
        best: tuple[float, Disk] | None = None
        for disk in self.disks:
            if not disk.failed:
                total, free = disk.space()
                share = free / max(total, 1)
                if free and (best is None or share > best[0]):
                    best = (share, disk)
        if best is None:
            raise NoSpace("no disk of this server has space left")
        return best[1]

    def drop(self, replicas: Iterable[Replica], reason: str) -> None:
        """Durable on return."""
        by_disk: dict[Disk, list[Replica]] = {}
        for replica in replicas:
            assert isinstance(replica.home, Disk)
            by_disk.setdefault(replica.home, []).append(replica)
        for disk, doomed in by_disk.items():
            try:
                disk.drop(doomed, reason)
            finally:
                self._tell(replica.chunk for replica in doomed)

    def condemn(self, replica: Replica, reason: str) -> None:
        """A replica failed verification: it is served no more, kept for a person, and reported."""
        assert isinstance(replica.home, Disk)
        try:
            replica.home.quarantine(replica, reason)
        except (DiskFailed, DataError) as error:
            log.warning("chunk %x could not be put aside: %s", replica.chunk, error.message)
        self.listener(replica.chunk)

    def corrupt_chunks(self) -> set[int]:
        return {chunk for disk in self.disks for chunk in list(disk.corrupt)}

    def forget_corrupt(self, chunk: int) -> None:
        for disk in self.disks:
            if chunk in disk.corrupt:
                disk.forget_corrupt(chunk)

    def chunks(self) -> list[int]:
        """All chunks with a replica here, sorted."""
        return sorted({chunk for disk in self.disks for chunk in list(disk.replicas)})

    def usage(self) -> tuple[DiskUsage, ...]:
        return tuple(disk.usage() for disk in self.disks)

    def _tell(self, chunks: Iterable[int]) -> None:
        for chunk in chunks:
            self.listener(chunk)

    def _drop_doubles(self) -> None:
        """A chunk on two disks (one came back after it had failed): the newer replica stays."""
        best: dict[int, Replica] = {}
        doomed: list[Replica] = []
        for disk in self.disks:
            for replica in disk.replicas.values():
                other = best.get(replica.chunk)
                if other is None:
                    best[replica.chunk] = replica
                elif (other.version, other.length) < (replica.version, replica.length):
                    best[replica.chunk] = replica
                    doomed.append(other)
                else:
                    doomed.append(replica)
        self.drop(doomed, "another disk has a newer replica")


def _whose(identities: Sequence[tuple[Disk, object]]) -> str:
    return ", ".join(str(disk.layout.root) for disk, _ in identities)
