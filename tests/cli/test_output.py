"""What is printed, and what a terminal is spared."""

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsclient.cli.output import OutputClosed, StandardOutput, json_line, line, shown, size_text, table
from gfsclient.cli.values import parse_size


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Kept(io.BytesIO):
    def close(self) -> None:
        """Stays readable when the text layer over it goes."""


def captured(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> io.BytesIO:
    raw = Kept()
    monkeypatch.setattr(sys, "stdout", (Terminal if terminal else io.TextIOWrapper)(raw, write_through=True))
    return raw


def test_a_name_cannot_move_the_cursor_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = captured(monkeypatch, terminal=True)
    line(shown("a\x1b[2Jb\nc\u202ed\udcff"))
    assert raw.getvalue() == b"a\\x1b[2Jb\\nc\\u202ed\\xff\n"


def test_a_name_goes_into_a_pipe_as_the_bytes_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = captured(monkeypatch, terminal=False)
    line(shown("a\x1b\n\udcff"))
    assert raw.getvalue() == b"a\x1b\n\xff\n"


@given(st.binary(max_size=40))
def test_json_gives_back_every_name(name: bytes) -> None:
    text = name.decode("utf-8", "surrogateescape")
    with pytest.MonkeyPatch.context() as patch:
        raw = captured(patch, terminal=False)
        json_line({"path": text})
    assert json.loads(raw.getvalue())["path"].encode("utf-8", "surrogateescape") == name
    assert raw.getvalue().count(b"\n") == 1


def test_tables_are_aligned_by_what_a_terminal_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = captured(monkeypatch, terminal=False)
    table([("1", "東京", "x"), ("100", "e\u0301", "y")], ("N", "NAME", "LAST"), right=(0,))
    assert raw.getvalue().decode() == "  N  NAME  LAST\n  1  東京  x\n100  e\u0301     y\n"


def test_a_reader_that_has_gone_is_no_error_of_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.RawIOBase):
        def write(self, _data: object) -> int:
            raise BrokenPipeError

    class Stdout:
        buffer = Gone()

    monkeypatch.setattr(sys, "stdout", Stdout())
    with pytest.raises(OutputClosed):
        StandardOutput().write(b"x")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("64K", 65536), ("64KiB", 65536), ("2m", 2 << 20), ("1G", 1 << 30), ("3b", 3)],
)
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5M", "1X", "1KK", "\u0661"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert parse_size(text) is None


def test_sizes_for_people() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 1536, 5 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "5.0 GiB",
    ]
