"""What a disk does when it starts: redo the journal, verify what was never promised durable, look at every chunk file.

The result is a disk whose files are all finished checkpoints and whose journal is empty. Nothing here is needed twice:
a crash at any point leaves what the next start can do again.
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gfschunkserver import chunkfile
from gfschunkserver.files import File, Files
from gfschunkserver.journal import JournalScan, Segment
from gfschunkserver.records import AnyRecord, Base, Cut, Drop, Mark, ReplicaState, Write
from gfschunkserver.replica import checkpoint, state_from_header
from gfsprotocol.checksums import block_count, digest
from gfsprotocol.errors import ChunkCorrupt, DiskFailed, ForeignStore, GfsError, UnsupportedFormat
from gfsprotocol.ids import BLOCK_BYTES

log = logging.getLogger(__name__)

CHUNK_SUFFIX: Final = ".chunk"
COPY_SUFFIX: Final = ".copy"
FOLDERS: Final = 256
_CHUNK_STEM: Final = re.compile("[0-9a-f]{16}")


class Layout:
    """Where things are in a data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.chunks = root / "chunks"
        self.journal = root / "journal"
        self.bad = root / "bad"

    def folder(self, chunk: int) -> Path:
        return self.chunks / f"{chunk % FOLDERS:02x}"

    def chunk_file(self, chunk: int) -> Path:
        return self.folder(chunk) / f"{chunk:016x}{CHUNK_SUFFIX}"

    def copy_file(self, chunk: int) -> Path:
        """A copy that is not complete yet; removed at the next start."""
        return self.folder(chunk) / f"{chunk:016x}{COPY_SUFFIX}"


class Found:
    """What recovery found on a disk."""

    def __init__(self) -> None:
        self.replicas: dict[int, ReplicaState] = {}
        """Without tables; those are read when they are needed."""
        self.corrupt: dict[int, str] = {}
        self.next_segment = 1
        self.journal_end = 0


class _Redo:
    """One chunk while the journal is read again."""

    def __init__(self) -> None:
        self.state: ReplicaState | None = None
        self.created = False
        """Whether its whole life is in the journal."""
        self.extents: list[tuple[Segment, int, int, int]] = []
        """Segment and position of Write records, and the part of the chunk that they still determine."""

    def apply(self, record: AnyRecord, segment: Segment, position: int) -> None:
        match record:
            case Base():
                self.created = self.created or record.created
                self.state = ReplicaState(record)
            case _ if self.state is None:
                raise DiskFailed(f"the journal {segment.path} speaks of chunk {record.chunk:x} before it introduced it")
            case _:
                self.state.apply(record)
        if isinstance(record, Write):
            self.extents.append((segment, position, record.offset, record.offset + len(record.data)))
        elif isinstance(record, Cut):
            # What comes to stand there later is not in these records: they must not be redone over it.
            self.extents = [
                (segment, position, start, min(end, record.length))
                for segment, position, start, end in self.extents
                if start < record.length
            ]


class Recovery:
    """One start of one disk."""

    def __init__(self, files: Files, layout: Layout, cluster: bytes, disk_id: bytes) -> None:
        self._files = files
        self._layout = layout
        self._cluster = cluster
        self._disk_id = disk_id
        self._found = Found()

    def run(self) -> Found:
        """DiskFailed if the journal is damaged; OSError if the disk is."""
        scan = JournalScan(self._files, self._layout.journal, self._disk_id)
        try:
            redone = self._redo_journal(scan)
            for chunk in self._chunk_files():
                if chunk not in redone:
                    self._take_file(chunk)
            scan.remove_all()
        finally:
            scan.close()
        self._found.next_segment = scan.last_number + 1
        self._found.journal_end = scan.end
        return self._found

    def _redo_journal(self, scan: JournalScan) -> set[int]:
        redos: dict[int, _Redo] = {}
        for segment, read in scan.read():
            if isinstance(read.record, Drop):
                redos[read.record.chunk] = _Redo()
            elif not isinstance(read.record, Mark):
                redos.setdefault(read.record.chunk, _Redo()).apply(read.record, segment, read.position)
        for chunk, redo in redos.items():
            try:
                self._settle(chunk, redo, scan)
            except ForeignStore as error:
                self._move_away(chunk, error)
            except ChunkCorrupt as error:
                self._quarantine(chunk, error.message)
        for folder in sorted({self._layout.folder(chunk) for chunk in redos}):
            self._files.sync_directory(folder)
        return set(redos)

    def _settle(self, chunk: int, redo: _Redo, scan: JournalScan) -> None:
        """Makes the chunk's file a finished checkpoint of what the journal says, or removes it."""
        path = self._layout.chunk_file(chunk)
        exists = self._files.exists(path)
        if redo.state is None:
            if exists:
                self._files.remove(path)
            return
        if not exists and not redo.created:
            log.error("chunk %x is missing: the journal knows it, %s does not exist", chunk, path)
            return
        file = self._files.open(path, create=not exists)
        try:
            self._refuse_foreign(file, chunk)
            self._redo_writes(file, redo, scan)
            self._cut_unsynced(file, redo.state)
            file.truncate(chunkfile.data_offset(redo.state.chunk_bytes) + redo.state.length)
            file.write(0, *checkpoint(redo.state, self._cluster))
            file.sync()
        finally:
            file.close()
        self._keep(redo.state)

    def _refuse_foreign(self, file: File, chunk: int) -> None:
        """The header need not be intact, the journal knows better; but if it is, it must be ours."""
        try:
            header = chunkfile.decode_header(self._read_or_nothing(file, chunk, 0, chunkfile.HEADER_BYTES))
        except ChunkCorrupt as error:
            log.info("chunk %x is taken from the journal: %s", chunk, error.message)
            return
        chunkfile.check_identity(header, self._cluster, chunk)

    def _redo_writes(self, file: File, redo: _Redo, scan: JournalScan) -> None:
        assert redo.state is not None
        base = chunkfile.data_offset(redo.state.chunk_bytes)
        for segment, position, start, end in redo.extents:
            record = scan.read_at(segment, position).record
            assert isinstance(record, Write)
            file.write(base + start, memoryview(record.data)[start - record.offset : end - record.offset])

    def _cut_unsynced(self, file: File, state: ReplicaState) -> None:
        """Cuts off, at the last good block, what does not match and was never promised durable.

        ChunkCorrupt if something does not match that was.
        """
        synced = state.synced_length
        base = chunkfile.data_offset(state.chunk_bytes)
        if synced and file.length() < base + synced:
            raise ChunkCorrupt(f"the file of chunk {state.chunk:x} is shorter than what was synced")
        good = synced
        for block in range(synced // BLOCK_BYTES, block_count(state.length)):
            start = block * BLOCK_BYTES
            expected = min(BLOCK_BYTES, state.length - start)
            data = self._read_or_nothing(file, state.chunk, base + start, expected)
            if len(data) == expected and digest(data) == state.block_digest(block):
                good = start + expected
                continue
            if start < synced:
                if digest(data[: synced - start]) != state.synced_tail:
                    raise ChunkCorrupt(f"block {block} of chunk {state.chunk:x} was synced and is not good")
                state.apply(Cut(state.chunk, synced, state.synced_tail))
            else:
                state.apply(Cut(state.chunk, good, b""))
            log.warning("chunk %x: bytes beyond %d were not synced and are lost", state.chunk, state.length)
            return

    def _read_or_nothing(self, file: File, chunk: int, offset: int, count: int) -> bytes:
        """A bad sector damages its chunk, not the disk."""
        try:
            return file.read(offset, count)
        except OSError as error:
            log.error("the file of chunk %x cannot be read at %d: %s", chunk, offset, error.strerror)  # noqa: TRY400
            return b""

    def _chunk_files(self) -> Iterable[int]:
        for number in range(FOLDERS):
            folder = self._layout.folder(number)
            for name in self._files.names(folder):
                stem, dot, suffix = name.partition(".")
                if dot + suffix == COPY_SUFFIX:
                    self._files.remove(folder / name)
                elif dot + suffix == CHUNK_SUFFIX and _CHUNK_STEM.fullmatch(stem) and int(stem, 16) % FOLDERS == number:
                    yield int(stem, 16)
                else:
                    log.warning("%s is not ours and is left alone", folder / name)

    def _take_file(self, chunk: int) -> None:
        """A file that the journal does not mention: it must be a finished checkpoint."""
        path = self._layout.chunk_file(chunk)
        try:
            file = self._files.open(path)
            try:
                header_bytes = file.read(0, chunkfile.HEADER_BYTES)
                table_bytes = file.read(chunkfile.HEADER_BYTES, chunkfile.PAGE_BYTES)
                length = file.length()
            finally:
                file.close()
            if not any(header_bytes) and not any(table_bytes):
                self._remove_unborn(path)
                return
            header = chunkfile.decode_header(header_bytes)
            chunkfile.check_identity(header, self._cluster, chunk)
            chunkfile.check_length(header, length)
        except ForeignStore as error:
            self._move_away(chunk, error)
        except (ChunkCorrupt, UnsupportedFormat) as error:
            self._quarantine(chunk, error.message)
        except OSError as error:
            self._quarantine(chunk, f"the header of chunk {chunk:x} cannot be read: {error.strerror or error}")
        else:
            self._keep(state_from_header(header))

    def _remove_unborn(self, path: Path) -> None:
        """It has neither header nor table, so it was never checkpointed, nor synced: the journal would know it."""
        log.info("removing %s, of which nothing was ever synced", path)
        self._files.remove(path)

    def _keep(self, state: ReplicaState) -> None:
        state.table = bytearray()
        self._found.replicas[state.chunk] = state

    def _quarantine(self, chunk: int, reason: str) -> None:
        self._found.corrupt[chunk] = reason
        self._move_away(chunk, ChunkCorrupt(reason))

    def _move_away(self, chunk: int, error: GfsError) -> None:
        path = self._layout.chunk_file(chunk)
        log.error("%s; it is kept as %s", error.message, move_to_bad(self._files, self._layout, chunk))
        self._files.sync_directory(path.parent)


def move_to_bad(files: Files, layout: Layout, chunk: int) -> Path:
    """Puts a chunk's file aside for a person. Not durable before the directories are synced."""
    target = layout.bad / layout.chunk_file(chunk).name
    number = 1
    while files.exists(target):
        number += 1
        target = layout.bad / f"{chunk:016x}-{number}{CHUNK_SUFFIX}"
    files.rename(layout.chunk_file(chunk), target)
    files.sync_directory(layout.bad)
    return target
