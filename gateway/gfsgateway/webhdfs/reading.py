"""The content of files: its bytes, its checksum, and where its chunks are."""

from typing import Any, Final

from aiohttp import web

from gfsgateway.rest.ranges import Range
from gfsgateway.rest.reading import send
from gfsgateway.transfer import PIECE_BYTES
from gfsgateway.webhdfs import delegation
from gfsgateway.webhdfs.ask import Ask, Operation, answer, not_a_file, redirect
from gfsgateway.webhdfs.checksum import FileChecksum
from gfsgateway.webhdfs.exceptions import HADOOP_ILLEGAL_ARGUMENT, IO, HdfsRefusal
from gfsprotocol.errors import IsADirectory
from gfsprotocol.messages import Attributes, ChunkLocation, Locations, ServerAddress

RACK: Final = "/default-rack"
BLOCKS_MAX: Final = 10_000
"""Whose places one answer tells, or a sparse file would take all memory."""
POOL: Final = "gfs"
"""HDFS's name for what its block ids belong to."""
_HEADERS: Final = {
    "Content-Type": "application/octet-stream",
    # Files are whatever people have uploaded: none of them may act as a page of this address.
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox",
}


async def open_file(ask: Ask) -> web.StreamResponse:
    """Names the address where the content comes from."""
    _range(ask, (await _locate(ask, 0, 1)).attributes)
    return redirect(ask)


async def open_data(ask: Ask) -> web.StreamResponse:
    """The content, or a part of it."""
    call = ask.call
    with call.gateway.transfers.share() as width:
        files = await ask.files(width)
        try:
            file = await files.open(ask.path)
        except IsADirectory as error:
            raise not_a_file(ask.path) from error
        async with file:
            return await send(call, file, 200, dict(_HEADERS), [(b"", _range(ask, file.attributes))])


async def _locate(ask: Ask, first: int, count: int) -> Locations:
    """Where chunks of the file are, which whoever may read it may ask."""
    files = await ask.files()
    try:
        return await files.locate(ask.path, first, count)
    except IsADirectory as error:
        raise not_a_file(ask.path) from error


def _range(ask: Ask, found: Attributes) -> Range:
    """The part that is asked for, as far as the file goes."""
    offset = ask.parameters.whole("offset") or 0
    length = ask.parameters.whole("length")
    if offset > found.size:
        message = f"Offset={offset} out of the range [0, {found.size}]; OPEN, path={ask.shown}"
        raise HdfsRefusal(IO, message)
    left = found.size - offset
    return Range(offset, offset + (left if length is None else min(length, left)) - 1)


async def checksum(ask: Ask) -> web.StreamResponse:
    """Names the address that computes it."""
    await _locate(ask, 0, 1)
    return redirect(ask)


async def checksum_data(ask: Ask) -> web.StreamResponse:
    """HDFS's checksum of the content, which is read for it."""
    await _locate(ask, 0, 1)
    async with ask.call.gateway.transfers.turn() as width:
        files = await ask.files(width)
        async with await files.open(ask.path) as file:
            result = FileChecksum(file.attributes.chunk_bytes)
            while piece := await file.read(PIECE_BYTES):
                result.update(piece)
    return answer({"FileChecksum": result.finish()})


async def get_file_block_locations(ask: Ask) -> web.StreamResponse:
    """Which servers have which part, for programs that would rather run there."""
    found, chunks, servers = await _located(ask)
    blocks = [_block_location(found, chunk, [servers[each] for each in chunk.servers]) for chunk in chunks]
    return answer({"BlockLocations": {"BlockLocation": blocks}})


async def get_block_locations(ask: Ask) -> web.StreamResponse:
    """The same in the form that older clients ask for."""
    found, chunks, servers = await _located(ask)
    blocks = [_located_block(found, chunk, [servers[each] for each in chunk.servers]) for chunk in chunks]
    is_open = bool(found.open_writers)
    located = {
        "fileLength": found.size,
        "isLastBlockComplete": not is_open,
        "isUnderConstruction": is_open,
        "lastLocatedBlock": blocks[-1] if blocks else None,
        "locatedBlocks": blocks,
    }
    return answer({"LocatedBlocks": located})


async def _located(ask: Ask) -> tuple[Attributes, list[ChunkLocation], dict[int, ServerAddress]]:
    """The chunks of the part that is asked for, and the servers that have them."""
    offset = ask.parameters.whole("offset") or 0
    length = ask.parameters.whole("length")
    found = (await _locate(ask, 0, 1)).attributes
    end = found.size if length is None else min(found.size, offset + length)
    index, behind = offset // found.chunk_bytes, -(-end // found.chunk_bytes)
    if behind - index > BLOCKS_MAX:
        message = f"The range has more than {BLOCKS_MAX} blocks: ask for a part of it, by offset and length"
        raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, message)
    chunks: list[ChunkLocation] = []
    servers: dict[int, ServerAddress] = {}
    while index < behind:
        part = await _locate(ask, index, behind - index)
        if not part.chunks:
            break  # cut meanwhile
        chunks += part.chunks
        servers |= {server.server: server for server in part.servers}
        index = chunks[-1].index + 1
    return found, chunks, servers


def _extent(found: Attributes, chunk: ChunkLocation) -> tuple[int, int]:
    """Where a chunk begins in the file, and how much of the file it is."""
    offset = chunk.index * found.chunk_bytes
    return offset, min(found.chunk_bytes, found.size - offset)


def _block_location(found: Attributes, chunk: ChunkLocation, servers: list[ServerAddress]) -> dict[str, Any]:
    offset, length = _extent(found, chunk)
    names = [f"{server.host}:{server.port}" for server in servers]
    return {
        "cachedHosts": [],
        "corrupt": bool(chunk.chunk) and not servers,
        "hosts": [server.host for server in servers],
        "length": length,
        "names": names,
        "offset": offset,
        "storageIds": [f"{server.server:x}" for server in servers],
        "storageTypes": ["DISK"] * len(servers),
        "topologyPaths": [f"{RACK}/{name}" for name in names],
    }


def _located_block(found: Attributes, chunk: ChunkLocation, servers: list[ServerAddress]) -> dict[str, Any]:
    offset, length = _extent(found, chunk)
    return {
        "block": {
            "blockId": chunk.chunk,
            "blockPoolId": POOL,
            "generationStamp": chunk.version,
            "numBytes": length,
        },
        "blockToken": {"urlString": delegation.NO_TOKEN},
        "cachedLocations": [],
        "isCorrupt": bool(chunk.chunk) and not servers,
        "locations": [_datanode(server) for server in servers],
        "startOffset": offset,
        "storageTypes": ["DISK"] * len(servers),
    }


def _datanode(server: ServerAddress) -> dict[str, Any]:
    return {
        "adminState": "NORMAL",
        "blockPoolUsed": 0,
        "cacheCapacity": 0,
        "cacheUsed": 0,
        "capacity": 0,
        "dfsUsed": 0,
        "hostName": server.host,
        "infoPort": server.port,
        "infoSecurePort": 0,
        "ipAddr": server.host,
        "ipcPort": 0,
        "lastUpdate": 0,
        "lastUpdateMonotonic": 0,
        "name": f"{server.host}:{server.port}",
        "networkLocation": RACK,
        "remaining": 0,
        "storageID": f"{server.server:x}",
        "xceiverCount": 0,
        "xferPort": server.port,
    }


GET: Final[dict[str, Operation]] = {
    "OPEN": open_file,
    "GETFILECHECKSUM": checksum,
    "GETFILEBLOCKLOCATIONS": get_file_block_locations,
    "GET_BLOCK_LOCATIONS": get_block_locations,
}
GET_DATA: Final[dict[str, Operation]] = {"OPEN": open_data, "GETFILECHECKSUM": checksum_data}
