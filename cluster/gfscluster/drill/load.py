"""The clients of a drill: they use the library as everyone does, and keep the ledger.

Metadata writers make, rename, count and remove names of their own, and read their own and each other's counters. Data
writers write small files and append records, both to stable storage. One client streams a file in, another one reads a
file again and again through whatever happens. A round's names are in a directory of its own.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from blake3 import blake3

from gfsclient.config import ClientConfig
from gfsclient.filesystem import FileSystem
from gfscluster.drill.ledger import Call, Fault, Finding, Outcome, check_counters, check_names, check_reads
from gfsprotocol.errors import GfsError, NamespaceError

COUNTER: Final = "user.drill"
FILE_BYTES_MAX: Final = 256 * 1024
RECORD_BYTES: Final = range(64, 4097)
STREAM_BYTES: Final = 1 << 20
STREAM_PACE: Final = 4.0
"""MiB per second, in and out."""
READ_MIB: Final = 16
KEPT_NAMES: Final = 3
ERRORS_KEPT: Final = 20

_Result = TypeVar("_Result")
_Work = Coroutine[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes that were acknowledged: ``content(mark, length)`` at ``offset`` of ``path``."""

    path: str
    offset: int
    length: int
    mark: str


@dataclass(slots=True)
class RoundLedger:
    """What the clients noted in one round."""

    directory: str
    calls: list[Call] = field(default_factory=list)
    files: list[Written] = field(default_factory=list)
    records: list[Written] = field(default_factory=list)
    streamed: int = 0
    """Pieces of the streamed file that were acknowledged."""
    reader_errors: int = 0
    errors: list[str] = field(default_factory=list)
    """Of calls that must not fail, the first few, for people."""
    duplicated_records: int = 0


def content(mark: str, length: int) -> bytes:
    """Bytes that belong to a mark and to no other."""
    return blake3(mark.encode()).digest(length=length)


class Load:
    """``writers`` clients and the two that stream. :meth:`start` and :meth:`stop` enclose a round."""

    def __init__(self, config: ClientConfig, directory: str, writers: int, pace: float, data: bool, seed: int) -> None:
        """``pace`` is calls per second and writer, 0 for as many as it can make; ``data``: not metadata only."""
        self._config = config
        self._directory = directory
        self._pace = pace
        self._random = random.Random(seed)  # noqa: S311 - sizes, no secrets
        data_writers = writers // 4 if data else 0
        self._metadata = range(writers - data_writers)
        self._data = range(writers - data_writers, writers)
        self._streams = data
        self.clients = writers + (2 if data else 0)
        self._systems: list[FileSystem] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def connect(self) -> None:
        """Connects the clients and makes what they need."""
        for _ in range(self.clients):
            self._systems.append(await FileSystem.connect(self._config.masters, self._config.key, config=self._config))
        await self._systems[0].mkdir(self._directory, parents=True)
        if self._streams:
            whole = b"".join(content(f"read-{piece}", STREAM_BYTES) for piece in range(READ_MIB))
            await self._systems[0].write_bytes(f"{self._directory}/read", whole)

    async def close(self) -> None:
        """Ends the clients, whatever they are doing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(files.close() for files in self._systems), return_exceptions=True)

    async def start(self, number: int) -> RoundLedger:
        """Begins a round; its ledger, which grows until :meth:`stop`."""
        ledger = RoundLedger(f"{self._directory}/{number}")
        await self._systems[0].mkdir(ledger.directory)
        for writer in range(self.clients):
            await self._systems[0].mkdir(f"{ledger.directory}/{writer}")
        self._stopping.clear()
        work = [self._write_metadata(ledger, writer) for writer in self._metadata]
        work += [self._write_data(ledger, writer) for writer in self._data]
        if self._streams:
            work += [self._stream_in(ledger, self.clients - 2), self._stream_out(ledger, self.clients - 1)]
        self._tasks = [asyncio.create_task(job) for job in work]
        return ledger

    async def stop(self) -> None:
        """Lets each client end its call, and returns when all have; what failed by a bug is raised."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        self._tasks = []

    @property
    def metadata_clients(self) -> frozenset[int]:
        """Those whose calls need nothing but the masters."""
        return frozenset(self._metadata)

    def check_running(self) -> None:
        """Raises what ended a client before it was asked to stop."""
        for task in self._tasks:
            if task.done():
                task.result()

    # ------------------------------------------------------------------------------------------------------ the calls

    async def _note(self, ledger: RoundLedger, call: Call, work: Awaitable[_Result]) -> _Result | None:
        """Makes a call and writes it down; its result if it was acknowledged."""
        ledger.calls.append(call)
        call.started = time.monotonic()
        try:
            result = await work
        except NamespaceError as error:
            call.outcome, call.error = Outcome.REFUSED, type(error).__name__
            return None
        except GfsError as error:
            call.outcome, call.error = Outcome.UNKNOWN, type(error).__name__
            self._complain(ledger, call, error)
            return None
        finally:
            call.ended = time.monotonic()
        call.outcome = Outcome.ACKNOWLEDGED
        return result

    async def _note_data(self, ledger: RoundLedger, call: Call, work: Awaitable[_Result]) -> _Result | None:
        """As :meth:`_note`, for what takes several calls: after a refusal it may be half done."""
        result = await self._note(ledger, call, work)
        if call.outcome is Outcome.REFUSED:
            call.outcome = Outcome.UNKNOWN
            self._complain(ledger, call, call.error)
        return result

    @staticmethod
    def _complain(ledger: RoundLedger, call: Call, error: object) -> None:
        if len(ledger.errors) < ERRORS_KEPT:
            ledger.errors.append(f"client {call.client}: {call.kind}: {error}")

    async def _rest(self, begun: float, pace: float) -> None:
        """Until the next call is due, or the round ends."""
        wait = begun + 1 / pace - time.monotonic() if pace else 0.0
        if wait <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._stopping.wait()

    async def _write_metadata(self, ledger: RoundLedger, writer: int) -> None:
        # Not all at once, or the calls of all clients would come in bursts.
        await self._rest(time.monotonic() - writer / (len(self._metadata) * (self._pace or 1000.0)), self._pace)
        number = 0
        while True:
            number += 1
            for call, work in self._metadata_calls(ledger, writer, number):
                if self._stopping.is_set():
                    work.close()
                    return
                begun = time.monotonic()
                result = await self._note(ledger, call, work)
                if call.reads and isinstance(result, bytes):
                    call.value = int(result)
                await self._rest(begun, self._pace)

    def _metadata_calls(self, ledger: RoundLedger, writer: int, number: int) -> "Iterator[tuple[Call, _Work]]":
        """One turn of a metadata writer."""
        files, base = self._systems[writer], f"{ledger.directory}/{writer}"
        made, first, second = f"{base}/d-{number}", f"{base}/f-{number}", f"{base}/g-{number}"
        yield Call(writer, "mkdir", 0, effects=((made, True),)), files.mkdir(made)
        yield Call(writer, "create", 0, effects=((first, True),)), files.make_file(first, exclusive=True)
        moved = ((first, False), (second, True))
        yield Call(writer, "rename", 0, effects=moved), files.rename(first, second, no_replace=True)
        value = str(number).encode()
        yield Call(writer, "count", 0, counter=base, value=number), files.set_xattr(base, COUNTER, value)
        yield Call(writer, "read", 0, counter=base, reads=True), files.get_xattr(base, COUNTER)
        if number > 1:
            other = f"{ledger.directory}/{self._random.choice(self._metadata)}"
            yield Call(writer, "read other", 0, counter=other, reads=True), files.get_xattr(other, COUNTER)
        ghost = f"{base}/h-{number}"
        missing = files.rename(f"{base}/missing-{number}", ghost)
        yield Call(writer, "rename nothing", 0, effects=((ghost, True),)), missing
        if number > KEPT_NAMES:
            old = f"{base}/g-{number - KEPT_NAMES}"
            yield Call(writer, "unlink", 0, effects=((old, False),)), files.remove(old)
            if number % 2:
                old = f"{base}/d-{number - KEPT_NAMES}"
                yield Call(writer, "rmdir", 0, effects=((old, False),)), files.rmdir(old)

    async def _write_data(self, ledger: RoundLedger, writer: int) -> None:
        files, base = self._systems[writer], f"{ledger.directory}/{writer}"
        records, number = f"{base}/records", 0
        await self._note_data(
            ledger, Call(writer, "create", 0, effects=((records, True),)), files.make_file(records, exclusive=True)
        )
        while not self._stopping.is_set():
            number += 1
            begun = time.monotonic()
            path, length = f"{base}/file-{number}", self._random.randrange(FILE_BYTES_MAX)
            call = Call(writer, "write file", 0, effects=((path, True),))
            await self._note_data(ledger, call, files.write_bytes(path, content(path, length)))
            if call.outcome is Outcome.ACKNOWLEDGED:
                ledger.files.append(Written(path, 0, length, path))
            await self._rest(begun, self._pace)
            for part in range(4):
                if self._stopping.is_set():
                    return
                begun = time.monotonic()
                mark, length = f"{path}-{part}", self._random.choice(RECORD_BYTES)
                appending = files.append_record(records, content(mark, length), sync=True)
                offset = await self._note_data(ledger, Call(writer, "append", 0), appending)
                if offset is not None:
                    ledger.records.append(Written(records, offset, length, mark))
                await self._rest(begun, self._pace)

    async def _stream_in(self, ledger: RoundLedger, client: int) -> None:
        path = f"{ledger.directory}/{client}/stream"
        opening = self._systems[client].open(path, "wb")
        file = await self._note_data(ledger, Call(client, "open", 0, effects=((path, True),)), opening)
        if file is None:
            return
        while not self._stopping.is_set():
            begun = time.monotonic()
            piece = content(f"{path}-{ledger.streamed}", STREAM_BYTES)

            async def write(piece: bytes = piece) -> bool:
                await file.write(piece)
                await file.flush()
                return True

            if not await self._note_data(ledger, Call(client, "stream", 0), write()):
                break
            ledger.streamed += 1
            await self._rest(begun, STREAM_PACE)
        await self._note_data(ledger, Call(client, "close", 0), file.close())

    async def _stream_out(self, ledger: RoundLedger, client: int) -> None:
        """Errors and wrong bytes are counted; cached locations carry it through a failover."""
        file = await self._systems[client].open(f"{self._directory}/read", "rb")
        piece = 0
        try:
            while not self._stopping.is_set():
                begun = time.monotonic()
                reading = file.pread(piece * STREAM_BYTES, STREAM_BYTES)
                data = await self._note(ledger, Call(client, "stream out", 0, reads=True), reading)
                if data != content(f"read-{piece}", STREAM_BYTES):
                    ledger.reader_errors += 1
                piece = (piece + 1) % READ_MIB
                await self._rest(begun, STREAM_PACE)
        finally:
            await file.close()

    # ------------------------------------------------------------------------------------------------------ the check

    async def check(self, ledger: RoundLedger, with_stream: bool = True) -> list[Finding]:
        """Compares the cluster with a round's ledger, call by call. The clients must have stopped."""
        files = self._systems[0]
        present, counters = set[str](), dict[str, int]()
        for writer in range(self.clients):
            base = f"{ledger.directory}/{writer}"
            present |= {f"{base}/{name}" for name in await files.listdir(base)}
            if COUNTER in await files.list_xattrs(base):
                counters[base] = int(await files.get_xattr(base, COUNTER))
        found = check_names(ledger.calls, present) + check_counters(ledger.calls, counters) + check_reads(ledger.calls)
        found += await self._check_data(ledger, files)
        if with_stream and self._streams:
            found += await self._check_stream(ledger, files)
        return found

    async def _check_data(self, ledger: RoundLedger, files: FileSystem) -> list[Finding]:
        found = [
            Finding(Fault.DATA, f"{written.path}: is not what was written")
            for written in ledger.files
            if await _read(files, written.path) != content(written.mark, written.length)
        ]
        held: dict[str, bytes] = {}
        ledger.duplicated_records = 0
        for written in ledger.records:
            if written.path not in held:
                held[written.path] = await _read(files, written.path)
            data, wanted = held[written.path], content(written.mark, written.length)
            if data[written.offset : written.offset + written.length] != wanted:
                found.append(Finding(Fault.DATA, f"{written.path}: the record at {written.offset} is not there"))
            elif data.count(wanted) > 1:
                ledger.duplicated_records += 1
        return found

    async def _check_stream(self, ledger: RoundLedger, files: FileSystem) -> list[Finding]:
        path = f"{ledger.directory}/{self.clients - 2}/stream"
        data = await _read(files, path)
        return [
            Finding(Fault.DATA, f"{path}: MiB {piece} is not what was written")
            for piece in range(ledger.streamed)
            if data[piece * STREAM_BYTES : (piece + 1) * STREAM_BYTES] != content(f"{path}-{piece}", STREAM_BYTES)
        ]

    async def discard_stream(self, ledger: RoundLedger) -> None:
        """Makes room: the large file was checked. Noted, so that later checks know."""
        if self._streams:
            path = f"{ledger.directory}/{self.clients - 2}/stream"
            call = Call(self.clients - 2, "unlink", 0, effects=((path, False),))
            await self._note(ledger, call, self._systems[0].remove(path))


async def _read(files: FileSystem, path: str) -> bytes:
    try:
        return await files.read_bytes(path)
    except GfsError as error:
        return f"unreadable: {error.message}".encode()
