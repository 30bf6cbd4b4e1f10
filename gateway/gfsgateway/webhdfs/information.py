"""What a client asks of the cluster or about itself, and the operations of features that are not there."""

from typing import Any, Final

from aiohttp import web

from gfsgateway.webhdfs.ask import Ask, Operation, answer
from gfsgateway.webhdfs.checksum import CRC_BYTES
from gfsgateway.webhdfs.exceptions import UNSUPPORTED, HdfsRefusal
from gfsprotocol.errors import NotFound
from gfsprotocol.ids import KIB

PACKET_BYTES: Final = 64 * KIB
BUFFER_BYTES: Final = 4 * KIB
CHECKSUM_CRC32: Final = 1
"""DataChecksum.Type of Hadoop."""
REGULAR_POLICY: Final = 0


async def get_home_directory(ask: Ask) -> web.StreamResponse:
    """Where a user's relative paths begin; it need not be there."""
    return answer({"Path": _home(ask)})


async def get_trash_root(ask: Ask) -> web.StreamResponse:
    """Where clients move what they remove into a trash of their own."""
    return answer({"Path": _trash(ask)})


async def get_trash_roots(ask: Ask) -> web.StreamResponse:
    """The same, if it is there."""
    files = await ask.files()
    roots: list[dict[str, Any]] = []
    try:
        found = await files.stat(_trash(ask))
    except NotFound:
        return answer({"Paths": roots})
    roots.append(
        {
            "access_time": 0,
            "block_replication": 0,
            "blocksize": 0,
            "group": ask.names.group_name(found.gid),
            "isdir": True,
            "length": 0,
            "modification_time": found.modified_ns // 10**6,
            "owner": ask.names.user_name(found.uid),
            "path": _trash(ask),
            "permission": f"{found.mode & 0o1777:o}",
        }
    )
    return answer({"Paths": roots})


def _home(ask: Ask) -> str:
    return f"/user/{ask.user_name}"


def _trash(ask: Ask) -> str:
    return f"{_home(ask)}/.Trash"


async def get_server_defaults(ask: Ask) -> web.StreamResponse:
    """How files are made if nothing is said: as the root directory has it."""
    files = await ask.files()
    root = await files.stat("/")
    defaults = {
        "blockSize": root.chunk_bytes,
        "bytesPerChecksum": CRC_BYTES,
        "checksumType": CHECKSUM_CRC32,
        "defaultStoragePolicyId": REGULAR_POLICY,
        "encryptDataTransfer": False,
        "fileBufferSize": BUFFER_BYTES,
        "keyProviderUri": "",
        "replication": root.replication,
        "snapshotTrashRootEnabled": False,
        "trashInterval": 0,
        "writePacketSize": PACKET_BYTES,
    }
    return answer({"FsServerDefaults": defaults})


async def unsupported(ask: Ask) -> web.StreamResponse:
    """UnsupportedOperationException: the operation rests on a feature that is not there."""
    raise HdfsRefusal(UNSUPPORTED, f"{ask.parameters.text('op').upper()} is not supported")


def _all_unsupported(*names: str) -> dict[str, Operation]:
    return dict.fromkeys(names, unsupported)


WITHOUT_PATH: Final[dict[str, Operation]] = {
    "GETHOMEDIRECTORY": get_home_directory,
    "GETTRASHROOT": get_trash_root,
    "GETTRASHROOTS": get_trash_roots,
    "GETSERVERDEFAULTS": get_server_defaults,
    **_all_unsupported("GETALLSTORAGEPOLICY", "GETECPOLICIES", "GETECCODECS", "GETSNAPSHOTTABLEDIRECTORYLIST"),
}
"""GET of what has nothing to do with the path in the address."""
GET: Final = _all_unsupported(
    "GETSTORAGEPOLICY", "GETECPOLICY", "GETSNAPSHOTDIFF", "GETSNAPSHOTDIFFLISTING", "GETSNAPSHOTLIST"
)
PUT: Final = _all_unsupported(
    "SETQUOTA", "SETQUOTABYSTORAGETYPE", "SETSTORAGEPOLICY", "SATISFYSTORAGEPOLICY", "SETECPOLICY", "ENABLEECPOLICY",
    "DISABLEECPOLICY", "ALLOWSNAPSHOT", "DISALLOWSNAPSHOT", "CREATESNAPSHOT", "RENAMESNAPSHOT",
)  # fmt: skip
POST: Final = _all_unsupported("UNSETSTORAGEPOLICY", "UNSETECPOLICY")
DELETE: Final = _all_unsupported("DELETESNAPSHOT")
