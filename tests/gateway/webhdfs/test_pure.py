"""The parts of WebHDFS that need no gateway: checksums, parameters, names, values of attributes."""

import hashlib
import json
import re
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsgateway.config import GatewayConfig
from gfsgateway.names import Names
from gfsgateway.targets import escaped_request, without_secrets
from gfsgateway.webhdfs.attributes import Encoding, acl_entries, decoded, encoded
from gfsgateway.webhdfs.checksum import FileChecksum
from gfsgateway.webhdfs.exceptions import HdfsRefusal, remote_exception
from gfsgateway.webhdfs.parameters import Parameters
from gfsgateway.webhdfs.service import OPERATIONS, SECOND_STEPS, WITHOUT_PATH
from gfsprotocol.errors import ERRORS_BY_CODE, ConfigurationError, InvalidArgument
from gfsprotocol.settings import load
from tests.house.documentation import ROOT

BLOCK = 2048


def _reference(data: bytes) -> str:
    """As MD5MD5CRC32FileChecksum is described."""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    sums = b"".join(
        hashlib.md5(
            b"".join(struct.pack(">I", zlib.crc32(block[at : at + 512])) for at in range(0, len(block), 512))
        ).digest()
        for block in blocks
    )
    return struct.pack(">IQ", 512, BLOCK // 512 if len(blocks) > 1 else 0).hex() + hashlib.md5(sums).hexdigest()


@given(st.lists(st.binary(max_size=3000), max_size=6))
def test_a_checksum_does_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    checksum = FileChecksum(BLOCK)
    for piece in pieces:
        checksum.update(piece)
    assert checksum.finish()["bytes"] == _reference(b"".join(pieces))


def test_a_checksum_that_hadoop_has_computed() -> None:
    checksum = FileChecksum(64 * 1024 * 1024)
    checksum.update(b"")
    assert checksum.finish() == {
        "algorithm": "MD5-of-0MD5-of-512CRC32",
        "bytes": "000002000000000000000000d41d8cd98f00b204e9800998ecf8427e",
        "length": 28,
    }


@given(st.binary(), st.sampled_from([Encoding.HEX, Encoding.BASE64]))
def test_values_of_attributes_come_back(value: bytes, encoding: Encoding) -> None:
    assert decoded(encoded(value, encoding)) == value


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_text_values_of_attributes_come_back(text: str) -> None:
    assert decoded(encoded(text.encode(), Encoding.TEXT)) == text.encode()


def test_lists_of_access() -> None:
    assert acl_entries("user::rwx,group::r-x,other::---") == {"user": 7, "group": 5, "other": 0}
    for spec in ("", "user:rwx", "user::rwy", "user::", "everyone::rwx"):
        with pytest.raises(HdfsRefusal):
            acl_entries(spec)


@pytest.mark.parametrize(
    ("text", "mode"), [("755", 0o755), ("1777", 0o1777), ("01777", 0o1777), ("0", 0), ("", 0o644), ("null", 0o644)]
)
def test_permissions(text: str, mode: int) -> None:
    assert Parameters([("Permission", text)]).permission("permission", 0o644) == mode


@pytest.mark.parametrize("text", ["8", "2755", "-1", "0x1", "\uff17"])
def test_permissions_that_are_none(text: str) -> None:
    with pytest.raises(HdfsRefusal, match='webhdfs parameter "permission"'):
        Parameters([("permission", text)]).permission("permission", 0o644)


def test_names_of_parameters_are_read_in_any_case() -> None:
    parameters = Parameters([("OverWrite", "True"), ("XAttr.Name", "a"), ("xattr.name", "b")])
    assert parameters.flag("overwrite") and parameters.texts("xattr.name") == ["a", "b"]


def test_every_error_is_a_remote_exception() -> None:
    for kind in ERRORS_BY_CODE.values():
        response = remote_exception(kind("what\nhappened"))
        assert isinstance(response.body, bytes)
        said = json.loads(response.body)["RemoteException"]
        assert said["javaClassName"].endswith(said["exception"]) and said["message"] == "what\nhappened"
        assert response.status in (400, 401, 403, 404, 500)


def test_every_operation_is_documented() -> None:
    page = (ROOT / "docs" / "webhdfs.md").read_text()
    operations = {name for table in (OPERATIONS, WITHOUT_PATH) for methods in table.values() for name in methods}
    assert set(re.findall(r"`([A-Z_]{4,})`", page)) == operations


def test_tokens_are_not_logged() -> None:
    shown = without_secrets("/webhdfs/v1/?op=OPEN&Delegation=abc&x=1&token=def#")
    assert shown == "/webhdfs/v1/?op=OPEN&Delegation=...&x=1&token=..."


def test_a_target_beyond_ascii_is_escaped() -> None:
    head = "PUT /webhdfs/v1/ü/x%41?op=CREATE HTTP/1.1\r\nX: é\r\n\r\n".encode()
    assert escaped_request(head) == head.replace("ü".encode(), b"%C3%BC")
    for other in ("GET /v1/files/ü HTTP/1.1\r\n", "ü GET /webhdfs/v1/ü HTTP/1.1\r\n", "GET /webhdfs/ü", "ü"):
        assert escaped_request(other.encode()) == other.encode()


def test_a_second_step_has_a_first() -> None:
    for method, operations in SECOND_STEPS.items():
        assert set(operations) <= set(OPERATIONS[method])
    assert not any(set(WITHOUT_PATH[method]) & set(OPERATIONS[method]) for method in WITHOUT_PATH)


def _names(**settings: list[str]) -> Names:
    return Names(GatewayConfig(client_file=Path("client.toml"), **settings))  # type: ignore[arg-type]


def test_names_of_users_and_groups() -> None:
    names = _names(users=["alice=4000:4001:4002", "root=4003:4003"], groups=["staff-x=4001"])
    assert (names.user("alice"), names.user_name(4000), names.uid("alice")) == ((4000, 4001, 4002), "alice", 4000)
    assert (names.gid("staff-x"), names.group_name(4001)) == (4001, "staff-x")
    assert (names.uid("root"), names.user_name(4003), names.user_name(0)) == (4003, "root", "root")
    assert (names.uid("4711"), names.gid("4711"), names.user_name(4711), names.group_name(4711)) == (
        4711,
        4711,
        "4711",
        "4711",
    )
    for ask in (names.uid, names.user, names.gid):
        with pytest.raises(InvalidArgument, match="the gateway knows no"):
            ask("no-such-name")
    with pytest.raises(InvalidArgument):
        names.uid("4294967295")


@pytest.mark.parametrize(
    "settings",
    [
        {"users": ["alice=1"]},
        {"users": ["alice"]},
        {"groups": ["staff=1:2"]},
        {"public_url": "files.example.com"},
        {"public_url": "http://files.example.com/path"},
    ],
)
def test_settings_that_are_wrong(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        load(GatewayConfig, None, {"client_file": "client.toml", **settings})
