"""What the tests of WebHDFS share: a directory of their own, and clients that others have written."""

import itertools
import os
import pwd
from collections.abc import Iterator
from typing import Any

import aiohttp
import hdfs
import pytest
import requests

from tests.cluster.harness import Cluster

ME = pwd.getpwuid(os.geteuid()).pw_name
_numbers = itertools.count(1)


class WebHdfs:
    """WebHDFS as curl would speak it."""

    def __init__(self, http: aiohttp.ClientSession, url: str, directory: str) -> None:
        self.http = http
        self.url = url
        self.directory = directory

    async def __call__(
        self, method: str, path: str, op: str, status: int = 200, data: bytes | None = None, **parameters: Any
    ) -> Any:
        """The JSON of an answer that must have this status. ``path`` is below the directory; redirects are followed."""
        named = {name.replace("_", "."): str(value) for name, value in parameters.items()}
        address = f"/webhdfs/v1{self.directory}{path}"
        async with self.http.request(method, address, params={"op": op, **named}, data=data) as response:
            body = await response.read()
            assert response.status == status, (response.status, body)
            return await response.json() if response.content_type == "application/json" else body

    async def refused(self, method: str, path: str, op: str, status: int, exception: str, **parameters: Any) -> str:
        """The message of a RemoteException, which must be this one."""
        answer = (await self(method, path, op, status, **parameters))["RemoteException"]
        assert answer["exception"] == exception == answer["javaClassName"].rpartition(".")[2].rpartition("$")[2]
        return str(answer["message"])


@pytest.fixture
async def webhdfs(served: Cluster, http: aiohttp.ClientSession) -> WebHdfs:
    """Requests below a fresh directory."""
    asking = WebHdfs(http, f"{served.gateway_url()}/webhdfs/v1", f"/webhdfs-{next(_numbers)}")
    assert await asking("PUT", "", "MKDIRS") == {"boolean": True}
    return asking


@pytest.fixture
def client(served: Cluster) -> Iterator[hdfs.Client]:
    """The client of the package ``hdfs``, in a fresh directory."""
    with requests.Session() as session:
        made = hdfs.InsecureClient(served.gateway_url(), user=ME, root=f"/hdfs-{next(_numbers)}", session=session)
        made.makedirs("")
        yield made
