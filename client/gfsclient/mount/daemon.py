"""The process that answers the kernel, from the connection to the masters to the last flush."""

import asyncio
import contextlib
import logging
import signal
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyfuse3
import uvloop

from gfsclient.config import ClientConfig
from gfsclient.core import Core
from gfsclient.masters import Masters
from gfsclient.mount import mountpoint as mountpoints
from gfsclient.mount.adapter import Adapter, Inodes
from gfsclient.mount.caching import KernelCache
from gfsclient.mount.callers import ROOT, Callers
from gfsclient.mount.kernel import Notifier
from gfsclient.mount.measures import exposed
from gfsclient.mount.operations import Operations
from gfsclient.mount.options import MountOptions
from gfsclient.mount.waiting import kernel_watched
from gfsclient.watcher import Watcher
from gfsprotocol.errors import ConfigurationError, NotADirectory
from gfsprotocol.ids import ROOT_INODE
from gfsprotocol.messages import AttributesReply, Stat

log = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 60.0
"""How long mounting waits for a master, at most: later calls may wait for the mount's own deadline."""
READ_AHEAD_KIB: Final = 1024
BACKGROUND_REQUESTS: Final = 64
TASKS_MAX: Final = 256
THREADS_MIN: Final = 64
"""Files that wait for chunk servers keep one each; other files are to go on meanwhile."""


@dataclass(frozen=True)
class Plan:
    """What is to be mounted where."""

    config: ClientConfig
    subtree: bytes
    mountpoint: str
    options: MountOptions

    @property
    def source(self) -> str:
        """As df(1) shows it."""
        return f"gfs://{','.join(self.config.masters)}{self.subtree.decode('utf-8', 'surrogateescape')}"


def serve(plan: Plan, ready: Callable[[], None]) -> None:
    """Mounts, calls ``ready`` when requests are answered, and returns when it is unmounted and all is durable.

    SIGTERM and SIGINT unmount it. Raises a GfsError that says why it could not be mounted.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(plan, ready))


async def _serve(plan: Plan, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _connected(plan.config) as core:
        asked = await core.masters.expect(Stat(plan.subtree, ROOT_INODE), AttributesReply, CONNECT_SECONDS)
        if not stat.S_ISDIR(asked.attributes.mode):
            raise NotADirectory(f"{plan.subtree.decode('utf-8', 'replace')}: is not a directory")
        inodes = Inodes(asked.attributes.inode)
        notifier = Notifier(inodes.shown)
        cache = KernelCache(notifier)
        operations = Operations(core, cache)
        watcher = cache.freshness = Watcher(core.masters, operations.invalidate, operations.drop_everything)
        try:
            adapter = Adapter(operations, Callers(), inodes)
            async with exposed(plan.options.metrics_port, adapter, cache, operations.files):
                _mount(plan, adapter)
                await _answer(plan, adapter.greeted, stop, ready)
        finally:
            notifier.close()
            await operations.close()
            await watcher.close()
    log.info("%s is unmounted", plan.mountpoint)


@contextlib.asynccontextmanager
async def _connected(config: ClientConfig) -> AsyncIterator[Core]:
    config = config.model_copy(update={"threads": max(config.threads, THREADS_MIN)})
    masters = Masters(config.masters, config.key_bytes, ROOT, config.deadline_seconds)
    try:
        await masters.connect(min(CONNECT_SECONDS, config.deadline_seconds))
        core = Core(config, masters)
    except BaseException:
        await masters.close()
        raise
    try:
        yield core
    finally:
        await core.close()


def _mount(plan: Plan, adapter: Adapter) -> None:
    options = {"default_permissions", "subtype=gfs", f"fsname={plan.source}".replace(",", "\\,"), *plan.options.kernel}
    if plan.options.allow_other:
        options.add("allow_other")
    if plan.options.read_only:
        options.add("ro")
    # Not before: as long as nothing takes its place, a dead mount keeps programs out of the directory below.
    mountpoints.clear_dead(plan.mountpoint)
    try:
        pyfuse3.init(adapter, plan.mountpoint, options)
    except RuntimeError as error:
        raise ConfigurationError(f"{plan.mountpoint} cannot be mounted on: {error}") from error


async def _answer(plan: Plan, greeted: asyncio.Event, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Until it is unmounted, or we are to stop; then it is unmounted. ``greeted`` is set with the first request."""
    with kernel_watched():
        answering = asyncio.create_task(pyfuse3.main(max_tasks=TASKS_MAX))
        stopping = asyncio.create_task(stop.wait())
        greeting = asyncio.create_task(greeted.wait())
        try:
            await asyncio.wait([answering, stopping, greeting], return_when=asyncio.FIRST_COMPLETED)
            if greeted.is_set():
                _tune(plan.mountpoint)
            log.info("%s is mounted on %s", plan.source, plan.mountpoint)
            ready()
            await asyncio.wait([answering, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                pyfuse3.terminate()
            await answering
        finally:
            stopping.cancel()
            greeting.cancel()
            pyfuse3.close(unmount=True)


def _tune(mountpoint: str) -> None:
    """Lets the kernel ask for more at a time, where we may.

    Only when it has been greeted: what is set before, it replaces by what was agreed on.
    """
    mounted = mountpoints.mounted_at(mountpoint)
    if mounted is None:
        return
    major, minor = mounted.device
    for file, value in (
        (Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD_KIB),
        (Path(f"/sys/fs/fuse/connections/{minor}/max_background"), BACKGROUND_REQUESTS),
        (Path(f"/sys/fs/fuse/connections/{minor}/congestion_threshold"), BACKGROUND_REQUESTS * 3 // 4),
    ):
        try:
            file.write_text(str(value))
        except OSError as error:
            log.debug("%s stays as it is: %s", file, error.strerror)
