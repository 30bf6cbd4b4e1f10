"""Bearer tokens: needed beyond this machine, good for a user, some paths and a while. TLS."""

import re
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from gfsclient.filesystem import FileSystem
from gfsgateway import tokens
from gfsgateway.call import Call
from gfsgateway.config import GatewayConfig
from gfsgateway.users import VIEWS_MAX, WIDE, Width
from gfsprotocol.errors import ConfigurationError
from gfsprotocol.settings import load, read_secret
from tests import certificates
from tests.cluster.harness import Cluster
from tests.gateway.web import ask, put, raw

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OwnGateway = Callable[..., Awaitable[str]]
USER = (4711, 4711)


def bearer(
    secret_file: Path, user: tuple[int, ...] = USER, paths: tuple[str, ...] = (), seconds: float = 600
) -> dict[str, str]:
    key = tokens.token_key(read_secret(secret_file))
    return {"Authorization": f"Bearer {tokens.sign(key, user, paths, int(time.time() + seconds))}"}


async def test_beyond_this_machine_a_token_is_needed(own_gateway: OwnGateway, secret_file: Path, place: str) -> None:
    base = await own_gateway(host="0.0.0.0", token_secret_file=secret_file)
    async with aiohttp.ClientSession(base) as session:
        refused = await ask(session, "GET", "/v1/status")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="gfs"')
        for headers in (bearer(secret_file, seconds=-1), {"Authorization": "Bearer x"}, {"Authorization": "Bearer"}):
            assert (await ask(session, "GET", "/v1/status", headers=headers)).status == 401
        assert (await ask(session, "GET", "/v1/status", headers=bearer(secret_file))).status == 200
        assert (await ask(session, "GET", "/healthz")).status == 200
        assert (await ask(session, "GET", "/v1/openapi.json")).status == 200


async def test_a_token_acts_as_its_user(
    own_gateway: OwnGateway, secret_file: Path, http: aiohttp.ClientSession, place: str
) -> None:
    base = await own_gateway(token_secret_file=secret_file)
    mine, other = bearer(secret_file), bearer(secret_file, (4712, 4712))
    assert (await ask(http, "PATCH", f"/v1/attributes{place}", json={"mode": "1777"})).status == 200
    async with aiohttp.ClientSession(base) as session:
        made = await ask(session, "PUT", f"/v1/files{place}/mine?mode=600", data=b"x", headers=mine)
        assert (made.json["uid"], made.json["gid"]) == USER
        assert (await ask(session, "GET", f"/v1/files{place}/mine", headers=mine)).body == b"x"
        for method in ("GET", "PUT", "DELETE"):
            assert (await ask(session, method, f"/v1/files{place}/mine", headers=other)).status == 403, method
        begun = await ask(session, "POST", f"/v1/uploads?path={place}/up", headers=mine)
        assert begun.status == 201
        assert (await ask(session, "HEAD", begun.json["href"], headers=mine)).status == 200
        assert (await ask(session, "HEAD", begun.json["href"], headers=other)).status == 404
        assert (await ask(session, "DELETE", begun.json["href"], headers=mine)).status == 204


async def test_a_token_for_some_paths(
    own_gateway: OwnGateway, secret_file: Path, http: aiohttp.ClientSession, place: str, served: Cluster
) -> None:
    base = await own_gateway(token_secret_file=secret_file)
    for name in ("a", "ab"):
        await put(http, f"{place}/{name}/file?parents=true", b"x")
    root = await served.client(user=(0, 0))
    try:
        await root.symlink(f"{place}/ab", f"{place}/a/link")
    finally:
        await root.close()
    limited = bearer(secret_file, (0, 0), (f"{place}/a",))
    async with aiohttp.ClientSession(base) as session:

        async def status(method: str, address: str, **options: object) -> int:
            return (await ask(session, method, address, headers=limited, **options)).status

        assert await status("GET", f"/v1/files{place}/a/file") == 200
        assert await status("GET", f"/v1/directories{place}/a") == 200
        assert await status("GET", f"/v1/files{place}/ab/file") == 403
        assert await status("GET", f"/v1/files{place}/a/link/file") == 403
        assert await status("GET", f"/v1/directories{place}") == 403
        assert await status("GET", "/v1/status") == 403
        away = {"source": f"{place}/a/file", "target": f"{place}/ab/new"}
        assert await status("POST", "/v1/rename", json=away) == 403
        assert await status("POST", "/v1/copy", json=away) == 403
        assert await status("POST", f"/v1/uploads?path={place}/ab/up") == 403
        gone = await ask(http, "DELETE", f"/v1/files{place}/ab/file?trash=true")
        assert await status("POST", f"/v1/trash/{gone.json['inode']}/restore") == 404
        assert await status("DELETE", "/v1/trash") == 200
        assert (await ask(http, "POST", f"/v1/trash/{gone.json['inode']}/restore")).status == 200


async def test_a_token_for_some_paths_cannot_make_its_way_out(
    own_gateway: OwnGateway, secret_file: Path, http: aiohttp.ClientSession, place: str
) -> None:
    """Whoever may change the directory itself may put a link in its place."""
    base = await own_gateway(token_secret_file=secret_file)
    await put(http, f"{place}/secret/file?parents=true", b"secret")
    await put(http, f"{place}/own/file?parents=true", b"own")
    limited = bearer(secret_file, (0, 0), (f"{place}/own",))
    async with aiohttp.ClientSession(base, headers=limited) as session:
        assert (await ask(session, "GET", f"/v1/files{place}/own/file")).body == b"own"
        gone = await ask(session, "DELETE", f"/v1/directories{place}/own?recursive=true")
        assert gone.status == 204
        await link(session, f"{place}/own", f"{place}/secret")
        assert (await ask(session, "GET", f"/v1/files{place}/own/file")).status == 403
        assert (await ask(session, "GET", f"/v1/directories{place}/own")).status == 403
        assert (await ask(session, "PUT", f"/v1/files{place}/own/new", data=b"x")).status == 403


async def test_a_token_for_some_paths_is_not_deceived_by_a_link_that_comes_late(
    own_gateway: OwnGateway,
    secret_file: Path,
    http: aiohttp.ClientSession,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = await own_gateway(token_secret_file=secret_file)
    await put(http, f"{place}/secret/file?parents=true", b"secret")
    await put(http, f"{place}/own/directory/file?parents=true", b"own")
    async with aiohttp.ClientSession(base, headers=bearer(secret_file, (0, 0), (f"{place}/own",))) as session:
        await link(session, f"{place}/own/link", f"{place}/secret")

        files = Call.files

        async def files_after_an_exchange(call: Call, width: Width = WIDE) -> FileSystem:
            found = await files(call, width)
            exchange = {"source": f"{place}/own/directory", "target": f"{place}/own/link", "exchange": True}
            assert (await ask(http, "POST", "/v1/rename", json=exchange)).status == 200
            return found

        monkeypatch.setattr(Call, "files", files_after_an_exchange)
        assert (await ask(session, "GET", f"/v1/files{place}/own/directory/file")).status == 403
        assert (await ask(session, "GET", f"/v1/files{place}/own/directory/file")).body != b"secret"


async def link(session: aiohttp.ClientSession, path: str, target: str) -> None:
    query = {"op": "CREATESYMLINK", "destination": target}
    async with session.put(f"/webhdfs/v1{path}", params=query) as response:
        assert response.status == 200, await response.text()


async def test_very_many_users(
    own_gateway: OwnGateway, secret_file: Path, http: aiohttp.ClientSession, place: str
) -> None:
    base = await own_gateway(token_secret_file=secret_file)
    assert (await ask(http, "PATCH", f"/v1/attributes{place}", json={"mode": "777"})).status == 200
    async with aiohttp.ClientSession(base) as session:
        for uid in range(1000, 1000 + VIEWS_MAX + 20):
            headers = bearer(secret_file, (uid, uid))
            assert (await ask(session, "HEAD", f"/v1/attributes{place}", headers=headers)).status == 200
            assert (await ask(session, "GET", f"/v1/attributes{place}", headers=headers)).status == 200


def test_settings_that_would_open_it_to_everybody(served: Cluster) -> None:
    given = {"client_file": str(served.layout.client_file)}
    for settings, complaint in (
        ({"host": "0.0.0.0"}, "token_secret_file"),
        ({"tls_key": "/x"}, "belong together"),
        ({"default_user": [1]}, "uid and a gid"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            load(GatewayConfig, None, given | settings)


@pytest.mark.skipif(not certificates.is_possible(), reason=certificates.MISSING)
async def test_tls(own_gateway: OwnGateway, tmp_path: Path) -> None:
    authority = certificates.Authority(tmp_path / "authority")
    certificate, key = authority.issue("IP:127.0.0.1")
    base = await own_gateway(tls_certificate=certificate, tls_key=key)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    async with aiohttp.ClientSession(base) as session:
        assert (await ask(session, "GET", "/v1/status", ssl=context)).status == 200


@pytest.mark.skipif(not certificates.is_possible(), reason=certificates.MISSING)
async def test_who_is_slow_to_begin_tls_is_let_go(own_gateway: OwnGateway, tmp_path: Path) -> None:
    certificate, key = certificates.Authority(tmp_path / "authority").issue("IP:127.0.0.1")
    base = await own_gateway(tls_certificate=certificate, tls_key=key, header_seconds=0.3)
    assert await raw(base, b"") == b""


def test_the_command(served: Cluster) -> None:
    done = served.gfs(
        "token",
        "create",
        "--user",
        "4711:4712:5",
        "--paths",
        "/a,/b",
        "--expires",
        "1h",
        "--dir",
        str(served.directory),
    )
    key = tokens.token_key(read_secret(served.layout.gateway_secret_file))
    claims = tokens.verify(key, done.stdout.decode().strip(), time.time())
    assert (claims.user, claims.paths) == ((4711, 4712, 5), ("/a", "/b"))
    assert 3500 < claims.expires - time.time() <= 3600
    for wrong in (
        ["--user", "no-such-user"],
        ["--user", "0", "--expires", "soon"],
        ["--user", "0", "--paths", "relative"],
        ["--user", "0", "--paths", ""],
        ["--user", "0", "--paths", "/a,"],
    ):
        refused = served.gfs("token", "create", *wrong)
        assert refused.returncode == 10 and re.fullmatch(r"gfs: .*\n", refused.stderr.decode())
