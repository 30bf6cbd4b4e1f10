"""What is to be mounted: sources, options, mount(8)'s arguments, callers' groups, ranges."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsclient.mount.callers import Callers
from gfsclient.mount.helper import arguments, is_fake
from gfsclient.mount.options import DEADLINE_SECONDS, Source, parse_options, parse_source
from gfsclient.mount.ranges import RANGES_MAX, Ranges
from gfsprotocol.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("", Source()),
        ("gfs", Source()),
        ("gfs://", Source()),
        ("/a//b/", Source(subtree=b"/a/b")),
        ("gfs://h:1,g:2", Source(("h:1", "g:2"))),
        ("gfs://h:1/a/b", Source(("h:1",), b"/a/b")),
        ("gfs:///a", Source((), b"/a")),
    ],
)
def test_sources(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["host:1", "http://h:1/", "gfs://h:1/a/../b", "gfs://,/"])
def test_sources_that_make_no_sense(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_source(text)


def test_options() -> None:
    options = parse_options(("allow_other,ro", "deadline=10,_netdev,nosuid,x-systemd.automount,config=/c.toml"))
    assert options.allow_other
    assert options.read_only
    assert options.deadline_seconds == 10
    assert options.kernel == {"nosuid"}
    assert options.config_file == "/c.toml"
    assert parse_options(()).deadline_seconds == DEADLINE_SECONDS
    assert parse_options(("supervise",)).supervise
    assert parse_options(("metrics=9700",)).metrics_port == 9700


@pytest.mark.parametrize(
    "text",
    [
        "bogus",
        "deadline=soon",
        "deadline=0",
        "deadline=1e9",
        "config=",
        "metrics=",
        "metrics=0",
        "metrics=65536",
        "metrics=a",
    ],
)
def test_options_that_make_no_sense(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_options((text,))


def test_the_arguments_of_mount_8() -> None:
    given_arguments = ["gfs://h:1/", "/mnt", "-sn", "-t", "gfs", "-o", "rw,_netdev"]
    assert arguments(given_arguments) == ["mount", "-o", "rw,_netdev", "--", "gfs://h:1/", "/mnt"]


@pytest.mark.parametrize(("flag", "expected"), [("-f", True), ("-vf", True), ("-v", False), ("-oconfig=/f", False)])
def test_mount_8_may_ask_for_nothing_but_the_looks(flag: str, expected: bool) -> None:
    assert is_fake(["gfs://h:1/f", "/mnt/f", flag, "-o", "rw,nofail", "-t", "gfs"]) is expected


def test_the_groups_of_a_caller() -> None:
    callers = Callers()
    assert callers.user(0, 0, os.getpid()) == (0, 0)
    assert callers.user(1000, 5, 0) == (1000, 5), "a process that is not seen has no groups"


def test_the_groups_are_those_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "17").mkdir()
    status = tmp_path / "17" / "status"
    status.write_text("Name:\tx\nGid:\t5\t5\t5\t5\nGroups:\t5 7 9 \nNStgid:\t1\n")
    callers = Callers(tmp_path)
    assert callers.user(1000, 5, 17) == (1000, 5, 7, 9)
    status.unlink()
    assert callers.user(1000, 5, 17) == (1000, 5)


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 50)), max_size=2 * RANGES_MAX))
def test_ranges_cover_at_least_what_was_added(pieces: list[tuple[int, int]]) -> None:
    ranges, bytes_added = Ranges(), set[int]()
    for start, length in pieces:
        ranges.add(start, start + length)
        bytes_added.update(range(start, start + length))
        assert all(ranges.overlap(byte, byte + 1) for byte in (start, start + length - 1))
    assert bool(ranges) == bool(pieces)
    for byte in range(0, 560, 7):
        if byte in bytes_added:
            assert ranges.overlap(byte, byte + 1)
        elif len(pieces) <= RANGES_MAX:
            assert not ranges.overlap(byte, byte + 1)
    ranges.clear()
    assert not ranges
