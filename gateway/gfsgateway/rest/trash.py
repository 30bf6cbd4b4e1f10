"""The trash: what is in it, brought back, removed for good."""

import re
from typing import Final

from aiohttp import hdrs, web

from gfsgateway.call import Call
from gfsgateway.rest import models, shapes
from gfsgateway.rest.endpoint import Endpoint
from gfsprotocol.errors import NotFound
from gfsprotocol.messages import TrashEntry

_RESTORE: Final = "/restore"


async def show(call: Call) -> web.StreamResponse:
    """What the user can bring back."""
    return shapes.reply({"entries": [shapes.trash_entry(entry) for entry in await _entries(call)]})


async def empty(call: Call) -> web.StreamResponse:
    """Removes for good what the user has in the trash."""
    files = await call.files()
    if not call.identity.is_limited:
        return shapes.reply({"count": await files.empty_trash()})
    inodes = [entry.inode for entry in await _entries(call)]
    return shapes.reply({"count": await files.empty_trash(inodes) if inodes else 0})


async def remove(call: Call) -> web.StreamResponse:
    """Removes one thing for good."""
    entry = await _entry(call, call.rest)
    await (await call.files()).empty_trash([entry.inode])
    return web.Response(status=204)


async def restore(call: Call) -> web.StreamResponse:
    """Brings one thing back."""
    if not call.rest.endswith(_RESTORE):
        raise NotFound("there is nothing at this address")
    entry = await _entry(call, call.rest.removesuffix(_RESTORE))
    body = await call.json(models.RestoreBody) if call.request.can_read_body else models.RestoreBody()
    place = call.permitted(entry.path) if body.path is None else call.named(body.path)
    found = await (await call.files()).restore_trash(entry.inode, None if body.path is None else place)
    return shapes.reply(shapes.attributes(place, found))


async def _entries(call: Call) -> list[TrashEntry]:
    return [entry for entry in await (await call.files()).list_trash() if call.identity.allows(entry.path)]


async def _entry(call: Call, text: str) -> TrashEntry:
    if re.fullmatch("[0-9]{1,18}", text):
        for entry in await _entries(call):
            if entry.inode == int(text):
                return entry
    raise NotFound("there is no such thing in the trash")


ENDPOINTS: Final = [
    Endpoint(hdrs.METH_GET, "/v1/trash", show, "What can be brought back.", answers={200: models.Trash}),
    Endpoint(hdrs.METH_DELETE, "/v1/trash", empty, "Empty the trash.", answers={200: models.Removed}),
    Endpoint(hdrs.METH_DELETE, "/v1/trash/{inode}", remove, "Remove one thing for good.", answers={204: None}),
    Endpoint(
        hdrs.METH_POST,
        "/v1/trash/{inode}/restore",
        restore,
        "Bring one thing back.",
        body=models.RestoreBody,
        answers={200: models.Attributes},
    ),
]
