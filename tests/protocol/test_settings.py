"""Settings: flags over environment over file over defaults, and a mistake is one line that names it."""

from pathlib import Path

import pytest

from gfsmaster.config import MasterConfig
from gfsprotocol.errors import ConfigurationError
from gfsprotocol.settings import load, read_secret


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "master.toml"
    path.write_text('journal = "sqlite:////j"\nsecret_file = "/s"\nport = 1000\nnode = "file"\nlease_seconds = 3\n')
    return path


def test_the_nearer_source_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GFS_MASTER_PORT", "2000")
    monkeypatch.setenv("GFS_MASTER_NODE", "environment")
    config = load(MasterConfig, file, {"node": "flag", "replication": None})
    assert (config.node, config.port, config.lease_seconds, config.replication) == ("flag", 2000, 3.0, 3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 1\n", "unknown setting 'prot'"),
        ("port = 70000\n", "setting 'port'"),
        ("port = 'x'\n", "setting 'port'"),
        ("= 1\n", "not valid TOML"),
        ("log_level = 'loud'\n", "setting 'log_level': must be DEBUG, INFO, WARNING or ERROR"),
        ("masters = ['nonsense']\n", "'nonsense' is not host:port"),
        ("", "setting 'journal' is missing"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.toml"
    required = "" if not text else 'journal = "sqlite:////j"\nsecret_file = "/s"\n'
    path.write_text(required + text)
    with pytest.raises(ConfigurationError) as caught:
        load(MasterConfig, path)
    assert complaint in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        load(MasterConfig, tmp_path / "none.toml")


def test_a_secret_must_be_long_hexadecimal_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for text, mode, complaint in (
        ("ab" * 32, 0o644, "can be read by others"),
        ("ab", 0o600, "shorter than"),
        ("zz" * 32, 0o600, "not hexadecimal"),
    ):
        path.write_text(text)
        path.chmod(mode)
        with pytest.raises(ConfigurationError, match=complaint):
            read_secret(path)
    path.write_text("ab" * 32 + "\n")
    assert read_secret(path) == b"\xab" * 32
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_secret(tmp_path / "none")
