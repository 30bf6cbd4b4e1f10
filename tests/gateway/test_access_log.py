"""The access log: every request has its line, also one that is none, and a log that cannot be written harms nobody."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gfsgateway.accesslog import FLUSH_SECONDS
from tests.gateway.web import ask, put, raw

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OwnGateway = Callable[..., Awaitable[str]]


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


async def _lines(file: Path, count: int) -> list[dict[str, Any]]:
    """The lines without those of ``/readyz``, when there are so many."""
    async with asyncio.timeout(30):
        while True:
            lines = [json.loads(line) for line in _read(file).splitlines()]
            found = [line for line in lines if line["target"] != "/readyz"]
            if len(found) >= count:
                return found
            await asyncio.sleep(FLUSH_SECONDS / 5)


async def test_every_request_has_a_line_also_one_that_is_none(
    own_gateway: OwnGateway, place: str, tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    base = await own_gateway(access_log=file)
    async with aiohttp.ClientSession(base) as http:
        await put(http, f"{place}/file", b"12345")
        await ask(http, "HEAD", f"/v1/files{place}/file")
        await ask(http, "GET", f"/v1/files{place}/missing")
    answer = await raw(base, b"what?\r\n\r\n")
    made, head, missing, malformed = await _lines(file, 4)
    assert (made["method"], made["status"], made["received_bytes"]) == ("PUT", 201, 5)
    assert (head["method"], head["status"], head["sent_bytes"]) == ("HEAD", 200, 0)
    assert (missing["status"], missing["target"]) == (404, f"/v1/files{place}/missing")
    assert (malformed["status"], malformed["method"], malformed["target"]) == (400, None, None)
    assert malformed.keys() == made.keys() and malformed["remote"] == "127.0.0.1"
    assert malformed["request"] in answer.decode()


async def test_a_log_whose_directory_vanishes_harms_nobody(
    own_gateway: OwnGateway,
    place: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    expected_logs: Callable[..., None],
) -> None:
    expected_logs("the access log .* cannot be written")
    folder = tmp_path / "logs"
    folder.mkdir()
    file = folder / "access.log"
    base = await own_gateway(access_log=file)
    async with aiohttp.ClientSession(base) as http:
        await put(http, f"{place}/file", b"1")
        await _lines(file, 1)
        shutil.rmtree(folder)
        async with asyncio.timeout(30):
            while "cannot be written" not in caplog.text:
                assert (await ask(http, "GET", f"/v1/files{place}/file")).status == 200
                await asyncio.sleep(FLUSH_SECONDS / 5)
        assert (await ask(http, "GET", f"/v1/files{place}/file")).status == 200
        folder.mkdir()
        assert (await ask(http, "GET", f"/v1/files{place}/file")).status == 200
        assert (await _lines(file, 1))[-1]["status"] == 200
