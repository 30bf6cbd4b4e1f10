"""Delegation tokens: what is in them, what they are good for, and how they end."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import hdfs
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from gfsclient.user import User
from gfsgateway import tokens
from gfsgateway.webhdfs import delegation
from gfsgateway.webhdfs.delegation import Delegation
from gfsgateway.webhdfs.exceptions import HdfsRefusal
from gfsprotocol.errors import GfsError

KEY = bytes(32)
NUMBERS = st.integers(min_value=0, max_value=2**32 - 1)
NOW = 1_700_000_000


@given(st.tuples(NUMBERS, NUMBERS), st.text(), st.text(), st.integers(1, 10**9))
def test_a_token_says_what_was_signed(user: User, owner: str, renewer: str, seconds: int) -> None:
    said = Delegation(user, renewer, NOW + seconds)
    token = delegation.sign(KEY, owner, said, NOW, 1, "127.0.0.1:9600")
    assert delegation.verify(KEY, token, NOW) == said
    with pytest.raises(HdfsRefusal, match="expired"):
        delegation.verify(KEY, token, NOW + seconds)
    with pytest.raises(HdfsRefusal, match="not signed"):
        delegation.verify(bytes([1]) * 32, token, NOW)


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    token = delegation.sign(KEY, "alice", Delegation((1000, 1000), "bob", NOW + 60), NOW, 7, "")
    at = data.draw(st.integers(0, len(token) - 60))
    letter = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda letter: letter != token[at]))
    changed = token[:at] + letter + token[at + 1 :]
    with pytest.raises(HdfsRefusal) as caught:
        delegation.verify(KEY, changed, NOW)
    assert caught.value.java_class.endswith("$InvalidToken")


@given(st.text() | st.binary().map(lambda data: data.hex()))
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(GfsError):
        delegation.verify(KEY, text, NOW)


def _with_service(token: str, service: bytes) -> str:
    """As Hadoop's clients write a token anew, with the address by which they know the service."""
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    return base64.urlsafe_b64encode(data[:-1] + bytes([len(service)]) + service).decode()


def test_a_token_is_known_by_what_was_signed() -> None:
    token = delegation.sign(KEY, "alice", Delegation((1000, 1000), "bob", NOW + 60), NOW, 7, "")
    other = delegation.sign(KEY, "alice", Delegation((1000, 1000), "bob", NOW + 60), NOW, 8, "")
    again = _with_service(token, b"10.0.0.1:9600")
    assert delegation.verify(KEY, again, NOW) == delegation.verify(KEY, token, NOW)
    assert delegation.name_of(again) == delegation.name_of(token) == delegation.name_of(token + "=")
    assert delegation.name_of(other) != delegation.name_of(token)


def test_numbers_are_written_as_hadoop_does() -> None:
    numbers = {0: "00", 127: "7f", 128: "8f80", 255: "8fff", 256: "8e0100", 1_700_000_000_000: "8a018bcfe56800"}
    assert {number: delegation._vlong(number).hex() for number in numbers} == numbers


@pytest.mark.cluster
@pytest.mark.slow
async def test_the_life_of_a_token(own_gateway: Callable[..., Awaitable[str]], secret_file: Path) -> None:
    first, second = [await own_gateway(token_secret_file=secret_file) for _ in range(2)]
    bearer = tokens.sign(tokens.token_key(bytes.fromhex("ab" * 32)), (1234, 1234), (), 2**33)
    headers = {"Authorization": f"Bearer {bearer}"}
    async with aiohttp.ClientSession() as http:
        address = f"{first}/webhdfs/v1/"
        async with http.get(
            address, params={"op": "GETDELEGATIONTOKEN", "renewer": "1234"}, headers=headers
        ) as response:
            token = (await response.json())["Token"]["urlString"]
        mine = {"delegation": token}
        async with http.get(f"{second}/webhdfs/v1/", params={"op": "GETHOMEDIRECTORY", **mine}) as response:
            assert await response.json() == {"Path": "/user/1234"}
        async with http.get(address, params={"op": "GETDELEGATIONTOKEN", **mine}) as response:
            assert response.status == 403
        for given_headers, status in ((headers, 200), ({}, 403)):
            renewal = {"op": "RENEWDELEGATIONTOKEN", "token": token}
            async with http.put(address, params=renewal, headers=given_headers) as response:
                assert response.status == status
        async with http.put(
            address, params={"op": "CANCELDELEGATIONTOKEN", "token": token}, headers=headers
        ) as response:
            assert response.status == 200
        for base in (first, second):
            await _until_refused(http, base, token)
            for same in (token, _with_service(token, b"elsewhere:9600")):
                assert await _is_cancelled(http, base, same)


async def _until_refused(http: aiohttp.ClientSession, base: str, token: str) -> None:
    deadline = asyncio.get_running_loop().time() + 30
    while not await _is_cancelled(http, base, token):
        assert asyncio.get_running_loop().time() < deadline, "a cancelled token is still good"
        await asyncio.sleep(0.1)


async def _is_cancelled(http: aiohttp.ClientSession, base: str, token: str) -> bool:
    query = {"op": "GETHOMEDIRECTORY", "delegation": token}
    async with http.get(f"{base}/webhdfs/v1/", params=query) as response:
        if response.status == 200:
            return False
        assert (await response.json())["RemoteException"]["exception"] == "InvalidToken"
        return True


@pytest.mark.cluster
@pytest.mark.slow
async def test_a_bearer_token_for_some_paths(own_gateway: Callable[..., Awaitable[str]], secret_file: Path) -> None:
    base = await own_gateway(token_secret_file=secret_file)
    bearer = tokens.sign(tokens.token_key(bytes.fromhex("ab" * 32)), (0, 0), ("/only",), 2**33)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {bearer}"}) as http:
        for method, path, query, status in (
            ("PUT", "/only/here", {"op": "MKDIRS"}, 200),
            ("PUT", "/elsewhere", {"op": "MKDIRS"}, 403),
            ("PUT", "/only/here", {"op": "RENAME", "destination": "/elsewhere"}, 403),
            ("POST", "/only/here", {"op": "CONCAT", "sources": "/elsewhere"}, 403),
            ("GET", "/", {"op": "GETDELEGATIONTOKEN"}, 403),
            ("GET", "/", {"op": "GETHOMEDIRECTORY"}, 200),
        ):
            async with http.request(method, f"{base}/webhdfs/v1{path}", params=query) as response:
                assert response.status == status, (query, await response.text())
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer gfs1.x.y"}) as http,
        http.get(f"{base}/webhdfs/v1/?op=GETFILESTATUS") as response,
    ):
        assert response.status == 401 and "RemoteException" in await response.json()


@pytest.mark.cluster
@pytest.mark.slow
async def test_the_token_client_of_the_package_hdfs(
    own_gateway: Callable[..., Awaitable[str]], secret_file: Path
) -> None:
    base = await own_gateway(token_secret_file=secret_file)
    said = Delegation((1234, 1234), "1234", 2**33)
    key = tokens.token_key(bytes.fromhex("ab" * 32))
    token = delegation.sign(tokens_key(key), "1234", said, NOW, 1, "")

    def use() -> str:
        with requests.Session() as session:
            return str(hdfs.TokenClient(base, token, session=session).resolve("file"))

    assert await asyncio.to_thread(use) == "/user/1234/file"


def tokens_key(key: bytes) -> bytes:
    """As a gateway derives it."""
    from gfsgateway.auth import Auth

    derived = Auth(key, None).delegation_key
    assert derived is not None
    return derived
