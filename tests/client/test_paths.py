"""Paths, users and settings: what people write is understood, or refused in one line."""

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsclient import paths
from gfsclient.config import ClientConfig, find_config, load_config
from gfsclient.user import checked, process_user
from gfsprotocol.errors import ConfigurationError, InvalidArgument, NameTooLong


@pytest.mark.parametrize(
    ("given_path", "expected"),
    [
        ("/", b"/"),
        ("//", b"/"),
        ("/a//b", b"/a/b"),
        ("/a/./b", b"/a/b"),
        ("/a/../b", b"/a/../b"),
        ("/a/", b"/a/"),
        ("/ä", "/ä".encode()),
        (b"/\xff", b"/\xff"),
        ("/\udcff", b"/\xff"),
        (PurePosixPath("/a/b"), b"/a/b"),
    ],
)
def test_paths_become_bytes(given_path, expected):
    assert paths.to_bytes(given_path) == expected


@pytest.mark.parametrize("path", ["", "a", "./a", "a/b", "/a\0b", b"/\0"])
def test_a_path_that_cannot_be_is_refused(path):
    with pytest.raises(InvalidArgument):
        paths.to_bytes(path)


@pytest.mark.parametrize("path", ["/" + "x" * 256, "/" + "ä" * 128, "/x" * 2049, "/" * 5000])
def test_a_path_that_is_too_long_is_refused_before_a_master_is_asked(path):
    with pytest.raises(NameTooLong):
        paths.to_bytes(path)


@given(st.lists(st.binary(min_size=1, max_size=255).filter(lambda n: not set(n) & {0, 47}), max_size=8))
def test_any_name_survives_the_way_to_text_and_back(names):
    path = b"/" + b"/".join(names)
    assert paths.to_bytes(paths.to_text(path)) == paths.to_bytes(path)


def test_parents_and_children():
    assert paths.parent(b"/a") == b"/"
    assert paths.parent(b"/a/b") == b"/a"
    assert paths.join(b"/", b"a") == b"/a"
    assert paths.join(b"/a", b"b") == b"/a/b"
    for path in (b"/", b"/a/.."):
        with pytest.raises(InvalidArgument):
            paths.parent(path)


@pytest.mark.parametrize("target", ["", "a\0b"])
def test_an_impossible_link_target_is_refused(target):
    with pytest.raises(InvalidArgument):
        paths.target_bytes(target)


def test_a_relative_link_target_is_kept_as_it_is():
    assert paths.target_bytes("../a//b") == b"../a//b"
    with pytest.raises(NameTooLong):
        paths.target_bytes("x" * 4096)


def test_the_process_user_is_the_process_user():
    assert process_user()[:2] == (os.geteuid(), os.getegid())
    assert checked((1, 2, 3)) == (1, 2, 3)
    for impossible in ((), (1,), (-1, 0), (0, 2**32)):
        with pytest.raises(InvalidArgument):
            checked(impossible)


# ------------------------------------------------------------------------------------------------------------ settings

GOOD = 'masters = ["h:1", "i:2"]\nkey = "00ff"\n'


@pytest.fixture
def home(tmp_path, monkeypatch):
    for variable in [name for name in os.environ if name.startswith("GFS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_configuration_is_looked_for_from_the_nearest_to_the_farthest(home, monkeypatch):
    last = write(home / "cluster" / "client.toml", GOOD)
    write(home / "state" / "gfs" / "current", f"{last}\n")
    assert find_config() == last
    own = write(home / "config" / "gfs" / "client.toml", GOOD)
    assert find_config() == own
    monkeypatch.setenv("GFS_CONFIG", str(home / "named.toml"))
    assert find_config() == home / "named.toml"
    assert find_config(home / "given.toml") == home / "given.toml"


def test_without_a_file_the_environment_may_have_all(home, monkeypatch):
    monkeypatch.setenv("GFS_CLIENT_MASTERS", '["h:1"]')
    monkeypatch.setenv("GFS_CLIENT_KEY", "00ff")
    assert load_config().masters == ["h:1"]
    assert load_config().key_bytes == b"\x00\xff"


def test_no_configuration_says_what_was_looked_for(home):
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    for part in ("GFS_CONFIG", str(home / "config/gfs/client.toml"), str(home / "state/gfs/current"), "gfs up"):
        assert part in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('key = "00"', "setting 'masters' is missing"),
        (GOOD + 'mastres = ["x"]', "unknown setting 'mastres'"),
        (GOOD + "deadline_seconds = 0", "deadline_seconds"),
        ('masters = ["h"]\nkey = "00"', "'h' is not host:port"),
        ('masters = ["h:1"]\nkey = "secret"', "not hexadecimal"),
        ("masters = [", "not valid TOML"),
    ],
)
def test_wrong_settings_are_named_with_their_file(home, text, complaint):
    file = write(home / "client.toml", text)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_config(file)
    assert str(file) in caught.value.message


def test_a_missing_file_is_named(home):
    with pytest.raises(ConfigurationError, match=r"cannot read .*nothing\.toml"):
        load_config(home / "nothing.toml")


def test_every_setting_is_described():
    assert all(field.description for field in ClientConfig.model_fields.values())
