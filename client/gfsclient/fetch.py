"""Reads a piece of one chunk from whichever replica gives it, verified from the server's disk to our buffer.

Large pieces come as raw bytes with the digests that were stored when they were written; small ones are verified by
the server and come with one digest. A replica that is unreachable, slow, short, stale or wrong is left for the next
one; one that was wrong is reported. Nothing unverified is ever returned, and no late answer can land in another read's
buffer: one request at a time is on a connection, and a connection is closed after anything but a complete answer.
"""

import select
import time
from typing import Final

from gfsclient.core import Core
from gfsclient.links import backoff_seconds
from gfsclient.locations import ChunkMap
from gfsprotocol import bulk
from gfsprotocol.bulksocket import OWN_FAULT, expect
from gfsprotocol.checksums import block_count, digest
from gfsprotocol.errors import (
    AvailabilityError,
    ChunkCorrupt,
    ConnectionLost,
    DataError,
    DataLost,
    DeadlineExceeded,
    GfsError,
    RemoteProtocolError,
)
from gfsprotocol.ids import BLOCK_BYTES, DIGEST_BYTES, MIB
from gfsprotocol.messages import ChunkLocation, Done, ReportCorrupt

HEDGED_BYTES_MAX: Final = 256 * 1024
"""Reads up to this size are asked of a second replica when the first is slow; larger ones watch their progress."""
PIECE_BYTES: Final = MIB
"""Bytes received and verified at a time: they are still in the processor's cache when they are hashed."""
REPORT_SECONDS: Final = 5.0
MASTER_SECONDS: Final = 5.0

_FAILURES: Final = (DataError, AvailabilityError, RemoteProtocolError)
"""What one replica may do to us; another one may do better."""


class Piece:
    """A range of one chunk to be fetched into ``view``; ``done`` bytes of it are there and verified.

    ``start`` is a block boundary for unverified reads; ``view`` then has room up to a block's end.
    """

    def __init__(self, index: int, start: int, view: memoryview) -> None:
        self.index = index
        self.start = start
        self.view = view
        self.done = 0
        self.is_cancelled = False
        """Set by whoever no longer wants it: the fetch ends soon, with the bytes it has."""
        self._chunk = 0

    def begin(self, location: ChunkLocation) -> None:
        """Fetch from ``location``; bytes of another chunk than before do not count."""
        if location.chunk != self._chunk:
            self._chunk, self.done = location.chunk, 0

    @property
    def position(self) -> int:
        return self.start + self.done

    @property
    def rest(self) -> memoryview:
        return self.view[self.done :]


class Fetcher:
    """Fetches pieces of the chunks of one file. Safe for threads: each call is on its own."""

    def __init__(self, core: Core, chunks: ChunkMap) -> None:
        self._core = core
        self._chunks = chunks

    def fetch(self, piece: Piece) -> int:
        """Fills the piece's view with what the chunk has, zeros beyond its recorded length; how many bytes it has.

        DataLost, naming chunk and servers, when no replica has given good bytes until the deadline; those that are
        good nevertheless are in ``piece.done``.
        """
        deadline = time.monotonic() + self._core.config.deadline_seconds
        attempt = 0
        reported: set[int] = set()
        location = self._chunks.find(piece.index)
        while True:
            piece.begin(location)
            wanted = min(len(piece.view), max(0, location.length - piece.start)) if location.chunk else 0
            reasons: dict[int, GfsError] = {}
            if piece.done >= wanted or piece.is_cancelled or self._from_any(piece, location, wanted, reasons, reported):
                break
            if time.monotonic() > deadline:
                raise _lost(location, reasons)
            if attempt:
                time.sleep(backoff_seconds(attempt, 0.05))
            attempt += 1
            location = self._locate_again(location, deadline)
        piece.view[wanted:] = bytes(len(piece.view) - wanted)
        if not piece.is_cancelled:
            piece.done = len(piece.view)
        return wanted

    def _locate_again(self, location: ChunkLocation, deadline: float) -> ChunkLocation:
        """Where the chunk is now; without a master, what is known has to do."""
        seconds = min(MASTER_SECONDS, max(0.1, deadline - time.monotonic()))
        try:
            return self._chunks.refresh(location.index, seconds, at_leader=True)
        except AvailabilityError:
            return location

    def _from_any(
        self, piece: Piece, location: ChunkLocation, wanted: int, reasons: dict[int, GfsError], reported: set[int]
    ) -> bool:
        """Tries each replica once, those that sent wrong bytes a second time with verification at the server."""
        servers = self._core.servers.in_order(location.servers, location.chunk)
        if wanted - piece.done <= HEDGED_BYTES_MAX:
            self._race(servers, piece, location, wanted, reasons)
        else:
            self._one_by_one(servers, piece, location, wanted, reasons, verify=False)
        suspects = [server for server, error in reasons.items() if isinstance(error, ChunkCorrupt)]
        # A block that was overwritten while it was sent looks wrong too: the server can tell, under its lock.
        self._one_by_one(suspects, piece, location, wanted, reasons, verify=True)
        for server in set(suspects) - reported:  # without waiting: the master has the replica verified
            reported.add(server)
            self._core.submit(ReportCorrupt(location.chunk, location.version, server), Done, REPORT_SECONDS)
        return piece.done >= wanted or piece.is_cancelled

    def _one_by_one(
        self,
        servers: list[int],
        piece: Piece,
        location: ChunkLocation,
        wanted: int,
        reasons: dict[int, GfsError],
        verify: bool,
    ) -> None:
        """Each server goes on where the one before it failed."""
        for server in servers:
            if piece.done >= wanted or piece.is_cancelled:
                return
            try:
                _Question(self._core, server, piece, location, verify).take_answer(wanted)
            except _FAILURES as error:
                self._failed(server, error, piece, reasons)

    def _race(
        self, servers: list[int], piece: Piece, location: ChunkLocation, wanted: int, reasons: dict[int, GfsError]
    ) -> None:
        """Asks one server, the next as soon as those before are slow or have failed; the first good answer counts.

        HDFS calls it a hedged read.
        """
        running: dict[int, _Question] = {}
        waiting = list(servers)
        watch = select.poll()
        try:
            while piece.done < wanted and (waiting or running):
                config = self._core.config
                seconds = config.hedge_seconds if waiting else config.read_progress_seconds
                ready = watch.poll(seconds * 1000) if running else []
                if ready:
                    watch.unregister(ready[0][0])
                    question = running.pop(ready[0][0])
                    self._take(question, piece, wanted, reasons)
                elif waiting:
                    self._enter(waiting.pop(0), piece, location, running, watch, reasons)
                else:
                    break
        finally:
            for question in running.values():
                question.close()
                slow = DeadlineExceeded("it does not answer in time")
                self._failed(question.server, slow, piece, reasons)

    def _enter(
        self,
        server: int,
        piece: Piece,
        location: ChunkLocation,
        running: "dict[int, _Question]",
        watch: select.poll,
        reasons: dict[int, GfsError],
    ) -> None:
        try:
            question = _Question(self._core, server, piece, location, False)
        except _FAILURES as error:
            self._failed(server, error, piece, reasons)
            return
        running[question.descriptor] = question
        watch.register(question.descriptor, select.POLLIN)

    def _take(self, question: "_Question", piece: Piece, wanted: int, reasons: dict[int, GfsError]) -> None:
        try:
            question.take_answer(wanted)
        except _FAILURES as error:
            self._failed(question.server, error, piece, reasons)

    def _failed(self, server: int, error: GfsError, piece: Piece, reasons: dict[int, GfsError]) -> None:
        if not piece.is_cancelled:
            reasons[server] = error
            if error.hint != OWN_FAULT:
                self._core.servers.failed(server)


class _Question:
    """One request to one replica, from ``piece.position`` on. Its connection is closed unless all went well."""

    def __init__(self, core: Core, server: int, piece: Piece, location: ChunkLocation, verify: bool) -> None:
        self.server = server
        self._core = core
        self._piece = piece
        self._location = location
        address = core.servers.address(server)
        if address is None:
            raise ConnectionLost(f"the address of chunk server {server} is not known")
        self._address = address
        self._connection = core.pool.take(address.host, address.port)
        self._connection.set_timeout(core.config.read_progress_seconds)
        # Whole blocks are asked for as such, up to the end of the last one: its digest covers all of it.
        header = bulk.Read(location.token, location.chunk, location.version, piece.position, len(piece.rest), verify)
        try:
            self._connection.send(header)
        except GfsError:
            self.close()
            raise

    @property
    def descriptor(self) -> int:
        return self._connection.sock.fileno()

    def close(self) -> None:
        self._connection.close()

    def take_answer(self, wanted: int) -> None:
        """Receives and verifies; whatever ends it, the verified bytes count."""
        try:
            self._receive(wanted)
        except _FAILURES:
            self.close()
            raise
        self._core.pool.give_back(self._address.host, self._address.port, self._connection)
        self._core.servers.worked(self.server)

    def _receive(self, wanted: int) -> None:
        piece, peer, location = self._piece, self._connection.peer, self._location
        header, count = self._connection.receive_reply(len(piece.rest))
        reply = expect(header, bulk.ReadReply, peer)
        if reply.offset != piece.position:
            raise RemoteProtocolError(f"{peer} sent offset {reply.offset}, asked was {piece.position}")
        if reply.verified:
            self._receive_verified(count, reply.digests)
        else:
            self._receive_blocks(count, reply.digests)
        if piece.done < wanted:
            raise ChunkCorrupt(
                f"the replica of chunk {location.chunk} at {peer} ends at {reply.chunk_length}, "
                f"{location.length} bytes are recorded"
            )

    def _receive_verified(self, count: int, expected: bytes) -> None:
        view = self._piece.rest[:count]
        self._connection.receive_into(view)
        if digest(view) != expected:
            raise self._mismatch()
        self._piece.done += count

    def _receive_blocks(self, count: int, digests: bytes) -> None:
        """Receives raw blocks and checks each against the digest that came before them."""
        piece, connection = self._piece, self._connection
        if len(digests) != block_count(count) * DIGEST_BYTES or piece.position % BLOCK_BYTES:
            raise RemoteProtocolError(f"{connection.peer} sent {len(digests)} bytes of digests for {count} bytes")
        end, checked = piece.done + count, 0
        while piece.done < end:
            view = piece.view[piece.done : min(piece.done + PIECE_BYTES, end)]
            connection.receive_into(view)
            for start in range(0, len(view), BLOCK_BYTES):
                block = view[start : start + BLOCK_BYTES]
                if digest(block) != digests[checked : checked + DIGEST_BYTES]:
                    raise self._mismatch()
                checked += DIGEST_BYTES
                piece.done += len(block)
            if piece.is_cancelled and piece.done < end:
                raise ConnectionLost("the read was given up")

    def _mismatch(self) -> ChunkCorrupt:
        return ChunkCorrupt(
            f"chunk {self._location.chunk} from {self._connection.peer} does not match its digests "
            f"at offset {self._piece.position}"
        )


def _lost(location: ChunkLocation, reasons: dict[int, GfsError]) -> DataLost:
    told = "; ".join(f"server {server}: {error.message}" for server, error in reasons.items())
    return DataLost(
        f"no good replica of chunk {location.chunk} (number {location.index} of the file) can be reached "
        f"({told or 'no chunk server is known to have it'})"
    )
