"""The way to PostgreSQL by TLS, and what is said where it is not possible."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gfsmaster.oplog import GENESIS_HASH, OperationLog
from gfsprotocol.errors import LogFailed
from tests import certificates, conftest, postgresql
from tests.certificates import Authority
from tests.journals import execute
from tests.master.test_oplog import Writer, lead
from tests.postgresql import PASSWORD, REQUIRED, Server

TlsServer = Callable[[str], tuple[Server, Authority]]


@pytest.fixture
def tls_server(own_postgresql: Callable[[], Server], tmp_path: Path) -> Iterator[TlsServer]:
    """Starts a server whose certificate has the given names."""

    def start(names: str) -> tuple[Server, Authority]:
        if not certificates.is_possible():
            conftest.do_without(certificates.MISSING)
        authority = Authority(tmp_path / "authority")
        server = own_postgresql()
        server.create()
        server.use_certificate(*authority.issue(names))
        server.start()
        return server, authority

    yield start


def refusal(url: str) -> str:
    """What a master says, in one line and without the password, when it cannot use the journal."""
    log = OperationLog(url, "one")
    with pytest.raises(LogFailed) as caught:
        log.prepare(genesis=True)
    log.close()
    said = str(caught.value)
    assert "\n" not in said
    assert PASSWORD not in said
    return said


@pytest.mark.slow
def test_a_log_by_tls_with_the_server_verified(tls_server: TlsServer) -> None:
    server, authority = tls_server("IP:127.0.0.1,DNS:localhost")
    url = f"{server.url('postgres')}?sslmode=verify-full&sslrootcert={authority.certificate}"
    log = OperationLog(url, "one")
    assert log.prepare(genesis=True)
    writer = Writer(log)
    batch = writer.append(lead(log))
    assert log.read(0, GENESIS_HASH) == [batch]
    name = log.leadership().process
    sessions = "FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE application_name = :name"
    assert {row.ssl for row in execute(url, f"SELECT ssl {sessions}", name=name)} == {True}
    log.close()


@pytest.mark.slow
def test_a_server_that_cannot_be_trusted_is_refused_in_one_line(tls_server: TlsServer, tmp_path: Path) -> None:
    server, authority = tls_server("DNS:elsewhere.example")
    stranger = Authority(tmp_path / "stranger")
    url = f"{server.url('postgres')}?sslmode=verify-full&sslrootcert="
    assert "certificate verify failed" in refusal(f"{url}{stranger.certificate}")
    assert 'for "elsewhere.example" ' in refusal(f"{url}{authority.certificate}")
    assert "does not match host name" in refusal(f"{url}{authority.certificate}")
    assert "does not exist" in refusal(f"{url}{tmp_path / 'nothing.pem'}")
    assert "no encryption" in refusal(f"{server.url('postgres')}?sslmode=disable")


def test_a_server_without_tls_is_refused_in_one_line_where_tls_is_asked_for(postgresql: Server) -> None:
    said = refusal(f"{postgresql.url('postgres')}?sslmode=require")
    assert said.endswith("server does not support SSL, but SSL was required")


def test_an_unknown_sslmode_is_one_line(postgresql: Server) -> None:
    assert 'invalid sslmode value: "sometimes"' in refusal(f"{postgresql.url('postgres')}?sslmode=sometimes")


@pytest.mark.parametrize("missing", [postgresql.MISSING, certificates.MISSING])
def test_without_the_programs_a_test_is_skipped_and_says_why_or_fails_where_they_are_needed(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REQUIRED, "")
    with pytest.raises(pytest.skip.Exception) as skipped:
        conftest.do_without(missing)
    assert str(skipped.value) == missing
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception) as failed:
        conftest.do_without(missing)
    assert str(failed.value) == f"{missing}, and {REQUIRED} is set"


def test_missing_programs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "")
    monkeypatch.setattr(postgresql, "find_programs", lambda: None)
    with pytest.raises(pytest.skip.Exception, match="no PostgreSQL server is installed"):
        conftest.postgresql_programs()
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not certificates.is_possible()
