"""What gfs up keeps, and how it finds its processes again."""

import os
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsclient.config import load_config
from gfscluster import current, layout, processes
from gfscluster.layout import Layout
from gfscluster.shape import Shape
from gfsmaster.config import MasterConfig
from gfsprotocol.errors import ConfigurationError
from gfsprotocol.settings import load, read_secret
from gfsprotocol.tokens import client_key

SHAPE = Shape(masters=2, chunkservers=3, port_base=9400, replication=3)


def test_a_new_cluster_can_be_read_back(tmp_path: Path) -> None:
    place = Layout(tmp_path / "d")
    layout.create(place, SHAPE)
    assert layout.read_shape(place) == SHAPE
    layout.mark_begun(place, SHAPE)
    assert layout.read_shape(place) == replace(SHAPE, begun=True)


def test_the_written_settings_are_valid_for_every_process(tmp_path: Path) -> None:
    place = Layout(tmp_path / 'odd "name" with spaces\\and%20so on')
    layout.create(place, SHAPE)
    for name in SHAPE.master_names:
        config = load(MasterConfig, place.config_file(name))
        assert config.masters == ["127.0.0.1:9400", "127.0.0.1:9401"]
        assert config.journal == f"sqlite:///{place.directory}/journal.sqlite"
        assert not config.genesis
    client = load_config(place.client_file)
    assert client.key_bytes == client_key(read_secret(place.secret_file))


def test_secrets_are_for_the_owner_only(tmp_path: Path) -> None:
    place = Layout(tmp_path / "d")
    layout.create(place, SHAPE)
    for file in (place.secret_file, place.client_file):
        assert file.stat().st_mode & 0o077 == 0
    secret = place.secret_file.read_text().strip()
    others = [file for file in place.directory.rglob("*") if file.is_file() and file != place.secret_file]
    assert not any(secret in file.read_text() for file in others)


def test_a_directory_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigurationError, match=r"thesis\.tex"):
        layout.create(Layout(tmp_path), SHAPE)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["a\nb", "what?", "b\udcff"])
def test_a_directory_whose_name_cannot_stand_in_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot hold a cluster"):
        layout.create(Layout(tmp_path / name), SHAPE)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"masters": 0}, "--masters 0"),
        ({"chunkservers": 0}, "--chunkservers 0"),
        ({"chunkservers": 101}, "--chunkservers 101"),
        ({"replication": 4}, "needs as many chunk servers"),
        ({"port_base": 65500}, "--port-base 65500"),
        ({"port_base": 0}, "--port-base 0"),
    ],
)
def test_an_impossible_shape_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        replace(SHAPE, **change).check()


@given(masters=st.integers(1, 9), chunkservers=st.integers(1, 100))
def test_no_two_processes_share_a_port(masters: int, chunkservers: int) -> None:
    shape = Shape(masters, chunkservers, 9400, 1)
    shape.check()
    ports = [port for _, port in shape.addresses.values()]
    assert len(set(ports)) == masters + chunkservers


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    place = Layout(tmp_path)
    place.run_directory.mkdir()
    return place


def record_of(process: "subprocess.Popen[bytes]", name: str = "chunkserver-1") -> processes.Record:
    return processes.observe(name, process.pid)


def test_a_recorded_process_is_found_and_ended(place: Layout) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        record = record_of(process)
        assert processes.is_running(record)
        assert processes.stop(place, [record]) == []
        assert not processes.is_running(record)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.slow
def test_a_process_that_does_not_stop_is_killed(place: Layout) -> None:
    deaf = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        record = record_of(process)
        assert processes.stop(place, [record], stop_seconds=0.1) == [record]
    assert process.returncode == -signal.SIGKILL


def test_a_stranger_with_the_same_number_is_left_alone(place: Layout) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        stranger = replace(record_of(process), start_ticks=record_of(process).start_ticks - 1)
        other_boot = replace(record_of(process), boot="another")
        for record in (stranger, other_boot):
            assert not processes.is_running(record)
            assert processes.stop(place, [record]) == []
        assert process.poll() is None
        process.kill()


def test_the_current_cluster_is_the_last_one_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("GFS_CONFIG", raising=False)
    first, second = Layout(tmp_path / "1"), Layout(tmp_path / "2")
    for each in (first, second):
        layout.create(each, SHAPE)
        current.point_to(each)
    assert load_config() == load_config(second.client_file)
    current.forget(first)
    assert current.client_file() == second.client_file
    current.forget(second)
    assert current.client_file() is None


def test_toml_survives_any_directory_name(tmp_path: Path) -> None:
    name = tmp_path / "ünï 'q' \"q\" \\ # = é"
    layout.create(Layout(name), SHAPE)
    values = tomllib.loads(Layout(name).config_file("chunkserver-1").read_text())
    assert values["directories"] == [os.path.join(name, "chunkserver-1", "disk-1")]
