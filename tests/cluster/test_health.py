"""The one-line answer: is my data safe?"""

import msgspec
import pytest

from gfscluster.health import Band, judge
from gfsprotocol.errors import ConnectionLost, DataLost, Unreachable
from gfsprotocol.messages import DiskUsage, ServerStatus, Status

DISK = DiskUsage("/d", 100, 50, 3, "")
SERVER = ServerStatus(1, "127.0.0.1", 9500, True, 0.5, 3, (DISK,))
WELL = Status(
    cluster=b"c" * 16, node="master-1", role="leader", epoch=3, leader="a:1", sequence=9, committed_sequence=9,
    safe_mode=False, brake="", inodes=4, chunks=3, under_replicated=0, missing=0, corrupt_replicas=0,
    pending_deletions=0, open_files=0, clients=1, servers=(SERVER,),
)  # fmt: skip
STANDBY = msgspec.structs.replace(WELL, node="master-2", role="standby", chunks=0, servers=())


def changed(**fields: object) -> Status:
    return msgspec.structs.replace(WELL, **fields)


def test_all_is_well() -> None:
    health = judge({"a:1": WELL, "b:2": STANDBY})
    assert (health.band, health.line) == (Band.WELL, "Yes, every chunk has all its copies.")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (changed(under_replicated=1), "1 chunk has fewer copies than asked for"),
        (changed(corrupt_replicas=2), "2 copies are corrupt and not used"),
        (changed(brake="3 of 4 chunks would go"), "3 of 4 chunks would go"),
        (changed(safe_mode=True), "safe mode"),
        (changed(servers=(msgspec.structs.replace(SERVER, alive=False),)), "127.0.0.1:9500"),
        (
            changed(servers=(msgspec.structs.replace(SERVER, disks=(msgspec.structs.replace(DISK, failed="EIO"),)),)),
            "disk out of use: /d",
        ),
    ],
)
def test_a_weakness_is_told_and_nothing_is_lost(status: Status, reason: str) -> None:
    health = judge({"a:1": status})
    assert health.band is Band.DEGRADED
    assert health.line.startswith("Yes, every chunk has a good copy, but: ")
    assert reason in health.line


def test_a_missing_standby_is_a_weakness() -> None:
    health = judge({"a:1": WELL, "b:2": ConnectionLost("b:2: Connection refused")})
    assert health.band is Band.DEGRADED
    assert "b:2: Connection refused" in health.line


def test_a_chunk_without_a_good_copy_is_unsafe() -> None:
    health = judge({"a:1": changed(missing=1, under_replicated=2)})
    assert health.band is Band.UNSAFE
    assert health.band.value == DataLost.exit_code
    assert health.line == ("NO: 1 chunk has no good copy that is known; 2 chunks have fewer copies than asked for")


def test_missing_chunks_in_safe_mode_are_not_yet_lost() -> None:
    assert judge({"a:1": changed(missing=3, safe_mode=True)}).band is Band.DEGRADED


def test_nobody_leads() -> None:
    health = judge({"a:1": ConnectionLost("a:1: Connection refused"), "b:2": STANDBY})
    assert health.band is Band.UNKNOWN
    assert health.band.value == Unreachable.exit_code
    assert health.line == "Unknown, no master leads: a:1: Connection refused; b:2 is standby"


def test_an_old_leader_is_not_asked() -> None:
    old = changed(epoch=2, missing=5)
    assert judge({"b:2": old, "a:1": WELL}).band is Band.WELL
