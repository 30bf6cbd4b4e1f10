"""The command line on a running cluster: every command, as a person would use it."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from gfsprotocol.errors import (
    AlreadyExists,
    DirectoryNotEmpty,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotFound,
    NotPermitted,
)
from tests.cluster.conftest import Result
from tests.house.documentation import documented_fields

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
Call = Callable[..., Result]


@pytest.fixture
def home(call: Call, request: pytest.FixtureRequest) -> str:
    """A directory of the test's own."""
    path = f"/{request.node.name[:100]}"
    assert call("mkdir", path) == (0, b"", "")
    return path


def tree_of(directory: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def names(result: Result) -> list[str]:
    assert result.code == 0, result.err
    return os.fsdecode(result.out).splitlines()


# --------------------------------------------------------------------------------------------------------- in and out


def test_put_makes_missing_directories_once_it_knows_its_source(call: Callable[..., Result], tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"content")
    assert call("put", str(tmp_path / "missing"), "/not/made").code == 4
    assert call("ls", "/not").code == 4
    assert call("put", str(source), "/made/on/the way").code == 0
    assert call("cat", "/made/on/the way").out == b"content"
    assert call("put", "-", "/made/too/file", input=b"piped").code == 0
    assert call("cat", "/made/too/file").out == b"piped"
    below = call("put", str(source), "/made/too/file/below")
    assert below.code == 6
    assert "not a directory" in below.err


def test_a_file_goes_in_and_comes_out(call: Call, home: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "in").write_bytes(data)
    assert call("put", str(tmp_path / "in"), f"{home}/f") == (0, b"", "")
    assert call("get", f"{home}/f", str(tmp_path / "out")) == (0, b"", "")
    assert (tmp_path / "out").read_bytes() == data
    assert call("cat", f"{home}/f").out == data
    assert call("checksum", f"{home}/f").out.decode() == f"{blake3(data).hexdigest()}  {home}/f\n"


def test_standard_input_and_output(call: Call, home: str) -> None:
    assert call("put", "-", f"{home}/f", input=b"through a pipe").code == 0
    assert call("get", f"{home}/f", "-").out == b"through a pipe"


def test_a_directory_goes_in_and_comes_out(call: Call, home: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / "a" / "b").mkdir(parents=True)
    for number in range(30):
        (source / "a" / f"{number}").write_bytes(os.urandom(number * 100))
    (source / "a" / "b" / os.fsdecode(b"\xff\n")).write_bytes(b"odd name")
    (source / "link").symlink_to("a/b")
    (source / "dangling").symlink_to("/nowhere")

    assert call("put", "-r", str(source), home).code == 0
    assert call("get", "-r", f"{home}/source", str(tmp_path / "back")).code == 0

    assert tree_of(tmp_path / "back") == tree_of(source)


def test_what_exists_is_not_replaced_unless_forced(call: Call, home: str, tmp_path: Path) -> None:
    local = tmp_path / "f"
    local.write_bytes(b"new")
    call("put", "-", f"{home}/f", input=b"old")
    refused = call("put", str(local), f"{home}/f")
    assert refused.code == AlreadyExists.exit_code
    assert refused.err.count("\n") == 1
    assert call("get", f"{home}/f", str(local)).code == AlreadyExists.exit_code
    assert local.read_bytes() == b"new"
    assert call("put", "-f", str(local), f"{home}/f").code == 0
    assert call("cat", f"{home}/f").out == b"new"
    assert call("get", "-f", f"{home}/f", str(local)).code == 0


def test_several_sources_need_a_directory(call: Call, home: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert call("put", *paths, f"{home}/new").code == NotADirectory.exit_code
    assert call("put", *paths, home).code == 0
    assert names(call("ls", home)) == ["a", "b"]
    assert call("get", f"{home}/a", f"{home}/b", str(tmp_path / "new")).code == NotADirectory.exit_code


def test_a_failed_source_does_not_hold_up_the_others(call: Call, home: str, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("b")
    done = call("put", str(tmp_path / "none"), str(tmp_path / "b"), home)
    assert done.code == NotFound.exit_code
    assert done.err == f"gfsclient: {tmp_path}/none: No such file or directory\n"
    assert names(call("ls", home)) == ["b"]


def test_a_failed_download_leaves_nothing(call: Call, home: str, tmp_path: Path) -> None:
    assert call("get", f"{home}/none", str(tmp_path / "x")).code == NotFound.exit_code
    assert list(tmp_path.iterdir()) == []
    assert call("get", home, str(tmp_path / "x")).code == IsADirectory.exit_code


# ------------------------------------------------------------------------------------------------------------- looking


def test_listings(call: Call, home: str) -> None:
    for name in ("b", "a", ".hidden"):
        call("put", "-", f"{home}/{name}", input=b"12345")
    call("mkdir", f"{home}/d")
    call("ln", "-s", "a", f"{home}/l")
    call("touch", f"{home}/d/x")
    assert names(call("ls", home)) == ["a", "b", "d", "l"]
    assert names(call("ls", "-a", home)) == [".hidden", "a", "b", "d", "l"]
    assert names(call("ls", "-d", home)) == [home]
    assert names(call("ls", f"{home}/a")) == [f"{home}/a"]
    assert names(call("ls", "-R", home)) == [f"{home}:", "a", "b", "d", "l", "", f"{home}/d:", "x"]
    long = names(call("ls", "-l", home))
    assert long[0].startswith("-rw") and long[0].endswith(" a")
    assert long[2].startswith("drwx")
    assert long[3].startswith("l") and long[3].endswith(" l -> a")
    assert names(call("tree", home))[:4] == [home, "├── a", "├── b", "├── d/"]
    assert names(call("tree", home))[-1] == "1 directories, 4 files"


def test_json_has_the_documented_fields(call: Call, home: str) -> None:
    call("put", "-", f"{home}/f", input=b"12345")
    call("ln", "-s", "f", f"{home}/l")
    for arguments, page in (
        (("ls", "--json", f"{home}/f"), "gfsclient ls"),
        (("stat", "--json", f"{home}/l"), "gfsclient ls"),
        (("find", "--json", home), "gfsclient ls"),
        (("du", "--json", home), "gfsclient du"),
        (("df", "--json"), "gfsclient df"),
        (("checksum", "--json", f"{home}/f"), "gfsclient checksum"),
    ):
        result = call(*arguments)
        assert result.code == 0, result.err
        for text in result.out.splitlines():
            fields = list(json.loads(text))
            assert [*fields, *documented_fields(page)[len(fields) :]] == documented_fields(page)
    link = json.loads(call("stat", "--json", f"{home}/l").out)
    assert (link["type"], link["target"]) == ("symlink", "f")
    file = json.loads(call("stat", "-L", "--json", f"{home}/l").out)
    assert (file["type"], file["size"]) == ("file", 5)


def test_several_paths_go_on_after_an_error(call: Call, home: str) -> None:
    call("touch", f"{home}/a")
    done = call("stat", f"{home}/none", f"{home}/a")
    assert done.code == NotFound.exit_code
    assert f"{home}/a".encode() in done.out
    assert done.err.startswith("gfsclient: ") and f"{home}/none" in done.err and done.err.count("\n") == 1


def test_head_and_tail(call: Call, home: str) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(100))
    call("put", "-", f"{home}/f", input=lines)
    whole = lines.splitlines(keepends=True)
    assert call("head", f"{home}/f").out == b"".join(whole[:10])
    assert call("head", "-n", "3", f"{home}/f").out == b"".join(whole[:3])
    assert call("head", "-c", "5", f"{home}/f").out == lines[:5]
    assert call("tail", f"{home}/f").out == b"".join(whole[-10:])
    assert call("tail", "-n", "200", f"{home}/f").out == lines
    assert call("tail", "-c", "5", f"{home}/f").out == lines[-5:]
    assert call("tail", "-n", "0", f"{home}/f").out == b""
    call("put", "-", f"{home}/g", input=b"a\nb")
    assert call("tail", "-n", "1", f"{home}/g").out == b"b"
    assert call("head", "-n", "1", f"{home}/f", f"{home}/g").out.count(b"==>") == 2


def test_find(call: Call, home: str) -> None:
    call("mkdir", "-p", f"{home}/d/e")
    call("put", "-", f"{home}/d/big", input=b"x" * 5000)
    call("touch", f"{home}/d/e/small.txt")
    assert names(call("find", home, "-name", "*.txt")) == [f"{home}/d/e/small.txt"]
    assert names(call("find", home, "-type", "d")) == [home, f"{home}/d", f"{home}/d/e"]
    assert names(call("find", home, "-size", "+4k")) == [f"{home}/d/big"]
    assert names(call("find", home, "-size", "-1k", "-type", "f")) == [f"{home}/d/e/small.txt"]
    assert names(call("find", home, "-empty")) == [f"{home}/d/e/small.txt"]
    assert names(call("find", home, "-maxdepth", "1", "-mindepth", "1")) == [f"{home}/d"]
    assert names(call("find", home, "-newer", f"{home}/d/big", "-type", "f")) == [f"{home}/d/e/small.txt"]
    assert names(call("find", home, "-mtime", "-1", "-name", "big")) == [f"{home}/d/big"]
    assert call("find", home, "-name", "big", "-print0").out == f"{home}/d/big\0".encode()


def test_du_and_df(call: Call, home: str) -> None:
    call("mkdir", f"{home}/d")
    call("put", "-", f"{home}/d/f", input=b"x" * 1000)
    assert call("du", "-s", home).out.split()[-3:] == [b"1000", b"2000", home.encode()]
    assert call("du", home).out.split()[-1] == f"{home}/d".encode()
    assert b"SIZE" in call("df", "-h").out


# ------------------------------------------------------------------------------------------------------------ changing


def test_directories(call: Call, home: str) -> None:
    assert call("mkdir", f"{home}/a/b").code == NotFound.exit_code
    assert call("mkdir", "-p", f"{home}/a/b").code == 0
    assert call("mkdir", f"{home}/a").code == AlreadyExists.exit_code
    assert call("mkdir", "-p", f"{home}/a").code == 0
    assert call("rmdir", f"{home}/a").code == DirectoryNotEmpty.exit_code
    assert call("rmdir", f"{home}/a/b", f"{home}/a").code == 0
    call("mkdir", "-m", "700", f"{home}/private")
    assert json.loads(call("stat", "--json", f"{home}/private").out)["mode"] == "0700"


def test_moving_and_linking(call: Call, home: str) -> None:
    call("put", "-", f"{home}/a", input=b"a")
    call("put", "-", f"{home}/b", input=b"b")
    assert call("mv", "-n", f"{home}/a", f"{home}/b").code == AlreadyExists.exit_code
    assert call("mv", f"{home}/a", f"{home}/b").code == 0
    assert call("cat", f"{home}/b").out == b"a"
    call("mkdir", f"{home}/d")
    assert call("mv", f"{home}/b", f"{home}/d").code == 0
    assert call("ln", f"{home}/d/b", f"{home}/second").code == 0
    assert json.loads(call("stat", "--json", f"{home}/second").out)["links"] == 2
    assert call("mv", f"{home}/second", f"{home}/d/b", f"{home}/nothing").code == NotADirectory.exit_code


def test_copying_inside(call: Call, home: str) -> None:
    call("mkdir", f"{home}/d")
    data = os.urandom(60_000)
    call("put", "-", f"{home}/d/f", input=data)
    call("ln", "-s", "f", f"{home}/d/l")
    call("chmod", "640", f"{home}/d/f")
    assert call("cp", f"{home}/d", f"{home}/e").code == IsADirectory.exit_code
    assert call("cp", "-r", f"{home}/d", f"{home}/e").code == 0
    assert call("cat", f"{home}/e/f").out == data
    assert json.loads(call("stat", "--json", f"{home}/e/f").out)["mode"] == "0640"
    assert json.loads(call("stat", "--json", f"{home}/e/l").out)["target"] == "f"
    assert call("cp", f"{home}/d/f", f"{home}/e").code == AlreadyExists.exit_code
    assert call("cp", "-f", f"{home}/d/f", f"{home}/e").code == 0
    assert call("cp", "-f", f"{home}/d/f", f"{home}/d/f").code == InvalidArgument.exit_code
    assert call("cp", "-r", f"{home}/d", f"{home}/d/inside").code == InvalidArgument.exit_code
    assert names(call("ls", "-a", f"{home}/e")) == ["f", "l"]


def test_attributes(call: Call, home: str) -> None:
    call("touch", f"{home}/f")

    def attributes() -> dict[str, object]:
        value: dict[str, object] = json.loads(call("stat", "--json", f"{home}/f").out)
        return value

    assert call("chmod", "u=rwx,g=r,o=", f"{home}/f").code == 0
    assert attributes()["mode"] == "0740"
    assert call("chmod", "-w", f"{home}/f").code == 0
    assert call("chown", "1234:5678", f"{home}/f").code == 0
    assert (attributes()["uid"], attributes()["gid"]) == (1234, 5678)
    assert call("chown", "-R", ":0", home).code == 0
    assert (attributes()["uid"], attributes()["gid"]) == (1234, 0)
    assert call("chmod", "-R", "700", home).code == 0
    assert attributes()["mode"] == "0700"
    assert call("setrep", "1", f"{home}/f").code == 0
    assert attributes()["replication"] == 1
    before = attributes()["modified_ns"]
    assert call("touch", f"{home}/f").code == 0
    assert attributes()["modified_ns"] != before
    assert call("touch", "-c", f"{home}/none").code == 0
    assert names(call("ls", home)) == ["f"]


def test_sizes(call: Call, home: str) -> None:
    call("put", "-", f"{home}/f", input=b"0123456789")
    assert call("truncate", "-s", "4", f"{home}/f").code == 0
    assert call("cat", f"{home}/f").out == b"0123"
    assert call("truncate", "-s", "+2", f"{home}/f").code == 0
    assert call("cat", f"{home}/f").out == b"0123\0\0"
    assert call("truncate", "-s", "-5", f"{home}/f").code == 0
    assert call("append", f"{home}/f", input=b"abc").code == 0
    assert call("cat", f"{home}/f").out == b"0abc"


def test_records(call: Call, home: str) -> None:
    assert call("append", "--record", f"{home}/log", input=b"x").code == NotFound.exit_code
    assert call("append", "--record", "--create", f"{home}/log", input=b"first\n").code == 0
    done = call("append", "--lines", "--json", f"{home}/log", input=b"second\nthird\n")
    answers = [json.loads(text) for text in done.out.splitlines()]
    assert [list(answer) for answer in answers] == [documented_fields("gfsclient append")] * 2
    assert [answer["offset"] for answer in answers] == [6, 13]
    assert call("cat", f"{home}/log").out == b"first\nsecond\nthird\n"


def test_the_trash_gives_back(call: Call, home: str) -> None:
    call("mkdir", f"{home}/d")
    call("put", "-", f"{home}/d/f", input=b"precious")
    assert call("rm", f"{home}/d").code == IsADirectory.exit_code
    assert call("rm", "-r", f"{home}/d").code == 0
    assert names(call("ls", home)) == []
    entries = [json.loads(text) for text in call("trash", "list", "--json").out.splitlines()]
    assert list(entries[0]) == documented_fields("gfsclient trash list")
    (entry,) = [entry for entry in entries if entry["path"] == f"{home}/d"]
    assert call("trash", "restore", str(entry["id"])).code == 0
    assert call("cat", f"{home}/d/f").out == b"precious"
    call("rm", f"{home}/d/f")
    assert call("trash", "empty").code == 0
    assert call("trash", "list").out == b""


def test_removing_for_good(call: Call, home: str) -> None:
    call("mkdir", "-p", f"{home}/d/e")
    assert call("rm", "--skip-trash", "-r", f"{home}/d").code == 0
    assert names(call("ls", home)) == []
    assert call("rm", f"{home}/d").code == NotFound.exit_code
    assert call("rm", "-f", f"{home}/d").code == 0
    assert call("rm", "-rf", "/").code == NotPermitted.exit_code


def test_a_copy_into_itself_by_way_of_a_link_ends(call: Call, home: str) -> None:
    call("mkdir", "-p", f"{home}/d/e")
    call("put", "-", f"{home}/d/f", input=b"x")
    call("ln", "-s", f"{home}/d", f"{home}/link")
    done = call("cp", "-r", f"{home}/d", f"{home}/link")
    assert done.code == InvalidArgument.exit_code
    assert done.err.count("\n") == 1
    assert "into itself" in done.err
    assert len(names(call("find", home))) < 10


def test_a_forced_copy_replaces_links_too(call: Call, home: str) -> None:
    call("mkdir", "-p", f"{home}/d", f"{home}/e/d")
    call("ln", "-s", "new", f"{home}/d/l")
    call("ln", "-s", "old", f"{home}/e/d/l")
    assert call("cp", "-r", f"{home}/d", f"{home}/e").code == AlreadyExists.exit_code
    assert call("cp", "-rf", f"{home}/d", f"{home}/e").code == 0
    assert json.loads(call("stat", "--json", f"{home}/e/d/l").out)["target"] == "new"


@pytest.mark.parametrize("name", ["n" * 255, "\N{PILE OF POO}" * 63, "\N{CJK UNIFIED IDEOGRAPH-6587}" * 85])
def test_the_longest_names_can_be_copied(call: Call, home: str, tmp_path: Path, name: str) -> None:
    name = name[:200] if len(name) > 200 else name
    assert call("put", "-", f"{home}/{name}", input=b"x").code == 0
    assert call("get", f"{home}/{name}", str(tmp_path)).err == ""
    assert (tmp_path / name).read_bytes() == b"x"
    assert call("put", "-f", str(tmp_path / name), home).err == ""
    assert call("cp", "-f", f"{home}/{name}", f"{home}/{name[:-1]}y").err == ""


def test_a_link_that_is_put_keeps_its_own_name(call: Call, home: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "data-1").write_bytes(b"x")
    (tmp_path / "current").symlink_to("data-1")
    assert call("put", str(tmp_path / "current"), home).code == 0
    assert names(call("ls", home)) == ["current"]
    monkeypatch.chdir(tmp_path)
    assert call("put", "-r", ".", home).code == 0
    assert names(call("ls", f"{home}/{tmp_path.name}")) == ["current", "data-1"]


def test_directories_without_write_permission_are_copied_by_their_owner(
    call: Call, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_bytes(b"x")
    (tmp_path / "d" / "e").chmod(0o555)
    (tmp_path / "d").chmod(0o555)
    call("chmod", "777", home)
    monkeypatch.setattr("gfsclient.filesystem.process_user", lambda: (1000, 1000))
    assert call("put", "-r", str(tmp_path / "d"), home).err == ""
    assert call("cp", "-r", f"{home}/d", f"{home}/copy").err == ""
    for place in ("d", "d/e", "copy", "copy/e"):
        assert json.loads(call("stat", "--json", f"{home}/{place}").out)["mode"] == "0555"
    assert call("cat", f"{home}/copy/e/f").out == b"x"
    (tmp_path / "d").chmod(0o755)
    (tmp_path / "d" / "e").chmod(0o755)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "arguments",
    [
        ("truncate", "-s", "99999999999T"),
        ("truncate", "-s", "9" * 5000),
        ("truncate", "-s", "-" + "9" * 5000),
        ("head", "-c", "9" * 5000),
        ("chown", "9" * 20),
        ("chown", "9" * 5000),
        ("rm", "--keep-seconds", "9" * 20),
        ("rm", "--keep-seconds", str(2**62)),
        ("find", "-size", "+" + "9" * 5000),
        ("find", "-mtime", "9" * 5000),
        ("find", "-user", "9" * 5000),
        ("trash", "restore", "9" * 20),
        ("trash", "empty", "9" * 20),
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_a_number_beyond_all_limits_is_one_line(call: Call, home: str, arguments: tuple[str, ...]) -> None:
    call("touch", f"{home}/f")
    path = () if arguments[0] == "trash" else (f"{home}/f",)
    done = (
        call("--deadline", "5", *arguments[:1], *path, *arguments[1:])
        if arguments[0] == "find"
        else call("--deadline", "5", *arguments, *path)
    )
    assert done.code in (0, 2, InvalidArgument.exit_code, FileTooLarge.exit_code, NotFound.exit_code), done.err
    assert "Traceback" not in done.err
    assert done.code in (0, 2) or done.err.count("\n") == 1
    assert names(call("ls", home)) == ["f"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("relative", InvalidArgument.exit_code),
        ("", InvalidArgument.exit_code),
        ("/" + "x" * 256, NameTooLong.exit_code),
        ("/" + "/".join(["x" * 99] * 50), NameTooLong.exit_code),
        ("/no/such/file", NotFound.exit_code),
    ],
)
def test_a_bad_path_is_one_line_and_changes_nothing(call: Call, path: str, code: int) -> None:
    for command in (("stat",), ("cat",), ("touch",), ("mkdir",), ("rm",), ("checksum",), ("truncate", "-s", "1")):
        done = call(*command, path)
        assert done.code == code, (command, done)
        assert done.err.count("\n") == 1 and done.err.startswith("gfsclient: ")


def test_a_tree_of_any_depth_is_walked(call: Call, tmp_path: Path) -> None:
    deep = "/t" + "/d" * 1100
    assert call("mkdir", "-p", deep).code == 0
    for arguments in (
        ("find", "/t"),
        ("chmod", "-R", "700", "/t"),
        ("du", "-s", "/t"),
        ("ls", "-R", "/t"),
        ("tree", "/t"),
        ("cp", "-r", "/t", "/u"),
        ("get", "-r", "/t", str(tmp_path / "t")),
        ("put", "-r", str(tmp_path / "t"), "/v"),
        ("rm", "-r", "/t", "/u", "/v"),
    ):
        done = call(*arguments)
        assert (done.code, done.err) == (0, ""), arguments
    subprocess.run(["rm", "-rf", tmp_path / "t"], check=True)  # pytest's own way is a recursion


def test_a_name_that_is_no_text_survives(call: Call, home: str) -> None:
    name = os.fsdecode(b"\xff\xfe \x1b[31m\n")
    assert call("put", "-", f"{home}/{name}", input=b"x").code == 0
    assert call("ls", home).out == os.fsencode(name) + b"\n"
    assert json.loads(call("ls", "--json", home).out)["path"] == f"{home}/{name}"
    assert call("cat", f"{home}/{name}").out == b"x"
    refused = call("mkdir", f"{home}/{name}")
    assert refused.err.count("\n") == 1 and "\x1b" not in refused.err


def test_modes_of_files_follow_the_umask(call: Call, home: str) -> None:
    before = os.umask(0o027)
    try:
        call("put", "-", f"{home}/f", input=b"x")
        call("mkdir", f"{home}/d")
        call("touch", f"{home}/t")
    finally:
        os.umask(before)
    modes = [json.loads(text)["mode"] for text in call("ls", "--json", home).out.splitlines()]
    assert modes == ["0750", "0640", "0640"]
