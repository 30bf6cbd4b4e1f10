"""Choosing servers for new replicas. Pure: a function of the fleet and of what is to be avoided."""

from collections.abc import Collection

from gfsmaster.servers import Server


def choose(
    servers: Collection[Server],
    count: int,
    chunk_bytes: int,
    avoided: Collection[int],
    used_racks: Collection[str] = (),
) -> list[Server]:
    """Up to ``count`` servers, best first: connected, with room for the chunk, not in ``avoided`` (server ids).

    Other racks before the same rack, then who was given fewest chunks since its last heartbeat, then most free space
    (GFS §4.2's two reasons: even space, and no server flooded because it is new).
    """
    candidates = [
        server
        for server in servers
        if server.connected and server.server not in avoided and server.free_bytes >= chunk_bytes
    ]
    chosen: list[Server] = []
    racks = set(used_racks)
    while candidates and len(chosen) < count:
        best = min(
            candidates,
            key=lambda server: (bool(server.rack) and server.rack in racks, server.writes, -server.free_bytes),
        )
        candidates.remove(best)
        chosen.append(best)
        racks.add(best.rack)
    return chosen
