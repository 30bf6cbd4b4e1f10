"""Fills the namespace, so that a takeover with many files can be measured."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from gfsclient.config import ClientConfig
from gfsclient.filesystem import FileSystem

DIRECTORY_FILES: Final = 10_000
IN_FLIGHT: Final = 512
TELL_FILES: Final = 100_000


async def fill(config: ClientConfig, directory: str, files: int, tell: Callable[[int], None]) -> int:
    """Makes empty files until there are ``files`` objects; how many there are then. ``tell`` hears of the progress."""
    async with await FileSystem.connect(config.masters, config.key, config=config) as system:
        # Not as the status counts them: what was removed a moment ago is among those until it is reclaimed.
        found = await system.summarize("/")
        missing = max(0, files - found.files - found.directories)
        if missing:
            await system.mkdir(directory, parents=True)
        for begin in range(0, missing, DIRECTORY_FILES):
            place = f"{directory}/{begin // DIRECTORY_FILES}"
            await system.mkdir(place)
            names = iter(range(min(DIRECTORY_FILES, missing - begin)))
            async with asyncio.TaskGroup() as tasks:
                for _ in range(IN_FLIGHT):
                    tasks.create_task(_make(system, place, names))
            if (begin + DIRECTORY_FILES) % TELL_FILES == 0:
                tell(begin + DIRECTORY_FILES)
        return (await system.status()).inodes


async def _make(system: FileSystem, place: str, names: Iterator[int]) -> None:
    for name in names:
        await system.make_file(f"{place}/{name}")
