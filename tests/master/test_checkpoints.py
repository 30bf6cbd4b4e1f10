"""Checkpoints in the database: whole or not there, wherever the writer dies; damage is seen, and never the end."""

import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gfsmaster import checkpoint as encoding
from gfsmaster import checkpoints
from gfsmaster import operations as op
from gfsmaster.checkpoints import CheckpointWriter, Superseded
from gfsmaster.databases import Access
from gfsmaster.oplog import GENESIS_HASH, Batch, OperationLog, chain
from gfsmaster.state import State
from gfsprotocol import messages as msg
from gfsprotocol.errors import ForeignStore, LogDamaged, LogFailed, LogOutdated, UnsupportedFormat
from tests.conftest import ExpectedLogs
from tests.journals import query
from tests.master.machine import Machine


def no_pause(_used: float) -> None:
    """The log is not in use."""


class History:
    """A log that is written as a leader does, with every row kept here too."""

    def __init__(self, url: str, before: "History | None" = None) -> None:
        """``before`` wrote a database that this is a copy of."""
        self.url = url
        self.log = OperationLog(url, "one")
        self.log.prepare(genesis=True)
        self.machine = before.machine if before is not None else Machine()
        self.rows: list[Batch] = before.rows if before is not None else []
        if before is None:
            assert self.log.campaign(self.log.leadership(), "host:1") is not None
        self.background = OperationLog(url, "one", Access.BACKGROUND)
        self.store = self.background.checkpoints

    def close(self) -> None:
        self.log.close()
        self.background.close()

    @property
    def sequence(self) -> int:
        return self.rows[-1].last if self.rows else 0

    def grow(self, files: int = 20) -> None:
        for _ in range(files):
            self.machine.do(msg.Create(b"/file-%06d" % self.machine.calls))
        self.commit()

    def commit(self) -> None:
        """Makes rows of ten records of all that is not in the log yet."""
        while self.sequence < len(self.machine.records):
            records = self.machine.records[self.sequence : self.sequence + 10]
            payload = op.join_records(records)
            first, last = self.sequence + 1, self.sequence + len(records)
            previous = self.rows[-1].hash if self.rows else GENESIS_HASH
            self.rows.append(Batch(first, last, 1, chain(previous, first, last, 1, payload), payload))
            self.log.append(self.rows[-1], previous)

    def writer(self, node: str = "one") -> CheckpointWriter:
        return CheckpointWriter(self.store, node, self.sequence, no_pause)

    def checkpoint(self, node: str = "one") -> None:
        """A whole one, of the state as it is."""
        writer = self.writer(node)
        writer.begin()
        for part in encoding.encode(self.machine.state):
            writer.write(part)
        writer.publish(1, self.rows[-1].hash, self.machine.state.digest())
        writer.tidy()

    def restarted(self) -> State:
        """What a node that begins now makes of the database."""
        log = OperationLog(self.url, "two")
        try:
            log.prepare(genesis=False)
            restored = log.restore(0)
            state, last_hash = (restored.state, restored.log_hash) if restored is not None else (State(), GENESIS_HASH)
            while batches := log.read(state.sequence, last_hash):
                for batch in batches:
                    for record in op.decode_records(batch.payload):
                        state.apply(record)
                    last_hash = batch.hash
            return state
        finally:
            log.close()

    def check(self) -> None:
        """A restart gives what a replay of the whole log gives."""
        state = self.restarted()
        assert (state.sequence, state.digest()) == (self.machine.state.sequence, self.machine.replayed.digest())
        assert state.recomputed_digest() == state.digest()

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """One statement with a ``?`` for each value, past our own code."""
        return query(self.url, statement, *values)

    def sequences(self) -> list[int]:
        return [checkpoint.sequence for checkpoint in self.store.published()]


@pytest.fixture
def history(journal_url: str) -> Iterator[History]:
    """Of twenty records, in each kind of database."""
    made = History(journal_url)
    made.grow()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small state has many parts, and a short log many slices."""
    monkeypatch.setattr(encoding, "PART_BYTES_MAX", 600)
    monkeypatch.setattr(checkpoints, "TRIMMED_ROWS", 2)


@pytest.mark.slow
def test_two_are_kept_and_the_log_behind_the_older(history: History) -> None:
    sequences = []
    for _ in range(4):
        history.checkpoint()
        sequences.append(history.sequence)
        history.grow()
        history.check()
    assert history.sequences() == [sequences[3], sequences[2]]
    assert history.log.first() == sequences[2] + 1
    attempts = {row[0] for row in history.sql("SELECT DISTINCT attempt FROM checkpoint_part")}
    assert attempts == {checkpoint.attempt for checkpoint in history.store.published()}


def test_one_checkpoint_trims_nothing(history: History) -> None:
    history.checkpoint()
    assert history.log.first() == 1


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 20], ids=["one row", "some rows"])
def test_trimming_leaves_the_row_that_the_next_append_is_checked_against(journal_url: str, files: int) -> None:
    """Even if nothing was logged since the newest checkpoint: without that row any history could be appended."""
    history = History(journal_url)
    try:
        for _ in range(4):
            history.grow(files)
            history.checkpoint()
            history.writer("other").tidy()  # of a node that finds nothing new
            last = history.rows[-1]
            assert history.log.tail() == (last.last, last.hash)
            assert history.log.read(last.last, last.hash) == []
            with pytest.raises(LogOutdated, match=f"read up to record {last.last}: that one is not in it"):
                history.log.append(Batch(last.last + 1, last.last + 1, 1, bytes(32), b""), bytes(32))
        assert history.log.first() > 1
        assert len(history.sequences()) == 2
        history.grow(files)
        history.check()
    finally:
        history.close()


@pytest.mark.slow
def test_fault_7_a_flipped_bit_anywhere_is_seen_and_the_one_before_is_used(
    history: History, expected_logs: ExpectedLogs
) -> None:
    expected_logs("is damaged: part .* is passed over", "is damaged: .* parts are there", "it holds another state")
    history.checkpoint()
    older = history.sequence
    history.grow()
    history.checkpoint()
    history.grow()
    newest = history.store.published()[0]
    parts = history.sql("SELECT number, payload FROM checkpoint_part WHERE attempt = ?", newest.attempt)
    for number, payload in parts:
        for position in {0, len(payload) // 2, len(payload) - 1}:
            damaged = bytearray(payload)
            damaged[position] ^= 4
            update = "UPDATE checkpoint_part SET payload = ? WHERE attempt = ? AND number = ?"
            history.sql(update, bytes(damaged), newest.attempt, number)
            restored = history.log.restore(0)
            assert restored is not None
            assert restored.state.sequence == older
            history.sql(update, payload, newest.attempt, number)
    history.check()
    for column in ("digest", "parts", "size_bytes", "hash"):
        [before] = history.sql(f"SELECT {column} FROM checkpoint WHERE sequence = ?", newest.sequence)[0]
        wrong = bytes(16) if isinstance(before, bytes) else before + 1
        history.sql(f"UPDATE checkpoint SET {column} = ? WHERE sequence = ?", wrong, newest.sequence)
        restored = history.log.restore(0)
        assert restored is not None
        assert restored.state.sequence == older
        history.check()
        history.sql(f"UPDATE checkpoint SET {column} = ? WHERE sequence = ?", before, newest.sequence)


@pytest.mark.slow
def test_a_damaged_newest_one_is_replaced_and_the_log_kept_until_two_are_intact(
    history: History, expected_logs: ExpectedLogs
) -> None:
    expected_logs("is damaged")
    history.checkpoint()
    first = history.sequence
    history.grow()
    history.checkpoint()
    history.grow()
    damaged = history.store.published()[0]
    history.sql("UPDATE checkpoint_part SET payload = ? WHERE attempt = ? AND number = 3", b"", damaged.attempt)
    history.checkpoint()
    assert history.sequences() == [history.sequence, first]
    assert history.log.first() == first + 1
    history.check()


@pytest.mark.slow
def test_fault_2_when_nothing_intact_leads_to_the_log_it_is_refused_and_nothing_overwritten(
    history: History, expected_logs: ExpectedLogs, tmp_path: Path
) -> None:
    expected_logs("is damaged")
    for _ in range(3):
        history.checkpoint()
        history.grow()
    history.sql("UPDATE checkpoint_part SET payload = ? WHERE number = 2", b"")
    first = history.log.first()
    before = history.sql("SELECT * FROM log") + history.sql("SELECT * FROM checkpoint_part")
    with pytest.raises(LogDamaged, match=f"begins with record {first}, and has no intact checkpoint .* from a backup"):
        history.restarted()
    assert history.sql("SELECT * FROM log") + history.sql("SELECT * FROM checkpoint_part") == before


@pytest.mark.slow
def test_a_node_that_has_slept_through_the_trimming_goes_on_from_a_checkpoint(history: History) -> None:
    asleep_at = history.sequence
    for _ in range(3):
        history.grow()
        history.checkpoint()
    assert history.log.first() > asleep_at + 1
    restored = history.log.restore(asleep_at)
    assert restored is not None
    assert restored.state.sequence == history.sequence
    assert history.log.restore(history.log.first() - 1) is None


def test_a_newer_format_is_refused(history: History) -> None:
    history.checkpoint()
    history.sql("UPDATE checkpoint SET format = 2")
    with pytest.raises(UnsupportedFormat, match="use the version that wrote it"):
        history.restarted()


def test_an_older_one_is_not_published_after_a_newer_one(history: History) -> None:
    late = history.writer("other")
    digest, log_hash = history.machine.state.digest(), history.rows[-1].hash
    for part in encoding.encode(history.machine.state):
        late.write(part)
    history.grow()
    history.checkpoint()
    with pytest.raises((Superseded, LogDamaged)):
        late.publish(1, log_hash, digest)
    assert history.sequences() == [history.sequence]


def test_only_what_the_log_says_is_published(history: History) -> None:
    writer = history.writer()
    for part in encoding.encode(history.machine.state):
        writer.write(part)
    with pytest.raises(LogDamaged, match="the log has no row"):
        writer.publish(1, bytes(32), history.machine.state.digest())
    assert not history.sequences()


def test_parts_that_are_not_as_they_were_written_are_not_published(history: History) -> None:
    damages: list[tuple[str, list[object]]] = [
        ("DELETE FROM checkpoint_part WHERE number = 4", []),
        ("UPDATE checkpoint_part SET payload = ?", [b""]),
    ]
    for damage, values in damages:
        writer = history.writer()
        writer.begin()
        for part in encoding.encode(history.machine.state):
            writer.write(part)
        history.sql(damage, *values)
        with pytest.raises(LogDamaged):
            writer.publish(1, history.rows[-1].hash, history.machine.state.digest())
        assert not history.sequences()


def test_an_attempt_of_another_node_is_seen_as_long_as_it_may_be_of_use(history: History) -> None:
    other = history.writer("other")
    for part in list(encoding.encode(history.machine.state))[:5]:
        other.write(part)
    assert [count for _, count in history.store.rivals("one")] == [5]
    assert history.store.rivals("other") == []
    history.grow()
    history.checkpoint()
    assert history.store.rivals("one") == []
    assert history.sql("SELECT count(*) FROM checkpoint_part WHERE node = 'other'") == [(0,)]


@pytest.mark.parametrize("journal_url", ["sqlite"], indirect=True)
def test_fault_29_a_full_disk_ends_the_attempt_and_not_the_log(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = history.sql("PRAGMA page_count")[0][0]

    def limit(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}").close()

    sa.event.listen(history.background._engine, "begin", limit)
    writer = history.writer()
    with pytest.raises(LogFailed, match="disk is full"):
        for part in encoding.encode(history.machine.state):
            writer.write(part * 10)
    writer.discard()
    assert history.sql("SELECT count(*) FROM checkpoint_part") == [(0,)]
    history.grow()
    history.check()
    monkeypatch.setattr(history.background._database, "free_bytes", lambda: 5 << 20)
    with pytest.raises(LogFailed, match="only 5 MiB are free"):
        history.writer().write(b"part")


class Died(Exception):
    """The process is no more."""


def _die_at(engine: sa.Engine, number: int, moment: str) -> None:
    """The engine's statement (or commit) ``number`` is its last."""
    seen = itertools.count(1)

    def count(*_: object) -> None:
        if next(seen) >= number:
            raise Died

    if moment == "before a statement":
        sa.event.listen(engine, "before_cursor_execute", count)
    elif moment == "after a statement":
        sa.event.listen(engine, "after_cursor_execute", count)
    else:
        sa.event.listen(engine, "commit", count)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before a statement", "after a statement", "before a commit"])
def test_fault_4_wherever_the_writer_dies_a_restart_gives_what_the_whole_log_gives(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "PART_BYTES_MAX", 4000)
    before = History(f"sqlite:///{tmp_path / 'before.sqlite'}")
    for _ in range(3):
        before.grow(15)
        before.checkpoint()
    kept = before.sequence
    before.grow(15)
    before.close()
    points = 0
    died = True
    while died:
        points += 1
        shutil.copy(tmp_path / "before.sqlite", tmp_path / "journal.sqlite")
        history = History(f"sqlite:///{tmp_path / 'journal.sqlite'}", before)
        _die_at(history.background._engine, points, moment)
        try:
            history.checkpoint()
        except Died:
            history.background.close()
        else:
            died = False
        history.check()
        history.close()
        history = History(history.url, before)
        if history.sequences()[0] < history.sequence:
            history.checkpoint()
        else:
            history.writer().tidy()
        assert history.sequences() == [history.sequence, kept]
        attempts = {row[0] for row in history.sql("SELECT DISTINCT attempt FROM checkpoint_part")}
        assert attempts == {checkpoint.attempt for checkpoint in history.store.published()}
        assert history.log.first() == history.sequences()[1] + 1
        history.check()
        history.close()
        for path in tmp_path.glob("journal.sqlite*"):
            path.unlink()
    assert points > 15


def test_fault_8_what_is_restored_and_replayed_is_applied_once(history: History) -> None:
    """The position in the log is part of the checkpoint, so no record can be skipped or doubled."""
    history.checkpoint()
    history.grow()
    digests = {history.restarted().digest() for _ in range(3)}
    assert digests == {history.machine.replayed.digest()}


def test_another_programs_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    before = path.read_bytes()
    log = OperationLog(f"sqlite:///{path}", "one")
    with pytest.raises(ForeignStore):
        log.prepare(genesis=True)
    log.close()
    assert path.read_bytes() == before


def test_a_log_of_before_checkpoints_gets_their_tables(history: History) -> None:
    history.sql("DROP TABLE checkpoint")
    history.sql("DROP TABLE checkpoint_part")
    history.check()
    history.checkpoint()
    assert history.sequences()
