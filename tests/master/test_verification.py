"""``gfs log verify`` and ``gfs log dump``: they find what is wrong, name it, and change nothing."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gfscluster.__main__ import gfs
from gfsmaster import operations as op
from gfsmaster.databases import Access
from gfsmaster.oplog import Batch, OperationLog, chain
from gfsmaster.verification import verify
from gfsprotocol import messages as msg
from gfsprotocol.errors import ForeignStore, GfsError, LogDamaged, LogFailed, StateDiverged
from tests.master.test_checkpoints import History


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(f"sqlite:///{tmp_path / 'journal.sqlite'}")
    made.grow()
    yield made
    made.close()


def errors_of(history: History) -> list[GfsError]:
    log = OperationLog(history.url, "reader", Access.READ)
    try:
        log.check()
        return [finding.error for finding in verify(log) if finding.error is not None]
    finally:
        log.close()


def with_digest(history: History) -> None:
    history.machine.log((op.StateDigest(history.machine.state.digest()),))
    history.commit()


@pytest.mark.slow
def test_a_good_log_is_good_with_and_without_checkpoints(history: History) -> None:
    assert errors_of(history) == []
    for _ in range(4):
        with_digest(history)
        history.checkpoint()
        history.grow()
        assert errors_of(history) == []
    assert history.log.first() > 1


def test_a_corrupt_record_in_the_middle_is_named(history: History) -> None:
    history.grow()
    row = history.rows[2]
    history.sql("UPDATE log SET payload = ? WHERE first = ?", row.payload[:-1] + b"\x07", row.first)
    [error] = errors_of(history)
    assert isinstance(error, LogDamaged)
    assert f"records {row.first} to {row.last}" in error.message


def test_a_damaged_checkpoint_is_named_and_the_rest_still_looked_at(history: History) -> None:
    for _ in range(3):
        history.checkpoint()
        history.grow()
    newest = history.store.published()[0]
    history.sql("UPDATE checkpoint_part SET payload = x'00' WHERE attempt = ? AND number = 1", newest.attempt)
    row = history.rows[-1]
    history.sql("UPDATE log SET hash = zeroblob(32) WHERE first = ?", row.first)
    first, second = errors_of(history)
    assert f"checkpoint at record {newest.sequence}" in first.message
    assert f"records {row.first} to {row.last}" in second.message


def test_a_log_that_leads_elsewhere_is_found(history: History) -> None:
    """Rows that were written anew, with hashes that fit, as a forger or a bug would."""
    history.checkpoint()
    history.grow()
    records = [op.encode_record(op.Record(history.machine.now_ns + 1, (op.StateDigest(bytes(16)),)))]
    first = history.sequence + 1
    payload = op.join_records(records)
    previous = history.rows[-1].hash
    history.log.append(Batch(first, first, 1, chain(previous, first, first, 1, payload), payload), previous)
    [error] = errors_of(history)
    assert isinstance(error, StateDiverged)
    assert f"record {first}" in error.message


def test_a_checkpoint_of_another_state_than_the_log_leads_to_is_found(history: History) -> None:
    history.machine.state.inodes.size[2] = 12345
    history.machine.state._sum.restore(0)
    history.checkpoint()
    found = errors_of(history)
    assert any("another digest" in error.message for error in found)
    assert any(
        isinstance(error, StateDiverged) and "another state than the checkpoint" in error.message for error in found
    )


def test_a_torn_end_is_cut_and_what_was_committed_is_there(history: History, tmp_path: Path) -> None:
    """The end of SQLite's WAL after a power cut: frames without a commit count for nothing."""
    wal = tmp_path / "journal.sqlite-wal"
    copy = tmp_path / "copy"
    copy.mkdir()
    committed = history.sequence
    size = wal.stat().st_size
    history.grow(3)
    whole = (tmp_path / "journal.sqlite").read_bytes(), wal.read_bytes()
    for end in (size, size + 10, size + 2000, len(whole[1]) - 1):
        (copy / "journal.sqlite").write_bytes(whole[0])
        (copy / "journal.sqlite-wal").write_bytes(whole[1][:end])
        torn = OperationLog(f"sqlite:///{copy / 'journal.sqlite'}", "reader", Access.READ)
        torn.check()
        findings = verify(torn)
        torn.close()
        assert [finding.error for finding in findings] == [None]
        assert f"records 1 to {committed}" in findings[-1].detail
        for path in copy.iterdir():
            path.unlink()


def test_reading_changes_nothing_and_needs_a_log_of_ours(history: History, tmp_path: Path) -> None:
    with pytest.raises(LogFailed, match="unable to open"):
        OperationLog(f"sqlite:///{tmp_path / 'missing.sqlite'}", "reader", Access.READ).check()
    assert not (tmp_path / "missing.sqlite").exists()
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    before = other.read_bytes()
    foreign = OperationLog(f"sqlite:///{other}", "reader", Access.READ)
    with pytest.raises(ForeignStore, match="customers"):
        foreign.check()
    foreign.close()
    assert other.read_bytes() == before
    reader = OperationLog(history.url, "reader", Access.READ)
    with pytest.raises(LogFailed, match="readonly"):
        reader.campaign(reader.leadership(), "host:1")
    reader.close()


# -------------------------------------------------------------------------------------------------- the command line


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(gfs, ["log", *arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout


def test_verify_says_it_in_one_line_and_in_the_exit_code(history: History) -> None:
    history.checkpoint()
    history.grow()
    code, out = run("verify", "--journal", history.url)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["WHAT", "EXTENT", "RESULT"]
    assert lines[-1].startswith("The log is good")
    history.sql("UPDATE log SET epoch = 7 WHERE first = ?", history.rows[1].first)
    code, out = run("verify", "--journal", history.url)
    assert code == LogDamaged.exit_code
    assert out.splitlines()[-1].startswith(f"The log is NOT good: records {history.rows[1].first} to")


def test_dump_prints_records_readably(history: History) -> None:
    history.machine.do(msg.Mkdir("/Grüße\n".encode()))
    history.machine.do(msg.SetXattr(b"/file-000001", name=b"user.color", value=b"\xff\x00"))
    history.machine.do(msg.Create(b"/\xffodd", open=False))
    history.commit()
    last = history.sequence
    code, out = run("dump", "--journal", history.url)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == last
    assert lines[0].startswith("1 1970-01-01T00:00:01.000001000Z epoch=1  Genesis cluster='6b6b6b")
    assert "MakeDirectory parent=1 name='Grüße\\n'" in lines[last - 3]
    assert "PutXattr" in lines[last - 2]
    assert "value='ff00'" in lines[last - 2]
    assert "name='\\xffodd'" in lines[last - 1]
    assert "client=6363" in lines[last - 1]
    code, out = run("dump", "--journal", history.url, "--from", "7", "--to", "12", "--json")
    found = [json.loads(text) for text in out.splitlines()]
    assert [record["sequence"] for record in found] == list(range(7, 13))
    assert found[0]["operations"][0]["operation"] == "MakeFile"
    code, out = run("dump", "--journal", history.url, "--from", str(last + 1))
    assert (code, out) == (0, "")


def test_dump_begins_with_what_is_kept(history: History) -> None:
    for _ in range(3):
        history.checkpoint()
        history.grow()
    code, out = run("dump", "--journal", history.url)
    assert code == 0
    assert out.startswith(f"{history.log.first()} ")
