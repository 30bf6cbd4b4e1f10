"""The journal's thread: what is asked for is done in order, once, or never when nobody waits for it any more."""

import asyncio
import threading
from pathlib import Path

import pytest

from gfsmaster.journal import ThreadedJournal
from gfsmaster.oplog import OperationLog
from gfsprotocol.errors import LogFenced


def journal_in(directory: Path) -> ThreadedJournal:
    log = OperationLog(f"sqlite:///{directory / 'log.sqlite'}", "one")
    log.prepare(genesis=True)
    return ThreadedJournal(log)


async def test_a_call_gives_its_result_or_raises_its_error(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    assert (await journal.leadership()).epoch == 0
    with pytest.raises(LogFenced):
        await journal.renew(1)
    assert (await journal.leadership()).epoch == 0, "an error ends one call and no more"
    await journal.close()


async def test_a_call_that_is_cancelled_before_its_turn_is_never_done(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    begun, disk = threading.Event(), threading.Event()
    done: list[str] = []

    def hang() -> None:
        begun.set()
        disk.wait()
        done.append("hung")

    under_way = asyncio.create_task(journal.run(hang))
    cancelled = asyncio.create_task(journal.run(done.append, "cancelled"))
    await asyncio.to_thread(begun.wait)
    for call in (under_way, cancelled):
        call.cancel()
    await asyncio.gather(under_way, cancelled, return_exceptions=True)
    disk.set()
    await journal.run(done.append, "later")
    assert done == ["hung", "later"], "what the thread has begun goes on to its end"
    await journal.close()


def test_an_answer_for_which_the_event_loop_is_gone_harms_no_later_call(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    begun, disk = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        disk.wait()

    async def leave() -> None:
        call = asyncio.create_task(journal.run(hang))
        await asyncio.to_thread(begun.wait)
        call.cancel()

    async def come_back() -> int:
        epoch = (await journal.leadership()).epoch
        await journal.close()
        return epoch

    asyncio.run(leave())
    disk.set()
    assert asyncio.run(come_back()) == 0
