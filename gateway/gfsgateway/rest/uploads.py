"""Uploads that can be resumed, at any gateway: all that is known of one is a file in a hidden directory.

It belongs to the user, holds the bytes that have come, and says in an extended attribute where it is to go. Completing
it is a rename: the file appears whole.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import stat
import time
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import hdrs, web
from pydantic import Field

from gfsclient import paths
from gfsclient.files import File
from gfsclient.filesystem import FileSystem
from gfsgateway.call import Call
from gfsgateway.problems import HttpRefusal
from gfsgateway.rest import digests, models, shapes
from gfsgateway.rest.conditions import Conditions
from gfsgateway.rest.endpoint import CONTENT, Endpoint
from gfsgateway.rest.types import attributes_of
from gfsgateway.rest.writing import PUBLISH_ATTEMPTS, WriteQuery, kept_permissions, present_file, upload_offset
from gfsgateway.transfer import PIECE_BYTES
from gfsprotocol.errors import (
    AlreadyExists,
    ConditionFailed,
    GfsError,
    InvalidArgument,
    NoSuchAttribute,
    NotADirectory,
    NotFound,
    PermissionDenied,
)
from gfsprotocol.ids import FILE_BYTES_MAX
from gfsprotocol.messages import Attributes

DIRECTORY: Final = b"/.gfs/uploads"
PLAN_ATTRIBUTE: Final = "user.gfs.upload"
ROOT: Final = (0, 0)
EXPIRY_SECONDS: Final = 600.0
RECORD_SECONDS: Final = 1.0
"""What came before so long at most need not be sent again when the gateway dies."""
_ID: Final = re.compile("[0-9a-f]{32}")
_COMPLETE: Final = "/complete"

log = logging.getLogger(__name__)


class BeginQuery(WriteQuery):
    """Where the file is to be, and how."""

    path: models.AbsolutePath = Field(description="Where the file is to be.")
    length: int | None = Field(None, ge=0, le=FILE_BYTES_MAX, description="Its length, if it is known.")


class Plan(msgspec.Struct, frozen=True):
    """What the extended attribute says."""

    path: bytes
    mode: int | None
    length: int | None
    turn: bytes = b""
    """Names the request that writes to the file, or was the last to do so."""


async def begin(call: Call) -> web.StreamResponse:
    """Makes an upload."""
    query = call.query(BeginQuery)
    place = call.named(query.path)
    kept = attributes_of(call.request.headers, place)
    files = await call.files()
    Conditions(call.request).check(await present_file(files, place))
    parent = paths.parent(place)
    if query.parents:
        await files.mkdir(parent, mode=0o755, parents=True)
    above = await files.stat(parent)
    if not stat.S_ISDIR(above.mode):
        raise NotADirectory(f"{paths.to_text(parent)}: not a directory")
    name = secrets.token_hex(16)
    file = paths.join(DIRECTORY, name.encode())
    await _make(call, file, query.replication or above.replication, query.chunk_bytes)
    plan = Plan(place, None if query.mode is None else int(query.mode, 8), query.length)
    await files.set_xattr(file, PLAN_ATTRIBUTE, msgspec.msgpack.encode(plan))
    for attribute, value in kept.items():
        await files.set_xattr(file, attribute, value)
    return _answer(name, plan, 0, 201)


async def _make(call: Call, file: bytes, replication: int, chunk_bytes: int) -> None:
    """The file, and the directory if this is the first upload ever: everybody may write there, as in /tmp."""
    files = await call.files()
    try:
        made = await files.open(file, "xb", replication=replication, chunk_bytes=chunk_bytes, permissions=0o600)
    except NotFound:
        root = await call.gateway.users.view(ROOT)
        await root.mkdir(DIRECTORY, mode=0o755, parents=True)
        await root.chmod(DIRECTORY, 0o1777)
        made = await files.open(file, "xb", replication=replication, chunk_bytes=chunk_bytes, permissions=0o600)
    await made.close()


class Pending:
    """An upload that a request names."""

    def __init__(self, name: str, plan: Plan, found: Attributes) -> None:
        self.name = name
        self.plan = plan
        self.found = found
        self.file = paths.join(DIRECTORY, name.encode())

    @classmethod
    async def find(cls, call: Call, name: str) -> "Pending":
        """NotFound if there is no such upload, or it is another user's."""
        if not _ID.fullmatch(name):
            raise NotFound("there is no such upload")
        files = await call.files()
        file = paths.join(DIRECTORY, name.encode())
        try:
            found = await files.stat(file, follow=False)
            plan = await _plan_of(files, file)
        except (NotFound, PermissionDenied, NoSuchAttribute, msgspec.MsgspecError) as error:
            raise NotFound("there is no such upload") from error
        if found.uid != call.identity.user[0]:
            raise NotFound("there is no such upload")
        call.permitted(plan.path)
        return cls(name, plan, found)

    async def take_turn(self, files: FileSystem) -> "Turn":
        """From now on other requests that write to it are refused."""
        plan = msgspec.structs.replace(self.plan, turn=secrets.token_bytes(8))
        await files.set_xattr(self.file, PLAN_ATTRIBUTE, msgspec.msgpack.encode(plan))
        return Turn(files, self.file, plan)


class Turn:
    """That of one request to write to an upload, until another one takes it.

    A client that has lost its connection goes on by another one, perhaps at another gateway, while the first request
    still waits for the rest of its body.
    """

    def __init__(self, files: FileSystem, file: bytes, plan: Plan) -> None:
        self._files = files
        self._file = file
        self._plan = plan

    async def check(self, file: File) -> None:
        """A refusal if it is over: then what is not sent yet of ``file``, as this request has it open, is given up."""
        try:
            await self._check()
        except HttpRefusal:
            await file.abort()
            raise

    async def _check(self) -> None:
        try:
            plan = await _plan_of(self._files, self._file)
        except (NotFound, NoSuchAttribute) as error:
            message = "the upload was completed or given up meanwhile"
            raise HttpRefusal(HTTPStatus.CONFLICT, message, close=True) from error
        if plan != self._plan:
            raise HttpRefusal(HTTPStatus.CONFLICT, "another request has gone on with the upload", close=True)


async def _plan_of(files: FileSystem, file: bytes) -> Plan:
    return msgspec.msgpack.decode(await files.get_xattr(file, PLAN_ATTRIBUTE, follow=False), type=Plan)


async def show(call: Call) -> web.StreamResponse:
    """How far an upload is."""
    pending = await Pending.find(call, call.rest)
    return _answer(pending.name, pending.plan, pending.found.size, 200)


async def receive(call: Call) -> web.StreamResponse:
    """Takes more of an upload; what came of a body that broke off is kept."""
    pending = await Pending.find(call, call.rest)
    wanted = upload_offset(call.request)
    if wanted is None:
        raise HttpRefusal(HTTPStatus.PRECONDITION_REQUIRED, "the Upload-Offset header is missing")
    body, expected = call.body(), digests.Expected(call.request.headers)
    async with call.gateway.transfers.turn() as width:
        files = await call.files(width)
        async with await files.open(pending.file, "r+b") as file:
            offset = await file.seek(0, 2)
            if wanted != offset:
                headers = {"Upload-Offset": str(offset)}
                raise HttpRefusal(HTTPStatus.CONFLICT, f"the upload is at {offset}, not at {wanted}", headers)
            turn = await pending.take_turn(files)
            recorded = time.monotonic()
            async for piece in body.pieces():
                if pending.plan.length is not None and offset + body.received > pending.plan.length:
                    raise HttpRefusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "more than was announced", close=True)
                expected.update(piece)
                await file.write(piece)
                if time.monotonic() - recorded > RECORD_SECONDS:
                    await turn.check(file)
                    await file.flush()
                    recorded = time.monotonic()
            await turn.check(file)
            try:
                expected.check()
            except InvalidArgument:
                await file.abort()
                await files.truncate(pending.file, offset)  # by its name, which it loses when it is completed
                raise
    return _answer(pending.name, pending.plan, offset + body.received, 200)


async def complete(call: Call) -> web.StreamResponse:
    """Gives the file its name, in one step."""
    if not call.rest.endswith(_COMPLETE):
        raise NotFound("there is nothing at this address")
    pending = await Pending.find(call, call.rest.removesuffix(_COMPLETE))
    conditions, expected = Conditions(call.request), digests.Expected(call.request.headers)
    files = await call.files()
    if pending.plan.length not in (None, pending.found.size):
        message = f"{pending.found.size} of {pending.plan.length} bytes have come"
        raise HttpRefusal(HTTPStatus.CONFLICT, message, {"Upload-Offset": str(pending.found.size)})
    await pending.take_turn(files)
    if expected:
        await _check_digest(call, files, pending.file, expected)
    found, is_new = await _publish(files, pending, conditions)
    headers = {hdrs.ETAG: shapes.etag(found)}
    return shapes.reply(shapes.attributes(pending.plan.path, found), 201 if is_new else 200, headers)


async def _check_digest(call: Call, files: FileSystem, path: bytes, expected: digests.Expected) -> None:
    async with call.gateway.transfers.turn(), await files.open(path) as file:
        while piece := await file.read(PIECE_BYTES):
            expected.update(piece)
    expected.check()


async def _publish(files: FileSystem, pending: Pending, conditions: Conditions) -> tuple[Attributes, bool]:
    """As for PUT: the conditions are weighed for what is there, and it happens only if that is still there."""
    path = pending.plan.path
    for _ in range(PUBLISH_ATTEMPTS):
        present = await present_file(files, path)
        conditions.check(present)
        mode = kept_permissions(present) if pending.plan.mode is None else pending.plan.mode
        await files.chmod(pending.file, mode)
        version = shapes.version(present) if present is not None and conditions.is_any else None
        try:
            await files.rename(pending.file, path, no_replace=present is None and conditions.is_any, expected=version)
        except (AlreadyExists, ConditionFailed):
            continue
        with contextlib.suppress(NotFound, NoSuchAttribute):  # it may have been replaced at once
            await files.remove_xattr(path, PLAN_ATTRIBUTE, follow=False)
        return await files.stat(path, follow=False), present is None
    raise ConditionFailed("the file is changed all the time")


async def abort(call: Call) -> web.StreamResponse:
    """Removes an upload."""
    pending = await Pending.find(call, call.rest)
    await (await call.files()).remove(pending.file)
    return web.Response(status=204)


def _answer(name: str, plan: Plan, offset: int, status: int) -> web.Response:
    href = f"/v1/uploads/{name}"
    headers = {"Upload-Offset": str(offset), hdrs.LOCATION: href, hdrs.CACHE_CONTROL: "no-store"}
    if plan.length is not None:
        headers["Upload-Length"] = str(plan.length)
    value = {"id": name, "path": paths.to_text(plan.path), "offset": offset, "length": plan.length, "href": href}
    return shapes.reply(value, status, headers)


async def expire_for_ever(files: FileSystem, keep_seconds: int) -> None:
    """Removes uploads that nobody has touched for long. Several gateways may do it at the same time."""
    root = files.acting_as(ROOT)
    while True:
        try:
            await expire(root, time.time_ns() - keep_seconds * 10**9)
        except GfsError as error:
            log.warning("abandoned uploads could not be removed: %s", error.message)
        await asyncio.sleep(EXPIRY_SECONDS)


async def expire(root: FileSystem, before_ns: int) -> None:
    """Removes uploads that were changed last before ``before_ns``; what else stands there is somebody's own."""
    try:
        entries = [(name, found) async for name, found in root.scandir(DIRECTORY) if _ID.fullmatch(name)]
    except NotFound:
        return
    for name, found in entries:
        if found.changed_ns >= before_ns or stat.S_ISDIR(found.mode):
            continue
        try:
            await root.remove(paths.join(DIRECTORY, name.encode()))
        except NotFound:
            continue  # completed, or removed by another gateway


_HEADERS: Final = ("Upload-Offset", "Upload-Length")

ENDPOINTS: Final = [
    Endpoint(
        hdrs.METH_POST,
        "/v1/uploads",
        begin,
        "Begin an upload that can be resumed.",
        BeginQuery,
        answers={201: models.Upload},
        request_headers=(hdrs.CONTENT_TYPE, hdrs.CONTENT_DISPOSITION),
        response_headers=(hdrs.LOCATION, *_HEADERS),
    ),
    Endpoint(
        hdrs.METH_GET,
        "/v1/uploads/{id}",
        show,
        "How far an upload is.",
        answers={200: models.Upload},
        response_headers=_HEADERS,
    ),
    Endpoint(
        hdrs.METH_HEAD,
        "/v1/uploads/{id}",
        show,
        "How far an upload is, in the Upload-Offset header.",
        answers={200: None},
        response_headers=_HEADERS,
    ),
    Endpoint(
        hdrs.METH_PATCH,
        "/v1/uploads/{id}",
        receive,
        "Upload more, from Upload-Offset on.",
        body=CONTENT,
        answers={200: models.Upload},
        request_headers=("Upload-Offset", "Content-Digest"),
        response_headers=_HEADERS,
    ),
    Endpoint(hdrs.METH_DELETE, "/v1/uploads/{id}", abort, "Give an upload up.", answers={204: None}),
    Endpoint(
        hdrs.METH_POST,
        "/v1/uploads/{id}/complete",
        complete,
        "Give the uploaded file its name.",
        answers={201: models.Attributes, 200: models.Attributes},
        request_headers=(hdrs.IF_MATCH, hdrs.IF_NONE_MATCH, hdrs.IF_UNMODIFIED_SINCE, "Repr-Digest"),
        response_headers=(hdrs.ETAG,),
    ),
]
