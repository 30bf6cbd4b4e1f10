"""CREATE, APPEND, TRUNCATE, CONCAT. A file that is created appears whole, when all of it has come, or not at all."""

import stat
from typing import Final

from aiohttp import web

from gfsclient import paths
from gfsclient.filesystem import FileSystem
from gfsclient.upload import Upload
from gfsgateway import targets
from gfsgateway.appending import IsBeingWritten
from gfsgateway.rest.writing import WriteQuery, new_file, present_file
from gfsgateway.transfer import PIECE_BYTES
from gfsgateway.webhdfs.ask import (
    PREFIX,
    Ask,
    Operation,
    base,
    boolean,
    missing,
    not_a_file,
    nothing,
    redirect,
)
from gfsgateway.webhdfs.exceptions import (
    ACCESS_CONTROL,
    ALREADY_EXISTS,
    BEING_CREATED,
    HADOOP_ILLEGAL_ARGUMENT,
    IO,
    HdfsRefusal,
)
from gfsprotocol.errors import AlreadyExists, IsADirectory, NotFound
from gfsprotocol.ids import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, REPLICATION_MAX
from gfsprotocol.messages import Attributes, FileVersion

FILE_MODE: Final = 0o644
PARENT_MODE: Final = 0o755
SOURCES_MAX: Final = 1000
"""Files that one CONCAT takes."""


async def create(ask: Ask) -> web.StreamResponse:
    """Names the address that takes the content, if a file may be made; HDFS looks only when the content comes."""
    files = await ask.files()
    _layout(ask)
    await _to_be_created(ask, files)
    return redirect(ask)


async def create_data(ask: Ask) -> web.StreamResponse:
    """Makes the body the content of a new file."""
    call, is_overwriting = ask.call, ask.parameters.flag("overwrite")
    query = _layout(ask)
    body = call.body()
    async with call.gateway.transfers.turn() as width:
        files = await ask.files(width)
        present = await _to_be_created(ask, files)
        if present is None and ask.parameters.flag("createparent", default=True):
            await files.mkdir(paths.parent(ask.path), mode=PARENT_MODE, parents=True)
        async with new_file(files, ask.path, query, present) as upload:
            async for piece in body.pieces():
                await upload.write(piece)
            await upload.finish()
            try:
                await upload.publish(replace=is_overwriting)
            except AlreadyExists as error:
                raise _exists(ask.path) from error
    return nothing(201, f"{base(call)}{PREFIX}{targets.encoded(ask.path)}")


def _layout(ask: Ask) -> WriteQuery:
    """Mode, copies and chunk size of a new file. A block is at most as large as a chunk may be."""
    parameters = ask.parameters
    copies = parameters.whole("replication", least=1) or 0
    if copies > REPLICATION_MAX:
        message = f"Requested replication factor of {copies} exceeds maximum of {REPLICATION_MAX} for {ask.shown}"
        raise HdfsRefusal(IO, message)
    block_bytes = min(parameters.whole("blocksize", least=1) or 0, CHUNK_BYTES_MAX)
    chunk_bytes = max(CHUNK_BYTES_MIN, block_bytes // CHUNK_BYTES_MIN * CHUNK_BYTES_MIN) if block_bytes else 0
    mode = parameters.permission("permission", FILE_MODE)
    return WriteQuery(mode=f"{mode:04o}", replication=copies, chunk_bytes=chunk_bytes)


async def _to_be_created(ask: Ask, files: FileSystem) -> Attributes | None:
    """What CREATE would replace. FileAlreadyExistsException if it may not."""
    try:
        present = await present_file(files, ask.path)
    except IsADirectory as error:
        raise HdfsRefusal(ALREADY_EXISTS, f"{ask.shown} already exists as a directory") from error
    if present is not None and not ask.parameters.flag("overwrite"):
        raise _exists(ask.path)
    return present


def _exists(path: bytes) -> HdfsRefusal:
    return HdfsRefusal(ALREADY_EXISTS, f"{paths.to_text(path)} already exists")


async def append(ask: Ask) -> web.StreamResponse:
    """Names the address that takes what is to be appended."""
    await _to_be_changed(ask, "append to")
    return redirect(ask)


async def append_data(ask: Ask) -> web.StreamResponse:
    """Puts the body behind the end of a file."""
    call = ask.call
    await _to_be_changed(ask, "append to")
    body = call.body()
    async with call.gateway.transfers.turn() as width:
        files = await ask.files(width)
        try:
            async with call.gateway.appending.opened(files, ask.path) as file:
                await file.seek(0, 2)
                async for piece in body.pieces():
                    await file.write(piece)
        except IsBeingWritten as error:
            message = f"Failed to APPEND_FILE {ask.shown} because it is being written by another client"
            raise HdfsRefusal(BEING_CREATED, message) from error
    return nothing()


async def _to_be_changed(ask: Ask, what: str) -> Attributes:
    """The file at the path."""
    files = await ask.files()
    try:
        found = await files.stat(ask.path)
    except NotFound as error:
        raise ask.missing() from error
    if stat.S_ISDIR(found.mode):
        message = f"Cannot {what} directory {ask.shown}; already exists as a directory."
        raise HdfsRefusal(ALREADY_EXISTS, message)
    return found


async def truncate(ask: Ask) -> web.StreamResponse:
    """Cuts a file; it is done when this answers (true), never later."""
    files = await ask.files()
    found = await _to_be_changed(ask, "truncate")
    ask.parameters.required("newlength")
    length = ask.parameters.whole("newlength") or 0
    if length > found.size:
        message = f"Cannot truncate to a larger file size. Current size: {found.size}, truncate size: {length}."
        raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, message)
    await files.truncate(ask.path, length)
    return boolean(True)


async def concat(ask: Ask) -> web.StreamResponse:
    """Puts the sources behind the end of a file, and removes them.

    HDFS moves blocks from one file to another; here the bytes are copied into a new file that takes the target's place,
    in one step, so a crash leaves the target as it was, or complete with sources that remain.
    """
    call = ask.call
    sources = [call.permitted(path) for path in ask.parameters.paths("sources")]
    if len(sources) > SOURCES_MAX:
        raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, f"concat: more than {SOURCES_MAX} sources")
    async with call.gateway.transfers.turn() as width:
        files = await ask.files(width)
        target = await _to_be_changed(ask, "concat to")
        _require_owner(ask, target)
        if target.open_writers:
            raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, f"concat: target file {ask.shown} is under construction")
        found = await _sources(files, ask.path, target, sources)
        query = WriteQuery(
            mode=f"{stat.S_IMODE(target.mode):04o}", replication=target.replication, chunk_bytes=target.chunk_bytes
        )
        async with new_file(files, ask.path, query, target) as upload:
            for path in [ask.path, *sources]:
                await _copy(files, path, upload)
            for name in await files.list_xattrs(ask.path):
                await upload.set_xattr(name, await files.get_xattr(ask.path, name))
            await upload.chown(target.uid, target.gid)
            await upload.finish()
            await upload.publish(replace=True, expected=_version(target))
        for path, each in zip(sources, found, strict=True):
            await files.remove(path, expected=_version(each))
    return nothing()


def _require_owner(ask: Ask, target: Attributes) -> None:
    """The new file is to belong to the same user and group, to whom only its owner, or root, can give it."""
    uid, *groups = ask.call.identity.user
    if uid and (uid != target.uid or target.gid not in groups):
        raise HdfsRefusal(ACCESS_CONTROL, f"Permission denied: concat: {ask.shown} belongs to another user or group")


async def _sources(files: FileSystem, path: bytes, target: Attributes, sources: list[bytes]) -> list[Attributes]:
    found: list[Attributes] = []
    seen = {target.inode}
    for source in sources:
        try:
            each = await files.stat(source, follow=False)
        except NotFound as error:
            raise missing(source) from error
        if stat.S_ISDIR(each.mode):
            raise not_a_file(source)
        shown = paths.to_text(source)
        if each.inode in seen:
            complaint = "the target itself" if each.inode == target.inode else "named twice"
            raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, f"concat: source file {shown} is {complaint}")
        if not each.size or not stat.S_ISREG(each.mode) or each.open_writers:
            message = f"concat: source file {shown} is invalid or empty or underConstruction"
            raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, f"{message} (target {paths.to_text(path)})")
        seen.add(each.inode)
        found.append(each)
    return found


async def _copy(files: FileSystem, path: bytes, upload: Upload) -> None:
    async with await files.open(path) as file:
        while piece := await file.read(PIECE_BYTES):
            await upload.write(piece)


def _version(found: Attributes) -> FileVersion:
    return FileVersion(found.inode, found.size, found.changed_ns)


PUT: Final[dict[str, Operation]] = {"CREATE": create}
PUT_DATA: Final[dict[str, Operation]] = {"CREATE": create_data}
POST: Final[dict[str, Operation]] = {"APPEND": append, "TRUNCATE": truncate, "CONCAT": concat}
POST_DATA: Final[dict[str, Operation]] = {"APPEND": append_data}
