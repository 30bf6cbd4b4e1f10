"""How the cluster is."""

import asyncio
from typing import Any, Final

from aiohttp import hdrs, web

from gfsgateway.call import Call
from gfsgateway.rest import models, shapes
from gfsgateway.rest.endpoint import Endpoint
from gfsprotocol.messages import ServerStatus


async def show(call: Call) -> web.StreamResponse:
    """What the leading master knows."""
    call.identity.require_everything()
    files = await call.files()
    status, space = await asyncio.gather(files.status(), files.space())
    return shapes.reply(
        {
            "leader": status.leader,
            "epoch": status.epoch,
            "safe_mode": status.safe_mode,
            "brake": status.brake,
            "replication": status.replication,
            "inodes": status.inodes,
            "chunks": status.chunks,
            "under_replicated": status.under_replicated,
            "missing": status.missing,
            "corrupt_replicas": status.corrupt_replicas,
            "total_bytes": space.total_bytes,
            "used_bytes": space.used_bytes,
            "free_bytes": space.free_bytes,
            "chunkservers": [_server(server) for server in status.servers],
        }
    )


def _server(server: ServerStatus) -> dict[str, Any]:
    disks = [{name: getattr(disk, name) for name in disk.__struct_fields__} for disk in server.disks]
    return {
        "id": f"{server.server:016x}",
        "address": f"{server.host}:{server.port}",
        "alive": server.alive,
        "last_heartbeat_seconds": server.last_heartbeat_seconds,
        "chunks": server.chunks,
        "disks": disks,
    }


ENDPOINTS: Final = [
    Endpoint(hdrs.METH_GET, "/v1/status", show, "How the cluster is.", answers={200: models.Status}),
]
