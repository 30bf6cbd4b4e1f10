"""``gfsclient mount`` and ``umount`` as a person uses them: on a real mount, and with what may be wrong."""

import errno
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfsclient.config import load_config
from gfsclient.mount import mountpoint as mountpoints
from gfsclient.mount.daemon import READ_AHEAD_KIB
from gfsclient.mount.records import log_file
from gfsprotocol.errors import ConfigurationError, GfsError, PermissionDenied
from tests.cluster.harness import BIN, Cluster, wait_until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="there is no /dev/fuse for us"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("mounted") / "cluster", masters=1, chunkservers=2)
    try:
        made.up()
        yield made
    finally:
        made.stop()


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory to mount on; what is mounted there is taken away afterwards, and its processes end."""
    monkeypatch.setenv("XDG_STATE_HOME", cluster.environment["XDG_STATE_HOME"])
    directory = tmp_path / "mnt"
    directory.mkdir()
    yield directory
    if mountpoints.mounted_at(str(directory)) is not None:
        mountpoints.unmount_lazily(str(directory))
    for process in _processes(directory):
        os.kill(process, signal.SIGKILL)
    wait_until("the mount's processes are gone", lambda: not _processes(directory))


def _processes(directory: Path) -> list[int]:
    """Those that were started to mount on a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        except OSError:
            continue
        if b"mount" in words and os.fsencode(directory) in words:
            found.append(int(entry.name))
    return found


def test_mount_use_and_umount(cluster: Cluster, place: Path) -> None:
    done = cluster.gfsclient("mount", str(place))
    assert (done.returncode, done.stderr) == (0, b"")
    (place / "directory").mkdir()
    (place / "directory" / "file").write_text("content")
    assert (place / "directory" / "file").read_text() == "content"
    assert cluster.gfsclient("cat", "/directory/file").stdout == b"content"
    again = cluster.gfsclient("mount", str(place))
    assert again.returncode != 0
    assert b"mounted there already" in again.stderr
    held = (place / "directory" / "file").open()
    busy = cluster.gfsclient("umount", str(place))
    assert b"busy" in busy.stderr
    held.close()
    (place / "last").write_bytes(b"x" * 3_000_000)
    assert cluster.gfsclient("umount", str(place)).returncode == 0
    assert not list(place.iterdir())
    assert not _processes(place)
    assert cluster.gfsclient("cat", "/last").stdout == b"x" * 3_000_000
    assert "Traceback" not in log_file(str(place)).read_text()


@pytest.mark.skipif(bool(os.getuid()), reason="only root may have the kernel ask for more at a time")
def test_the_kernel_reads_ahead_in_large_pieces(cluster: Cluster, place: Path) -> None:
    assert cluster.gfsclient("mount", str(place)).returncode == 0
    mounted = mountpoints.mounted_at(str(place))
    assert mounted is not None
    device = "{}:{}".format(*mounted.device)
    assert int(Path(f"/sys/class/bdi/{device}/read_ahead_kb").read_text()) == READ_AHEAD_KIB
    assert cluster.gfsclient("umount", str(place)).returncode == 0


def test_a_subtree_read_only(cluster: Cluster, place: Path) -> None:
    assert cluster.gfsclient("mkdir", "/sub").returncode == 0
    assert cluster.gfsclient("put", "-", "/sub/file", input=b"below").returncode == 0
    assert cluster.gfsclient("mount", "gfs:///sub", str(place), "-o", "ro,_netdev").returncode == 0
    assert [entry.name for entry in place.iterdir()] == ["file"]
    assert (place / "file").read_bytes() == b"below"
    with pytest.raises(OSError, match="Read-only") as caught:
        (place / "new").touch()
    assert caught.value.errno == errno.EROFS
    assert cluster.gfsclient("umount", str(place)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{}/missing"], "no such directory"),
        (["/etc/hostname"], "not a directory"),
        (["/no/such/subtree", "{}"], "no such"),
        (["/a-file", "{}"], "/a-file: is not a directory"),
        (["-o", "bogus", "{}"], "'bogus' is not known"),
        (["host:1", "{}"], "is not gfs://"),
    ],
)
def test_what_is_wrong_is_one_line(cluster: Cluster, place: Path, arguments: list[str], words: str) -> None:
    cluster.gfsclient("put", "-", "/a-file", input=b"")
    done = cluster.gfsclient("mount", *(argument.format(place) for argument in arguments))
    assert done.returncode not in (0, 1)
    assert words in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_a_mount_point_may_be_named_by_a_link(cluster: Cluster, place: Path) -> None:
    first, second = place.parent / "first", place.parent / "second"
    first.symlink_to(place.name)
    second.symlink_to(first)
    assert cluster.gfsclient("mount", str(second)).returncode == 0
    assert b"mounted there already" in cluster.gfsclient("mount", str(first)).stderr
    assert cluster.gfsclient("umount", str(second)).returncode == 0
    assert mountpoints.mounted_at(str(place)) is None


def test_umount_of_what_is_not_mounted(cluster: Cluster, place: Path) -> None:
    assert b"no cluster is mounted there" in cluster.gfsclient("umount", str(place)).stderr


def test_a_process_that_dies_is_started_again(cluster: Cluster, place: Path) -> None:
    assert cluster.gfsclient("mount", "--supervise", str(place)).returncode == 0
    (place / "survivor").write_text("content")
    os.stat(place)  # the kernel keeps the attributes, also of a mount that is dead
    os.kill(max(_processes(place)), signal.SIGKILL)

    def works() -> bool:
        try:
            return (place / "survivor").read_text() == "content"
        except OSError:
            return False

    wait_until("the mount works again", works)
    assert "cannot be mounted on" not in log_file(str(place)).read_text(), "it works at the first try"
    assert cluster.gfsclient("umount", str(place)).returncode == 0
    assert not _processes(place), "its supervisor ends with it"


def test_until_a_master_answers_nobody_writes_into_the_directory_below(cluster: Cluster, place: Path) -> None:
    assert cluster.gfsclient("mount", "--supervise", str(place)).returncode == 0
    (place / "kept").touch()
    first, second = sorted(_processes(place))
    cluster.pause("master-1")
    try:
        os.kill(second, signal.SIGKILL)
        wait_until("another process is started", lambda: _processes(place) not in ([first], [first, second]))
        with pytest.raises(OSError, match=r"not connected|aborted"):
            (place / "new").write_text("content")
    finally:
        cluster.resume("master-1")
    wait_until("it is mounted again", lambda: os.path.exists(place / "kept"))
    (place / "new").write_text("content")
    assert cluster.gfsclient("umount", str(place)).returncode == 0
    assert not list(place.iterdir())


def test_a_dead_mount_is_cleared_away_by_the_next(cluster: Cluster, place: Path) -> None:
    assert cluster.gfsclient("mount", str(place)).returncode == 0
    (place / "kept").write_text("content")
    os.stat(place)
    for process in _processes(place):
        os.kill(process, signal.SIGKILL)
    wait_until("the mount is dead", lambda: mountpoints.is_dead(str(place)))
    os.stat(place)  # the kernel keeps the attributes
    wait_until("its process is gone", lambda: not _processes(place))
    assert cluster.gfsclient("mount", str(place)).returncode == 0
    assert (place / "kept").read_text() == "content"
    assert cluster.gfsclient("umount", str(place)).returncode == 0


def test_a_termination_unmounts_and_keeps_what_was_written(cluster: Cluster, place: Path) -> None:
    log = place.parent / "log"
    with log.open("wb") as errors:
        process = cluster.popen("mount", "--foreground", str(place), stderr=errors)
    wait_until("it is mounted", lambda: mountpoints.mounted_at(str(place)) is not None)
    descriptor = os.open(place / "unflushed", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"gathered")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, log.read_text()
    with pytest.raises(OSError, match="not connected"):
        os.close(descriptor)
    assert mountpoints.mounted_at(str(place)) is None
    assert cluster.gfsclient("cat", "/unflushed").stdout == b"gathered"


@pytest.mark.parametrize(
    ("device", "error", "words"),
    [
        ("nowhere", ConfigurationError, "load the kernel's module"),
        ("file/x", PermissionDenied, "cannot be opened: Not a directory"),
    ],
)
def test_without_the_device_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, error: type[GfsError], words: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(mountpoints, "DEVICE", tmp_path / device)
    with pytest.raises(error, match=words):
        mountpoints.prepare(str(tmp_path), allow_other=False)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user")
def test_an_ordinary_user_mounts(cluster: Cluster) -> None:
    if not os.stat("/dev/fuse").st_mode & 0o006 or shutil.which("fusermount3") is None:
        pytest.skip("an ordinary user cannot open /dev/fuse here")
    config = load_config(cluster.layout.client_file)
    home = Path(tempfile.mkdtemp(prefix="gfs-user-"))
    place = home / "mnt"
    place.mkdir()
    for directory in (home, place):
        os.chown(directory, 65534, 65534)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(home),
        "GFS_CLIENT_MASTERS": json.dumps(list(config.masters)),
        "GFS_CLIENT_KEY": config.key,
    }

    def as_user(*command: str | Path) -> None:
        words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        done = subprocess.run(words, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()

    try:
        as_user(BIN / "gfsclient", "mount", place)
        as_user("/bin/sh", "-c", f"echo content >{place}/mine && test -O {place}/mine")
        as_user(BIN / "gfsclient", "umount", place)
        assert cluster.gfsclient("cat", "/mine").stdout == b"content\n"
    finally:
        if mountpoints.mounted_at(str(place)) is not None:
            mountpoints.unmount_lazily(str(place))
        wait_until("the mount's processes are gone", lambda: not _processes(place))
        shutil.rmtree(home)
