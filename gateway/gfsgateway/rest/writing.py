"""PUT, append and DELETE of a file. What is put appears whole, in one step, or not at all."""

import asyncio
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Literal

from aiohttp import hdrs, web
from pydantic import Field

from gfsclient import paths
from gfsclient.files import File
from gfsclient.filesystem import FileSystem
from gfsclient.upload import Upload
from gfsgateway import targets
from gfsgateway.appending import IsBeingWritten
from gfsgateway.call import Call
from gfsgateway.problems import HttpRefusal
from gfsgateway.rest import digests, models, shapes
from gfsgateway.rest.conditions import Conditions
from gfsgateway.rest.endpoint import CONTENT, Endpoint, Query
from gfsgateway.rest.types import attributes_of
from gfsgateway.transfer import Body
from gfsprotocol.errors import AlreadyExists, ConditionFailed, InvalidArgument, IsADirectory, NotFound
from gfsprotocol.ids import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, RECORD_BYTES_MAX, REPLICATION_MAX
from gfsprotocol.messages import Attributes

PUBLISH_ATTEMPTS: Final = 8
"""How often a condition is weighed again because the file has just changed once more."""
KEEP_SECONDS_DEFAULT: Final = 86_400


class WriteQuery(Query):
    """How a new file is to be."""

    mode: models.Mode | None = Field(None, description="Permissions; by default 0644, or those of the file replaced.")
    replication: int = Field(0, ge=0, le=REPLICATION_MAX, description="Copies of each chunk; 0: as usual there.")
    chunk_bytes: int = Field(
        0, ge=0, le=CHUNK_BYTES_MAX, multiple_of=CHUNK_BYTES_MIN, description="Bytes of a chunk; 0: as usual there."
    )
    parents: bool = Field(False, description="Make the directories above it that are missing.")


class AppendQuery(Query):
    """How to append."""

    append: Literal["", "record"] = Field(
        "", description="'record' appends at most 1 MiB in one step, safe beside others who append to the same file."
    )
    create: bool = Field(False, description="Make the file if it is not there.")


class DeleteQuery(Query):
    """Where it goes."""

    trash: bool = Field(False, description="Into the trash, from which it can be brought back.")
    keep_seconds: int = Field(KEEP_SECONDS_DEFAULT, ge=1, le=10**9, description="How long the trash keeps it.")


async def put(call: Call) -> web.StreamResponse:
    """Makes the body the content of a file. Until it has come whole, and is durable, nothing is seen of it."""
    query = call.query(WriteQuery)
    path = call.path()
    if hdrs.CONTENT_RANGE in call.request.headers:
        raise InvalidArgument("a part of a file cannot be put: use an upload that can be resumed, or append")
    conditions, expected = Conditions(call.request), digests.Expected(call.request.headers)
    kept = attributes_of(call.request.headers, path)
    body = call.body()
    async with call.gateway.transfers.turn() as width:
        files = await call.files(width)
        present = await present_file(files, path)
        conditions.check(present)
        if query.parents:
            await files.mkdir(paths.parent(path), mode=0o755, parents=True)
        async with new_file(files, path, query, present) as upload:
            async for piece in body.pieces():
                expected.update(piece)
                await upload.write(piece)
            expected.check()
            for name, value in kept.items():
                await upload.set_xattr(name, value)
            found, is_new = await publish(files, upload, path, conditions)
    headers = {hdrs.ETAG: shapes.etag(found), hdrs.LOCATION: f"/v1/files{targets.encoded(path)}"}
    return shapes.reply(shapes.attributes(path, found), 201 if is_new else 200, headers)


async def present_file(files: FileSystem, path: bytes) -> Attributes | None:
    """What a new file would replace. IsADirectory if that is a directory."""
    try:
        found = await files.stat(path, follow=False)
    except NotFound:
        return None
    if stat.S_ISDIR(found.mode):
        raise IsADirectory(f"{paths.to_text(path)}: is a directory")
    return found


def kept_permissions(present: Attributes | None) -> int:
    """Those of a new file in the place of another one; as after write(2), not set-user-ID or set-group-ID any more."""
    if present is None or not stat.S_ISREG(present.mode):
        return 0o644
    return stat.S_IMODE(present.mode) & ~(stat.S_ISUID | stat.S_ISGID)


@asynccontextmanager
async def new_file(
    files: FileSystem, path: bytes, query: WriteQuery, present: Attributes | None
) -> AsyncIterator[Upload]:
    """A file without a name; if the block fails, or does not publish it, nothing stays of it."""
    upload = await files.begin_upload(
        path,
        replication=query.replication,
        chunk_bytes=query.chunk_bytes,
        permissions=kept_permissions(present) if query.mode is None else int(query.mode, 8),
    )
    try:
        yield upload
    finally:
        if not upload.is_over:
            await asyncio.shield(upload.discard())


async def publish(files: FileSystem, upload: Upload, path: bytes, conditions: Conditions) -> tuple[Attributes, bool]:
    """Gives the file its name if the conditions hold at that very moment; what it is like, and whether it is new.

    The conditions are weighed for what is there, and the master names the file only if that is still there: if not,
    they are weighed again.
    """
    await upload.finish()
    for _ in range(PUBLISH_ATTEMPTS):
        present = await present_file(files, path)
        conditions.check(present)
        version = shapes.version(present) if present is not None and conditions.is_any else None
        is_new_wanted = present is None and conditions.is_any
        try:
            return await upload.publish(replace=not is_new_wanted, expected=version), present is None
        except (AlreadyExists, ConditionFailed):
            continue
    raise ConditionFailed("the file is changed all the time")


async def append(call: Call) -> web.StreamResponse:
    """Puts the body behind the end of a file."""
    query = call.query(AppendQuery)
    path = call.path()
    conditions, expected = Conditions(call.request), digests.Expected(call.request.headers)
    files = await call.files()
    wanted, is_record = upload_offset(call.request), query.append == "record"
    if is_record and wanted is not None:
        raise InvalidArgument("where a record goes is chosen here: Upload-Offset is for other appends")
    # What has been appended cannot be taken back, for others may have appended behind it: a body that is to be checked
    # is kept until it has come whole.
    is_kept = is_record or bool(expected)
    body = call.body(RECORD_BYTES_MAX if is_kept else None)
    data = await body.read() if is_kept else b""
    expected.update(data)
    expected.check()
    made = await _to_append_to(files, path, query.create, conditions)
    if is_record:
        offset = await files.append_record(path, data, sync=True)
        return shapes.reply({"offset": offset, "size": len(data)})
    async with call.gateway.transfers.turn() as width:
        files = await call.files(width)
        try:
            async with call.gateway.appending.opened(files, path) as file:
                _check_opened(file.attributes, made, conditions)
                offset = await _append_to(file, data, body, wanted)
        except IsBeingWritten as error:
            raise HttpRefusal(HTTPStatus.CONFLICT, error.message) from error
    headers = {hdrs.ETAG: shapes.etag(file.attributes), "Upload-Offset": str(offset + body.received)}
    return shapes.reply({"offset": offset, "size": body.received}, headers=headers)


async def _append_to(file: File, data: bytes, body: Body, wanted: int | None) -> int:
    """Where ``data``, and what still comes, begins in the file; ``wanted`` is where it is to begin."""
    offset = await file.seek(0, 2)
    if wanted is not None and wanted != offset:
        headers = {"Upload-Offset": str(offset)}
        raise HttpRefusal(HTTPStatus.CONFLICT, f"the file ends at {offset}, not at {wanted}", headers)
    if data:
        await file.write(data)
    async for piece in body.pieces():
        await file.write(piece)
    return offset


async def _to_append_to(files: FileSystem, path: bytes, create: bool, conditions: Conditions) -> Attributes | None:
    """The file if it was made by this."""
    try:
        found = await files.stat(path)
    except NotFound:
        conditions.check(None)
        if not create:
            raise
    else:
        conditions.check(found)
        return None
    try:
        return await files.make_file(path, permissions=0o644, exclusive=conditions.is_any)
    except AlreadyExists as error:
        raise ConditionFailed("another has just made the file") from error


def _check_opened(found: Attributes, made: Attributes | None, conditions: Conditions) -> None:
    """ConditionFailed if what was opened is not what the conditions were weighed for."""
    if made is None:
        conditions.check(found)
    elif conditions.is_any and found.inode != made.inode:
        raise ConditionFailed("the file was replaced meanwhile")


def upload_offset(request: web.BaseRequest) -> int | None:
    """The Upload-Offset header, or None. InvalidArgument if it is no number."""
    text = request.headers.get("Upload-Offset")
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,18}", text):
        raise InvalidArgument("the Upload-Offset header is not a number")
    return int(text)


async def delete(call: Call) -> web.StreamResponse:
    """Removes a file's name, or moves it to the trash."""
    query = call.query(DeleteQuery)
    path = call.path()
    files = await call.files()
    conditions = Conditions(call.request)
    if query.trash:
        if conditions.is_any:
            raise InvalidArgument("what goes into the trash goes there unconditionally")
        if await present_file(files, path) is None:
            raise NotFound(f"{paths.to_text(path)}: no such file or directory")
        entry = await files.move_to_trash(path, query.keep_seconds)
        return shapes.reply(shapes.trash_entry(entry))
    version = None
    if conditions.is_any:
        present = await present_file(files, path)
        conditions.check(present)
        version = shapes.version(present) if present is not None else None
    await files.remove(path, expected=version)
    return web.Response(status=204)


_CONDITIONS: Final = (hdrs.IF_MATCH, hdrs.IF_NONE_MATCH, hdrs.IF_UNMODIFIED_SINCE)
_APPENDED: Final = {200: models.Appended}

ENDPOINTS: Final = [
    Endpoint(
        hdrs.METH_PUT,
        "/v1/files/{path}",
        put,
        "Make the body the content of a file, new or not: whole, or not at all.",
        WriteQuery,
        CONTENT,
        {201: models.Attributes, 200: models.Attributes},
        (*_CONDITIONS, hdrs.CONTENT_TYPE, hdrs.CONTENT_DISPOSITION, "Repr-Digest"),
        (hdrs.ETAG, hdrs.LOCATION),
    ),
    Endpoint(
        hdrs.METH_POST,
        "/v1/files/{path}",
        append,
        "Append the body to a file.",
        AppendQuery,
        CONTENT,
        dict(_APPENDED),
        (*_CONDITIONS, "Upload-Offset", "Content-Digest"),
        (hdrs.ETAG, "Upload-Offset"),
    ),
    Endpoint(
        hdrs.METH_PATCH,
        "/v1/files/{path}",
        append,
        "Append the body to a file; the same as POST.",
        AppendQuery,
        CONTENT,
        dict(_APPENDED),
        (*_CONDITIONS, "Upload-Offset", "Content-Digest"),
        (hdrs.ETAG, "Upload-Offset"),
    ),
    Endpoint(
        hdrs.METH_DELETE,
        "/v1/files/{path}",
        delete,
        "Remove a file, for good or into the trash.",
        DeleteQuery,
        answers={204: None, 200: models.TrashEntry},
        request_headers=_CONDITIONS,
    ),
]
