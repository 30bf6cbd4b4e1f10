"""A checkpoint: the whole state as bytes, in parts of bounded size, and back.

``encode`` and ``decode`` are pure. Everything is in it that decides what later records do and answer: also the ids that
come next, the free slots in their order, the results of recent calls (HDFS's fsimage has its retry cache too). Columns
are stored as they stand in memory, so a million files are read in seconds. ``docs/formats.md`` has the bytes.

What is left out: the outputs ``freed`` and ``revised``, which belong to whoever applies records.
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from gfsmaster.directory import Directory
from gfsmaster.objects import Trashed
from gfsmaster.sessions import Session
from gfsmaster.state import State
from gfsprotocol.errors import LogDamaged, UnsupportedFormat
from gfsprotocol.messages import ReplyBody

CHECKPOINT_FORMAT: Final = 1
PART_BYTES_MAX: Final = 256 << 10
RESULTS_PER_ENTRY: Final = 64
_HEADER: Final = 0
_END: Final = 255
_ORDER_SWAPPED: Final = sys.byteorder == "big"


class _Header(msgspec.Struct, array_like=True, frozen=True):
    format: int
    cluster: bytes
    sequence: int
    epoch: int
    time_ns: int
    last_inode: int
    last_chunk: int
    sum: bytes


class _End(msgspec.Struct, array_like=True, frozen=True):
    parts: int


class _Format(msgspec.Struct, array_like=True, frozen=True):
    """The beginning of a header of any version."""

    format: int


_encoder = msgspec.msgpack.Encoder()


def encode(state: State) -> Iterator[bytes]:
    """The parts of a checkpoint, in order, each of at most PART_BYTES_MAX (and one long entry).

    The state must not change before the last one is taken.
    """
    parts = 0
    for part in _parts(state):
        parts += 1
        yield part
    yield bytes((_END,)) + _encoder.encode(_End(parts))


def decode(parts: Iterable[bytes | memoryview]) -> State:
    """The state that was encoded. UnsupportedFormat if a newer version has, LogDamaged if the parts are not whole."""
    try:
        return _decode(iter(parts))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise LogDamaged(f"the checkpoint cannot be decoded: {error}") from error


# ---------------------------------------------------------------------------------------------------------- the parts


def _columns(state: State) -> dict[int, "array[int]"]:
    """Kind of part -> column. Kinds 1 to 11 have an element for each inode slot, 21 to 25 for each chunk slot."""
    inodes, chunks = state.inodes, state.chunks
    return {
        1: inodes.ids,
        2: inodes.mode,
        3: inodes.owner,
        4: inodes.size,
        5: inodes.accessed,
        6: inodes.modified,
        7: inodes.changed,
        8: inodes.links,
        9: inodes.parent,
        10: inodes.first_chunk,
        11: inodes.layout,
        12: inodes.free,
        21: chunks.ids,
        22: chunks.version,
        23: chunks.length,
        24: chunks.inode,
        25: chunks.index,
        26: chunks.free,
    }


_INODE_COLUMNS: Final = range(1, 12)
_CHUNK_COLUMNS: Final = range(21, 26)


def _parts(state: State) -> Iterator[bytes]:
    header = _Header(
        CHECKPOINT_FORMAT,
        state.cluster,
        state.sequence,
        state.epoch,
        state.time_ns,
        state.inodes.last_id,
        state.chunks.last_id,
        state.object_sum().to_bytes(16, "little"),
    )
    yield bytes((_HEADER,)) + _encoder.encode(header)
    for kind, column in _columns(state).items():
        yield from _column_parts(kind, column)
    for kind, (_, entries, _) in _TABLES.items():
        yield from _table_parts(kind, entries(state))


def _column_parts(kind: int, column: "array[int]") -> Iterator[bytes]:
    step = (PART_BYTES_MAX - 1) // column.itemsize
    for start in range(0, len(column), step):
        piece = column[start : start + step]
        if _ORDER_SWAPPED:
            piece.byteswap()
        yield bytes((kind,)) + piece.tobytes()


def _table_parts(kind: int, entries: Iterable[object]) -> Iterator[bytes]:
    """Each part is a msgpack array of entries."""
    group: list[bytes] = []
    size = 6
    for entry in entries:
        encoded = _encoder.encode(entry)
        if group and size + len(encoded) > PART_BYTES_MAX:
            yield _table_part(kind, group)
            group, size = [], 6
        group.append(encoded)
        size += len(encoded)
    if group:
        yield _table_part(kind, group)


def _table_part(kind: int, group: list[bytes]) -> bytes:
    return bytes((kind,)) + b"\xdd" + len(group).to_bytes(4, "big") + b"".join(group)


def _decode(parts: Iterator[bytes | memoryview]) -> State:
    state = State()
    header = _read_header(state, next(parts, b""))
    columns = _columns(state)
    for column in columns.values():
        del column[:]  # slot 0 is in the checkpoint too
    count = 1
    for part in parts:
        kind, payload = part[0], memoryview(part)[1:]
        if kind in columns:
            column = columns[kind]
            if _ORDER_SWAPPED:
                swapped = array(column.typecode, payload.tobytes())
                swapped.byteswap()
                column.extend(swapped)
            else:
                column.frombytes(payload)
        elif kind in _TABLES:
            decoder, _, restore = _TABLES[kind]
            restore(state, decoder.decode(payload))
        elif kind == _END:
            if msgspec.msgpack.decode(payload, type=_End).parts != count or next(parts, None) is not None:
                raise ValueError("it ends at another part than it should")
            _check(state, columns)
            state.restore_object_sum(int.from_bytes(header.sum, "little"))
            return state
        else:
            raise ValueError(f"it has a part of unknown kind {kind}")
        count += 1
    raise ValueError(f"it ends after {count} parts, in the middle")


def _read_header(state: State, part: bytes | memoryview) -> _Header:
    if not part or part[0] != _HEADER:
        raise ValueError("it does not begin with a header")
    payload = memoryview(part)[1:]
    written = msgspec.msgpack.decode(payload, type=_Format).format
    if written != CHECKPOINT_FORMAT:
        raise UnsupportedFormat(
            f"the checkpoint has format {written}, this version reads format {CHECKPOINT_FORMAT}: "
            "use the version that wrote it"
        )
    header = msgspec.msgpack.decode(payload, type=_Header)
    state.cluster = header.cluster
    state.sequence, state.epoch, state.time_ns = header.sequence, header.epoch, header.time_ns
    state.inodes.last_id, state.chunks.last_id = header.last_inode, header.last_chunk
    return header


def _check(state: State, columns: dict[int, "array[int]"]) -> None:
    """All columns of a table are equally long, or later records would not fit."""
    for table, kinds in ((state.inodes, _INODE_COLUMNS), (state.chunks, _CHUNK_COLUMNS)):
        if not table.ids or any(len(columns[kind]) != len(table.ids) for kind in kinds):
            raise ValueError("its columns have different lengths")


# --------------------------------------------------------------------------------------------------------- the tables
#
# What is no column: kind of part -> decoder of a part, the entries of a state, and what puts decoded ones back. Entries
# are msgpack arrays; their order is kept, for the order of these dictionaries decides what is forgotten first.

_Entry = tuple[Any, ...]


def _owners(state: State) -> Iterable[_Entry]:
    return state.inodes.owners.values


def _restore_owners(state: State, entries: list[tuple[int, int]]) -> None:
    state.inodes.owners.restore(entries)


def _layouts(state: State) -> Iterable[_Entry]:
    return state.inodes.layouts.values


def _restore_layouts(state: State, entries: list[tuple[int, int]]) -> None:
    state.inodes.layouts.restore(entries)


def _more_chunks(state: State) -> Iterator[_Entry]:
    """A long file's chunks are several entries."""
    step = PART_BYTES_MAX // 8
    for slot, chunks in state.inodes.more_chunks.items():
        for start in range(0, len(chunks), step):
            yield slot, list(chunks[start : start + step])


def _restore_more_chunks(state: State, entries: list[tuple[int, list[int]]]) -> None:
    more = state.inodes.more_chunks
    for slot, chunks in entries:
        more.setdefault(slot, array("I")).extend(chunks)


def _directories(state: State) -> Iterator[_Entry]:
    for slot, directory in state.inodes.directories.items():
        yield slot, directory.name


def _restore_directories(state: State, entries: list[tuple[int, bytes]]) -> None:
    state.inodes.directories.update((slot, Directory(name)) for slot, name in entries)


def _buckets(state: State) -> Iterator[_Entry]:
    for slot, directory in state.inodes.directories.items():
        for names, slots in directory.buckets():
            yield slot, names, slots.tolist()


def _restore_buckets(state: State, entries: list[tuple[int, list[bytes], list[int]]]) -> None:
    directories = state.inodes.directories
    for slot, names, slots in entries:
        directories[slot].extend(names, array("I", slots))


def _targets(state: State) -> Iterable[_Entry]:
    return state.inodes.targets.items()


def _restore_targets(state: State, entries: list[tuple[int, bytes]]) -> None:
    state.inodes.targets.update(entries)


def _xattrs(state: State) -> Iterator[_Entry]:
    for slot, attributes in state.inodes.xattrs.items():
        for name, value in attributes.items():
            yield slot, name, value


def _restore_xattrs(state: State, entries: list[tuple[int, bytes, bytes]]) -> None:
    for slot, name, value in entries:
        state.inodes.xattrs.setdefault(slot, {})[name] = value


def _cuts(state: State) -> Iterable[_Entry]:
    return state.chunks.cuts.items()


def _restore_cuts(state: State, entries: list[tuple[int, int]]) -> None:
    state.chunks.cuts.update(entries)


def _sessions(state: State) -> Iterator[_Entry]:
    for client, session in state.sessions.by_client.items():
        yield client, session.floor, session.last_ns


def _restore_sessions(state: State, entries: list[tuple[bytes, int, int]]) -> None:
    for client, floor, last_ns in entries:
        session = state.sessions.by_client[client] = Session()
        session.floor, session.last_ns = floor, last_ns


def _results(state: State) -> Iterator[_Entry]:
    for client, session in state.sessions.by_client.items():
        results = list(session.results.items())
        for start in range(0, len(results), RESULTS_PER_ENTRY):
            yield client, results[start : start + RESULTS_PER_ENTRY]


def _restore_results(state: State, entries: list[tuple[bytes, list[tuple[int, ReplyBody]]]]) -> None:
    for client, results in entries:
        state.sessions.by_client[client].results.update(results)


def _writers(state: State) -> Iterable[_Entry]:
    return state.writers.items()


def _restore_writers(state: State, entries: list[tuple[int, bytes, int]]) -> None:
    for slot, client, count in entries:
        state.writers.restore(slot, client, count)


def _trash(state: State) -> Iterator[_Entry]:
    for slot, item in state.trash.items():
        yield slot, item.path, item.uid, item.deleted_ns, item.expires_ns


def _restore_trash(state: State, entries: list[tuple[int, bytes, int, int, int]]) -> None:
    for slot, path, uid, deleted_ns, expires_ns in entries:
        state.trash[slot] = Trashed(path, uid, deleted_ns, expires_ns)


def _doomed(state: State) -> Iterable[int]:
    return state.doomed


def _restore_doomed(state: State, entries: list[int]) -> None:
    state.doomed.extend(entries)


def _devices(state: State) -> Iterable[_Entry]:
    return state.inodes.devices.items()


def _restore_devices(state: State, entries: list[tuple[int, int]]) -> None:
    state.inodes.devices.update(entries)


def _decoder(entry: Any) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(list[entry])


_Table = tuple["msgspec.msgpack.Decoder[Any]", Callable[[State], Iterable[object]], Callable[[State, Any], None]]

_TABLES: Final[dict[int, _Table]] = {
    40: (_decoder(tuple[int, int]), _owners, _restore_owners),
    41: (_decoder(tuple[int, int]), _layouts, _restore_layouts),
    42: (_decoder(tuple[int, list[int]]), _more_chunks, _restore_more_chunks),
    43: (_decoder(tuple[int, bytes]), _directories, _restore_directories),
    44: (_decoder(tuple[int, list[bytes], list[int]]), _buckets, _restore_buckets),
    45: (_decoder(tuple[int, bytes]), _targets, _restore_targets),
    46: (_decoder(tuple[int, bytes, bytes]), _xattrs, _restore_xattrs),
    47: (_decoder(tuple[int, int]), _cuts, _restore_cuts),
    48: (_decoder(tuple[bytes, int, int]), _sessions, _restore_sessions),
    49: (_decoder(tuple[bytes, list[tuple[int, ReplyBody]]]), _results, _restore_results),
    50: (_decoder(tuple[int, bytes, int]), _writers, _restore_writers),
    51: (_decoder(tuple[int, bytes, int, int, int]), _trash, _restore_trash),
    52: (_decoder(int), _doomed, _restore_doomed),
    53: (_decoder(tuple[int, int]), _devices, _restore_devices),
}
