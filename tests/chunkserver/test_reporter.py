"""What the reporter takes note of, and when it wakes."""

import asyncio

from gfschunkserver.files import OsFiles
from gfschunkserver.reporter import Reporter
from gfschunkserver.store import Store


async def test_a_stream_of_changes_wakes_the_reporter_once_for_each_report() -> None:
    woken: list[None] = []
    reporter = Reporter(Store(OsFiles(), [], 1, 0), ["m:1", "m:2"], b"", "host", 1, "", 1.0)
    reporter._wake_links = lambda: woken.append(None)  # type: ignore[method-assign]
    for chunk in (1, 2, 2, 3):
        reporter.note(chunk)
    await asyncio.sleep(0)
    assert len(woken) == 1
    reporter._collect()
    assert [link.changed for link in reporter._links] == [{1, 2, 3}] * 2
    reporter.note(1)
    await asyncio.sleep(0)
    assert len(woken) == 2
