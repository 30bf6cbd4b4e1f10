"""What is done to the leader, and how it is undone. Undoing works at any time, twice, and after Ctrl-C."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import sqlite3
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from gfscluster import probe, processes, startup
from gfscluster.drill.forwarder import Forwarder
from gfscluster.drill.packets import PacketLoss
from gfscluster.drill.watch import Masters
from gfscluster.layout import Layout
from gfscluster.shape import Shape
from gfsprotocol.errors import ConfigurationError, RemoteProtocolError
from gfsprotocol.messages import HandedOver, Handover

HANDOVER_SECONDS: Final = 30.0
IN_COMMIT_SECONDS: Final = 0.2
FULL_BYTES: Final = 4096
"""No file may grow beyond that while the disk is "full"."""


class Hit(ABC):
    """One kind of blow. ``seconds`` is how long what lasts lasts."""

    means = ""

    def __init__(self, place: Layout, shape: Shape, seconds: float) -> None:
        self.place = place
        self.shape = shape
        self.seconds = seconds
        self.note = ""
        self._name = ""
        self._at = 0.0

    async def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Before the first round."""

    async def finish(self) -> None:  # noqa: B027
        """After the last round, or when the drill ends early."""

    async def strike(self, name: str) -> float:
        """Hits the master ``name``; when that was, in monotonic seconds."""
        self._name, self.note = name, ""
        self._at = time.monotonic()
        await self.act()
        return self._at

    @abstractmethod
    async def act(self) -> None:
        """The blow itself."""

    async def outlast(self) -> None:
        """Lifts it when it has lasted as long as it is to last."""
        await asyncio.sleep(max(0.0, self._at + self.seconds - time.monotonic()))
        self.lift()

    def undo(self) -> bool:
        """Lifts what was done, and starts the master again if it has ended; whether it had."""
        self.lift()
        if not self._name or processes.is_running(self.record):
            return False
        self.start()
        return True

    def start(self) -> None:
        """Starts the master that was hit, as gfs start does."""
        startup.check_ports(self.shape, only=self._name)
        processes.start(self.place, self._name)

    def lift(self) -> None:  # noqa: B027 - most blows are over at once
        """Ends what lasts."""

    @property
    def record(self) -> processes.Record:
        """The process that was hit. ConfigurationError if it is not one of this host."""
        for record in processes.recorded(self.place):
            if record.name == self._name:
                return record
        raise ConfigurationError(f"{self._name} was not started by gfs up in {self.place.directory}")


class Kill(Hit):
    """SIGKILL."""

    async def act(self) -> None:
        processes.kill(self.record)


class Pause(Hit):
    """SIGSTOP, and SIGCONT after ``seconds``."""

    async def act(self) -> None:
        processes.send(self.record, signal.SIGSTOP)

    def lift(self) -> None:
        if self._name and not processes.send(self.record, signal.SIGCONT):
            self.note = "ended by its standby: it held the log's lock"


class Partition(Hit):
    """No packet to or from the leader's port."""

    means = "packet loss"

    def __init__(self, place: Layout, shape: Shape, seconds: float) -> None:
        super().__init__(place, shape, seconds)
        self._loss: PacketLoss | None = None

    async def act(self) -> None:
        self._loss = PacketLoss(self.shape.addresses[self._name][1])

    def lift(self) -> None:
        if self._loss is not None:
            self._loss.close()
            self._loss = None


class SilentForwarder(Hit):
    """A forwarder in front of each master goes silent. Masters are restarted, one by one, to listen behind it."""

    means = "forwarder"

    def __init__(self, place: Layout, shape: Shape, seconds: float, masters: Masters, patience: float) -> None:
        super().__init__(place, shape, seconds)
        self._masters = masters
        self._patience = patience
        self._forwarders: dict[str, Forwarder] = {}
        self._targets: dict[str, int] = {}

    async def prepare(self) -> None:
        for name in self.shape.master_names:
            host, port = self.shape.addresses[name]
            await self._stop(name)
            self._targets[name] = _free_port(host)
            self._forwarders[name] = Forwarder(host, port, self._targets[name])
            await self._forwarders[name].start()
            self._start(name)
            await self._masters.until_well(self.shape.chunkservers, self._patience)

    async def finish(self) -> None:
        for name in list(self._forwarders):
            await self._stop(name)
            await self._forwarders.pop(name).close()
            del self._targets[name]
            self._start(name)
            await self._masters.until_well(self.shape.chunkservers, self._patience)

    async def act(self) -> None:
        self._forwarders[self._name].cut(True)

    def lift(self) -> None:
        for forwarder in self._forwarders.values():
            forwarder.cut(False)

    def start(self) -> None:
        self._start(self._name)

    async def _stop(self, name: str) -> None:
        records = [record for record in processes.recorded(self.place) if record.name == name]
        await asyncio.to_thread(processes.stop, self.place, records)

    def _start(self, name: str) -> None:
        target = self._targets.get(name, 0)
        os.environ["GFS_MASTER_LISTEN_PORT"] = str(target)
        try:
            processes.start(self.place, name)
        finally:
            del os.environ["GFS_MASTER_LISTEN_PORT"]


class HandOver(Hit):
    """A planned change."""

    def __init__(self, place: Layout, shape: Shape, seconds: float, key: bytes) -> None:
        super().__init__(place, shape, seconds)
        self._key = key

    async def act(self) -> None:
        addresses = self.shape.master_addresses
        self._at = time.monotonic()
        answer = await probe.ask_leader(addresses, self._key, Handover(""), HANDOVER_SECONDS)
        if not isinstance(answer, HandedOver):
            raise RemoteProtocolError(f"the master answers a {type(answer).__name__} to the handover")


class LockedJournal(Hit):
    """Another process holds the lock of the SQLite journal."""

    def __init__(self, place: Layout, shape: Shape, seconds: float, journal: Path) -> None:
        super().__init__(place, shape, seconds)
        self._journal = journal
        self._connection: sqlite3.Connection | None = None

    async def act(self) -> None:
        self.note = "journal locked"
        self._connection = sqlite3.connect(self._journal, timeout=5.0, isolation_level=None, check_same_thread=False)
        await asyncio.to_thread(self._connection.execute, "BEGIN IMMEDIATE")
        self._at = time.monotonic()

    def lift(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class KillInCommit(LockedJournal):
    """SIGKILL while the leader's commits wait for the log's lock, so that it surely takes some with it."""

    async def act(self) -> None:
        await super().act()
        self.note = ""
        try:
            await asyncio.sleep(IN_COMMIT_SECONDS)
            self._at = time.monotonic()
            processes.kill(self.record)
        finally:
            self.lift()


class FullDisk(Hit):
    """The leader's files do not grow any more (RLIMIT_FSIZE): to it, that is a full disk, and to nobody else."""

    def __init__(self, place: Layout, shape: Shape, seconds: float) -> None:
        super().__init__(place, shape, seconds)
        self._limits: tuple[int, int] | None = None

    async def act(self) -> None:
        self.note = "disk full"
        pid = self.record.pid
        self._limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_BYTES, self._limits[1]))

    def lift(self) -> None:
        if self._limits is not None:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self.record.pid, resource.RLIMIT_FSIZE, self._limits)
            self._limits = None


def _free_port(host: str) -> int:
    with socket.socket() as attempt:
        attempt.bind((host, 0))
        port: int = attempt.getsockname()[1]
        return port
