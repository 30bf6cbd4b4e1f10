"""What a mount counts, and the port of this machine on which Prometheus gets it (the option ``metrics=PORT``).

Without the option nothing is counted.
"""

import errno
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from gfsclient.mount.caching import KernelCache
from gfsclient.mount.filetable import FileTable
from gfsprotocol import metrics
from gfsprotocol.errors import AddressInUse
from gfsprotocol.metrics import Histogram, Labels, Metric, Value

HOST: Final = "127.0.0.1"
METRICS: Final = (
    Metric("gfs_mount_requests_total", "counter", "Requests of the kernel, by what was asked for.", ("operation",)),
    Metric(
        "gfs_mount_failed_requests_total",
        "counter",
        "Requests that were answered with an error, by its name; ENOENT and ENODATA are answers as good as others.",
        ("operation", "error"),
    ),
    Metric("gfs_mount_request_seconds", "histogram", "How long the kernel waited for an answer."),
    Metric("gfs_mount_read_bytes_total", "counter", "Bytes that the kernel read; what it keeps it need not read."),
    Metric("gfs_mount_written_bytes_total", "counter", "Bytes that the kernel wrote."),
    Metric("gfs_mount_open_files", "gauge", "Files that are open, or not durable yet."),
    Metric("gfs_mount_kept_names", "gauge", "Names that the kernel may keep."),
    Metric("gfs_mount_kept_inodes", "gauge", "Inodes whose attributes the kernel may keep."),
    Metric("gfs_mount_watched", "gauge", "1 while a leader tells of changes, so that the kernel may keep anything."),
)
OPERATIONS: Final = (
    *("lookup", "mkdir", "mknod", "symlink", "link", "readlink", "unlink", "rmdir", "rename", "getattr", "setattr"),
    *("access", "statfs", "setxattr", "getxattr", "listxattr", "removexattr", "opendir", "readdir", "releasedir"),
    *("create", "open", "read", "write", "flush", "fsync", "release"),
)


def _numbers() -> defaultdict[Labels, int]:
    return defaultdict(int)


@dataclass(slots=True)
class Measures:
    """Belongs to the mount's event loop: plain numbers."""

    requests: defaultdict[Labels, int] = field(default_factory=_numbers)
    failures: defaultdict[Labels, int] = field(default_factory=_numbers)
    seconds: Histogram = field(default_factory=Histogram)
    read_bytes: int = 0
    written_bytes: int = 0

    def count(self, adapter: object) -> None:
        """From now on what ``adapter`` is asked is counted."""
        for name in OPERATIONS:
            setattr(adapter, name, self._counted(name, getattr(adapter, name)))

    def _counted(self, name: str, operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            begun = time.perf_counter()
            self.requests[name,] += 1
            try:
                result = await operation(*arguments)
            except Exception as error:
                number = getattr(error, "errno", None) or errno.EIO
                self.failures[name, errno.errorcode.get(number, str(number))] += 1
                raise
            finally:
                self.seconds.observe(time.perf_counter() - begun)
            if name == "read":
                self.read_bytes += len(result)
            elif name == "write":
                self.written_bytes += result
            return result

        return call

    def read(self) -> dict[str, Value]:
        """By the names of the metrics."""
        return {
            "gfs_mount_requests_total": self.requests,
            "gfs_mount_failed_requests_total": self.failures,
            "gfs_mount_request_seconds": self.seconds,
            "gfs_mount_read_bytes_total": self.read_bytes,
            "gfs_mount_written_bytes_total": self.written_bytes,
        }


@asynccontextmanager
async def exposed(port: int, adapter: object, cache: KernelCache, files: FileTable) -> AsyncIterator[None]:
    """Counts, and answers ``/metrics`` on ``port`` of the loopback address; with port 0 neither. AddressInUse."""
    if not port:
        yield
        return
    measures = Measures()

    def read() -> Mapping[str, Value]:
        return {
            **measures.read(),
            "gfs_mount_open_files": len(files),
            "gfs_mount_kept_names": cache.names,
            "gfs_mount_kept_inodes": cache.inodes,
            "gfs_mount_watched": int(cache.freshness.is_current),
        }

    registry = metrics.registry(METRICS, read)

    async def answer(_request: web.Request) -> web.Response:
        return metrics.page(registry)

    app = web.Application()
    app.router.add_get(metrics.METRICS_PATH, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await _listen(runner, port)
        measures.count(adapter)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        raise AddressInUse(f"the metrics cannot be on {HOST}:{port}: {error.strerror}") from error
