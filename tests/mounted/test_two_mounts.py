"""Two mounts of one cluster: what one changes the other sees, at once after a close, and soon without one.

Without an open in between, the other mount is told by the master. How long that took is printed, and only bounded
generously: the machine that runs tests may be busy.
"""

import functools
import mmap
import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.test_failover import leader_name
from tests.mounted.mounting import Mount
from tests.mounted.scenarios import RENAME_EXCHANGE, RENAME_NOREPLACE, attempt, read, renameat2, write
from tests.mounted.worker import Worker, user

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SOON_SECONDS = 20.0
LONGER_THAN_MASTERS_KEEP_SECONDS = 7.0
"""What is removed and not held by a client by then is gone."""
Pair = tuple[Path, Path]


def seconds_until(what: str, condition: Callable[[], bool], seconds: float = SOON_SECONDS) -> float:
    """How long it took until the condition held; fails if it does not in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds, f"never seen: {what}"
        time.sleep(0.001)
    return time.monotonic() - begun


def tell(what: str, times: list[float]) -> None:
    print(f"{what}: median {statistics.median(times) * 1000:.1f} ms, slowest {max(times) * 1000:.1f} ms")


def test_what_is_closed_here_is_read_there_at_once(pair: Pair) -> None:
    chance = random.Random(7)
    names = [f"file-{number}" for number in range(4)]
    for number in range(80):
        writer, reader = pair if number % 3 else reversed(pair)
        data = chance.randbytes(chance.choice((0, 10, 5_000, 70_000, 300_000)))
        name = chance.choice(names)
        write(writer / name, data)
        assert read(reader / name) == data, f"round {number}"


def test_an_overwrite_of_the_same_size_is_read_there_at_once(pair: Pair) -> None:
    """Nothing but the time of the change tells the two apart."""
    write(pair[0] / "file", bytes(100_000))
    for number in range(1, 40):
        writer, reader = pair if number % 2 else reversed(pair)
        descriptor = os.open(writer / "file", os.O_WRONLY)
        os.pwrite(descriptor, bytes([number]) * 5000, 3000 * number % 90_000)
        os.close(descriptor)
        expected = read(writer / "file")
        assert read(reader / "file") == expected, f"round {number}"
        assert expected[3000 * number % 90_000] == number


def test_no_size_is_stale_after_an_append_from_the_other_side(pair: Pair) -> None:
    """Each appends to what the other has just closed: no line is lost, none written over."""
    lines: list[bytes] = []
    for number in range(60):
        here = pair[number % 2]
        line = b"line %d by %d\n" % (number, number % 2)
        descriptor = os.open(here / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, line)
        os.close(descriptor)
        lines.append(line)
        there = pair[1 - number % 2]
        descriptor = os.open(there / "log", os.O_RDONLY)
        assert os.fstat(descriptor).st_size == len(b"".join(lines)), f"round {number}"
        os.close(descriptor)
        assert read(there / "log") == b"".join(lines), f"round {number}"


def test_appends_through_handles_that_stay_open(pair: Pair) -> None:
    """With fsync after each line: the next writer asks for the end, and its kernel's idea of the size is old."""
    handles = [os.open(here / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for here in pair]
    for number in range(40):
        os.write(handles[number % 2], b"%d\n" % number)
        os.fsync(handles[number % 2])
    for handle in handles:
        os.close(handle)
    expected = b"".join(b"%d\n" % number for number in range(40))
    assert [read(here / "log") for here in pair] == [expected, expected]


def changes(pair: Pair) -> dict[str, tuple[Callable[[int], object], Callable[[int], bool]]]:
    """Of each kind: what the first mount does, and what the second has cached before and must see."""
    here, there = pair

    def name(number: int) -> str:
        return f"name-{number}"

    return {
        "creation where nothing was": (
            lambda n: os.mknod(here / name(n)),
            lambda n: os.path.exists(there / name(n)),
        ),
        "mode": (
            lambda n: os.chmod(here / "file", 0o600 + n),
            lambda n: os.stat(there / "file").st_mode & 0o777 == 0o600 + n,
        ),
        "size": (
            lambda n: os.truncate(here / "file", 100 + n),
            lambda n: os.stat(there / "file").st_size == 100 + n,
        ),
        "removal": (
            lambda n: os.unlink(here / name(n)),
            lambda n: not os.path.exists(there / name(n)),
        ),
        "rename": (
            lambda n: os.rename(here / f"turn-{n}", here / f"turn-{n + 1}"),
            lambda n: os.path.exists(there / f"turn-{n + 1}") and not os.path.exists(there / f"turn-{n}"),
        ),
        "what a directory lists": (
            lambda n: os.mkdir(here / "directory" / str(n)),
            lambda n: str(n) in os.listdir(there / "directory"),
        ),
        "an extended attribute": (
            lambda n: os.setxattr(here / "file", "user.n", str(n).encode()),
            lambda n: attempt(os.getxattr, there / "file", "user.n") == str(n).encode(),
        ),
        "where a link leads": (
            lambda n: replace_link(here / "link", f"target-{n}"),
            lambda n: attempt(os.readlink, there / "link") == f"target-{n}",
        ),
    }


def replace_link(link: Path, target: str) -> None:
    new = link.with_name("new")
    os.symlink(target, new)
    os.rename(new, link)


def test_the_other_mount_is_told_of_changes(pair: Pair) -> None:
    write(pair[0] / "file", bytes(1000))
    os.mknod(pair[0] / "turn-0")
    os.mkdir(pair[0] / "directory")
    for what, (change, is_seen) in changes(pair).items():
        times = []
        for number in range(20):
            assert not is_seen(number), what
            assert not is_seen(number), what  # from its cache
            change(number)
            times.append(seconds_until(f"{what}, round {number}", lambda: is_seen(number)))  # noqa: B023
        tell(what, times)


def change_what_is_mapped(here: Path, there: Path) -> list[float]:
    """How long each change here took to be seen through a handle there; for the worker, as it maps a file."""
    write(here / "file", b"0" * 200_000)
    reader = os.open(there / "file", os.O_RDONLY)
    times = []
    with mmap.mmap(reader, 0, prot=mmap.PROT_READ) as mapping:
        for number in range(1, 10):
            assert os.pread(reader, 1, 150_000) == mapping[150_000:150_001] == b"%d" % (number - 1)
            descriptor = os.open(here / "file", os.O_WRONLY)
            os.pwrite(descriptor, b"%d" % number, 150_000)
            os.close(descriptor)
            wanted = b"%d" % number
            times.append(seconds_until("new bytes", lambda: os.pread(reader, 1, 150_000) == wanted))  # noqa: B023
            seconds_until("new bytes in the mapping", lambda: mapping[150_000:150_001] == wanted)  # noqa: B023
    os.close(reader)
    return times


def test_an_open_file_changes_under_its_reader(pair: Pair, mounted: Mount, worker: Worker) -> None:
    tell("content of an open file", worker.call(mounted, change_what_is_mapped, *pair))


def give_away(here: Path, there: Path) -> None:
    """What only the owner may do is asked for there until it may be; for the worker, as it acts as that user."""
    for number, was in enumerate(["seen", "changed", "renamed", "linked", "linked and renamed"]):
        name = f"given-{number}"
        write(here / name, b"")
        os.stat(there / name)
        if was == "changed":
            os.chmod(there / name, 0o600)
        if was.startswith("linked"):
            os.link(there / name, there / f"{name}-too")
        if was.endswith("renamed"):
            os.rename(there / name, there / f"{name}-new")
            name = f"{name}-new"
        os.chown(here / name, 12345, 12345)
        with user(12345):
            seconds_until("its new owner", lambda: attempt(os.utime, there / name, (1, 1)) is None)  # noqa: B023
        assert os.stat(here / name).st_mtime == 1


def test_a_file_has_a_new_owner_there_too(pair: Pair, mounted: Mount, worker: Worker) -> None:
    worker.call(mounted, give_away, *pair)


def test_a_file_removed_there_lives_while_it_is_open_here(pair: Pair) -> None:
    here, there = pair
    data = random.Random(5).randbytes(3_000_000)
    write(here / "read", data)
    write(here / "written", data)
    write(here / "replaced", data)
    write(here / "new", b"new")
    reader = os.open(there / "read", os.O_RDONLY)
    replaced = os.open(there / "replaced", os.O_RDONLY)
    writer = os.open(there / "written", os.O_RDWR)
    os.pwrite(writer, b"before", 0)
    os.unlink(here / "read")
    os.unlink(here / "written")
    os.rename(here / "new", here / "replaced")
    seconds_until("the names are gone", lambda: set(os.listdir(there)) == {"replaced"})
    for position in range(0, len(data), 500_000):
        assert os.pread(reader, 500_000, position) == data[position : position + 500_000]
        assert os.pread(replaced, 500_000, position) == data[position : position + 500_000]
    os.pwrite(writer, b"after", 2_999_990)
    os.fsync(writer)
    assert os.pread(writer, 100, 2_999_980) == data[2_999_980:2_999_990] + b"after" + data[2_999_995:]
    assert os.fstat(reader).st_size == len(data)
    for descriptor in (reader, replaced, writer):
        os.close(descriptor)
    assert read(there / "replaced") == b"new"


def in_both(pair: Pair, act: Callable[[int], object]) -> None:
    """Runs ``act`` for each of the two mounts at the same time."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            act(number)
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(pair))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_exclusive_creation_has_one_winner(pair: Pair) -> None:
    """The way of programs that lock by files: O_EXCL, link(2), mkdir, rename without replacing."""
    won: list[list[str]] = [[], []]

    def compete(me: int) -> None:
        here = pair[me]
        for number in range(30):
            os.mkdir(here / f"own-{me}-{number}")
            for kind, take in (
                ("open", lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))),
                ("mkdir", os.mkdir),
                ("rename", lambda path: renameat2(here / f"own-{me}-{number}", path, RENAME_NOREPLACE)),  # noqa: B023
            ):
                if (result := attempt(take, here / f"{kind}-{number}")) is None:
                    won[me].append(f"{kind}-{number}")
                else:
                    assert result == "EEXIST"

    in_both(pair, compete)
    assert sorted(won[0] + won[1]) == sorted(f"{kind}-{n}" for kind in ("open", "mkdir", "rename") for n in range(30))


def test_both_rename_over_one_name(pair: Pair) -> None:
    """The file is always there, and always one of theirs, whole."""
    write(pair[0] / "target", b"0" * 5000)

    def replace(me: int) -> None:
        for number in range(60):
            write(pair[me] / f"new-{me}", b"%d" % me * 5000)
            os.rename(pair[me] / f"new-{me}", pair[me] / "target")
            content = read(pair[me] / "target")
            assert content in (b"0" * 5000, b"1" * 5000), (number, len(content))

    in_both(pair, replace)
    assert os.listdir(pair[0]) == ["target"]


def test_both_exchange_names(pair: Pair) -> None:
    """Neither file is lost, and both mounts see the same.

    Which name has which file at the end is open: the kernel looks up both names before it asks for the exchange. If the
    other mount exchanges them in between, it finds the same file under both, and then has nothing to do.
    """
    write(pair[0] / "a", b"one")
    write(pair[0] / "b", b"other")

    def exchange(me: int) -> None:
        for _ in range(41):
            renameat2(pair[me] / "a", pair[me] / "b", RENAME_EXCHANGE)

    def seen() -> list[list[bytes]]:
        return [[read(here / name) for name in "ab"] for here in pair]

    in_both(pair, exchange)
    seconds_until("the same in both", lambda: seen()[0] == seen()[1])
    assert sorted(seen()[0]) == [b"one", b"other"]


def test_both_write_blocks_of_one_file(pair: Pair) -> None:
    """Different parts, each fsynced: all of them are there in the end, on both sides."""
    block, count = 10_000, 60
    write(pair[0] / "file", bytes(block * count))

    def write_mine(me: int) -> None:
        descriptor = os.open(pair[me] / "file", os.O_WRONLY)
        for number in range(me, count, 2):
            os.pwrite(descriptor, bytes([number + 1]) * block, number * block)
            if number % 10 == me:
                os.fsync(descriptor)
        os.close(descriptor)

    in_both(pair, write_mine)
    expected = b"".join(bytes([number + 1]) * block for number in range(count))
    for here in pair:
        assert read(here / "file") == expected


def test_two_mounts_see_the_same_through_a_failover(mounts: Callable[..., list[Mount]]) -> None:
    first, second = mounts(2, masters=2, master={"lease_seconds": 1.0})
    pair = first.path, second.path
    chance = random.Random(3)
    with first.watched(300), second.watched(300):
        for _ in range(2):
            pass_to_and_fro(pair, chance, 20)
            if (cluster := first.cluster) is None:
                continue
            cluster.wait_for("a leader and its standby", has_a_standby)
            leader = leader_name(cluster)
            change_through_a_failover(pair, functools.partial(cluster.kill, leader))
            pass_to_and_fro(pair, chance, 20)
            cluster.restart(leader)


def pass_to_and_fro(pair: Pair, chance: random.Random, rounds: int) -> None:
    """What one has closed the other reads."""
    for number in range(rounds):
        writer, reader = pair if number % 2 else reversed(pair)
        data = chance.randbytes(chance.choice((10, 50_000)))
        write(writer / "file", data)
        assert read(reader / "file") == data, f"round {number}"


def change_through_a_failover(pair: Pair, kill: Callable[[], None]) -> None:
    """What the second mount has cached when the leader dies, and what the first changes then, is seen all the same.

    A file that the first removes then lives on where it is open, although the new leader has not shown it to anybody.
    """
    here, there = pair
    data = random.Random(6).randbytes(8_000_000)
    write(here / "removed", data)
    reader = os.open(there / "removed", os.O_RDONLY)
    os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_RANDOM)  # what is read is not in the kernel's cache
    assert not os.path.exists(there / "negative")
    old_mode = os.stat(there / "file").st_mode
    kill()
    os.unlink(here / "removed")
    os.chmod(here / "file", old_mode ^ 0o070)
    os.mknod(here / "negative")
    seconds_until("a mode after a failover", lambda: os.stat(there / "file").st_mode != old_mode)
    seconds_until("a name after a failover", lambda: os.path.exists(there / "negative"))
    os.unlink(there / "negative")
    seconds_until("a removal after a failover", lambda: not os.path.exists(here / "negative"))
    until = time.monotonic() + LONGER_THAN_MASTERS_KEEP_SECONDS
    while time.monotonic() < until:
        position = random.randrange(len(data) - 4096)
        assert os.pread(reader, 4096, position) == data[position : position + 4096]
        time.sleep(0.05)
    os.close(reader)


def has_a_standby(status: dict[str, object]) -> bool:
    masters = status["masters"]
    assert isinstance(masters, list)
    return sorted(str(master.get("role")) for master in masters) == ["leader", "standby"]
