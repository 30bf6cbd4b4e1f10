"""What many requests share: memory for bodies, and what is remembered of files."""

import base64
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from gfsgateway.config import GatewayConfig
from gfsgateway.transfer import Transfers
from gfsgateway.users import NARROW, SLIM, WIDE
from gfsprotocol.ids import MIB
from tests.gateway.web import ask, put


async def test_the_more_read_at_once_the_less_memory_each_has() -> None:
    config = GatewayConfig(client_file=Path("client.toml"), transfer_bytes=96 * MIB)
    transfers = Transfers(config)
    with ExitStack() as stack:
        given = [stack.enter_context(transfers.share()) for _ in range(200)]
        assert (given.count(WIDE), given.count(NARROW), given[-1]) == (3, 21, SLIM)
        assert sum(width.read_ahead_bytes for width in given) < 96 * MIB + 200 * SLIM.read_ahead_bytes
    with transfers.share() as width:
        assert width == WIDE, "whoever is ready has given its share back"
    async with transfers.turn() as width:
        assert width == WIDE and transfers.active == 1


@pytest.mark.cluster
@pytest.mark.slow
async def test_a_content_type_that_is_changed_is_seen_at_once(http: aiohttp.ClientSession, place: str) -> None:
    await put(http, f"{place}/page.html", b"x", Content_Type="text/x-first")
    for kind in ("text/x-second", "text/x-third"):
        before = await ask(http, "GET", f"/v1/files{place}/page.html")
        assert before.headers["Content-Type"] != kind
        change = {"xattrs": {"user.mime_type": base64.b64encode(kind.encode()).decode()}}
        assert (await ask(http, "PATCH", f"/v1/attributes{place}/page.html", json=change)).status == 200
        for method in ("GET", "HEAD"):
            assert (await ask(http, method, f"/v1/files{place}/page.html")).headers["Content-Type"] == kind
    removed = {"xattrs": {"user.mime_type": None}}
    assert (await ask(http, "PATCH", f"/v1/attributes{place}/page.html", json=removed)).status == 200
    assert (await ask(http, "GET", f"/v1/files{place}/page.html")).headers["Content-Type"] == "text/html"
