"""Names and attributes: rename, copy, and whatever chmod, chown, touch, setfattr and setrep do elsewhere."""

import base64
import binascii
from typing import Final

from aiohttp import hdrs, web
from pydantic import Field

from gfsclient.files import File
from gfsclient.filesystem import FileSystem
from gfsclient.upload import Upload
from gfsgateway.call import Call
from gfsgateway.rest import models, shapes
from gfsgateway.rest.conditions import Conditions
from gfsgateway.rest.endpoint import Endpoint, Query
from gfsgateway.rest.types import DISPOSITION_ATTRIBUTE, TYPE_ATTRIBUTE
from gfsgateway.rest.writing import WriteQuery, new_file, present_file
from gfsgateway.transfer import PIECE_BYTES
from gfsprotocol.errors import InvalidArgument, NoSuchAttribute


class AttributesQuery(Query):
    """What to tell."""

    xattrs: bool = Field(False, description="The extended attributes, too.")
    follow: bool = Field(True, description="What a symbolic link leads to, not the link itself.")


async def rename(call: Call) -> web.StreamResponse:
    """Renames a file or a directory, in one step."""
    body = await call.json(models.RenameBody)
    source, target = call.named(body.source), call.named(body.target)
    files = await call.files()
    await files.rename(source, target, no_replace=not body.replace and not body.exchange, exchange=body.exchange)
    return shapes.reply(shapes.attributes(target, await files.stat(target, follow=False)))


async def copy(call: Call) -> web.StreamResponse:
    """Copies a file within the cluster; the copy appears when it is whole."""
    body = await call.json(models.CopyBody)
    source, target = call.named(body.source), call.named(body.target)
    async with call.gateway.transfers.turn() as width:
        files = await call.files(width)
        present = await present_file(files, target)
        async with await files.open(source) as file:
            query = WriteQuery(mode=f"{file.attributes.mode & 0o777:o}", replication=body.replication)
            async with new_file(files, target, query, present) as upload:
                while piece := await file.read(PIECE_BYTES):
                    await upload.write(piece)
                await _copy_attributes(file, upload)
                await upload.finish()
                found = await upload.publish(replace=body.replace)
    return shapes.reply(shapes.attributes(target, found), 201)


async def _copy_attributes(file: File, upload: Upload) -> None:
    """What says how the file is to be shown."""
    for name in (TYPE_ATTRIBUTE, DISPOSITION_ATTRIBUTE):
        try:
            await upload.set_xattr(name, await file.get_xattr(name))
        except NoSuchAttribute:
            continue


async def show(call: Call) -> web.StreamResponse:
    """The attributes of a file, a directory or a link."""
    query = call.query(AttributesQuery)
    path = call.path()
    files = await call.files()
    shown = shapes.attributes(path, await files.stat(path, follow=query.follow))
    if query.xattrs:
        shown["xattrs"] = await _xattrs(files, path, query.follow)
    return shapes.reply(shown)


async def _xattrs(files: FileSystem, path: bytes, follow: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in await files.list_xattrs(path, follow=follow):
        try:
            found[name] = base64.b64encode(await files.get_xattr(path, name, follow=follow)).decode()
        except NoSuchAttribute:
            continue  # removed meanwhile
    return found


async def change(call: Call) -> web.StreamResponse:
    """Changes attributes. Several are not one step: if one is refused, those before it stay changed."""
    body = await call.json(models.AttributesBody)
    path = call.path()
    files = await call.files()
    Conditions(call.request).check(await files.stat(path))
    values = {name: _decoded(name, text) for name, text in body.xattrs.items()}
    if body.uid is not None or body.gid is not None:
        await files.chown(path, -1 if body.uid is None else body.uid, -1 if body.gid is None else body.gid)
    if body.mode is not None:
        await files.chmod(path, int(body.mode, 8))
    if body.replication is not None:
        await files.set_replication(path, body.replication)
    for name, value in values.items():
        await _set_xattr(files, path, name, value)
    if body.accessed_ns is not None or body.modified_ns is not None:
        await files.utime(path, body.accessed_ns, body.modified_ns)
    return shapes.reply(shapes.attributes(path, await files.stat(path)))


async def _set_xattr(files: FileSystem, path: bytes, name: str, value: bytes | None) -> None:
    try:
        if value is None:
            await files.remove_xattr(path, name)
        else:
            await files.set_xattr(path, name, value)
    except UnicodeEncodeError as error:
        raise InvalidArgument("an attribute's name is no UTF-8") from error


def _decoded(name: str, text: str | None) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"the value of {name!a} is not base64") from error


_ATTRIBUTES: Final = models.Attributes

ENDPOINTS: Final = [
    Endpoint(
        hdrs.METH_POST, "/v1/rename", rename, "Rename a file or a directory.", body=models.RenameBody,
        answers={200: _ATTRIBUTES},
    ),
    Endpoint(
        hdrs.METH_POST, "/v1/copy", copy, "Copy a file.", body=models.CopyBody, answers={201: _ATTRIBUTES},
    ),
    Endpoint(
        hdrs.METH_GET, "/v1/attributes/{path}", show, "The attributes of a file, a directory or a link.",
        AttributesQuery, answers={200: models.AttributesWithXattrs},
    ),
    Endpoint(
        hdrs.METH_PATCH, "/v1/attributes/{path}", change, "Change attributes.", body=models.AttributesBody,
        answers={200: _ATTRIBUTES}, request_headers=(hdrs.IF_MATCH, hdrs.IF_UNMODIFIED_SINCE),
    ),
]  # fmt: skip
