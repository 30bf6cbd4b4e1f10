"""The files that programs have open here: one state for each inode, whatever the number of handles.

All handles of a file share one :class:`~gfsclient.writer.FileWriter`, which gathers small writes, and what is fetched
ahead. A read sees every write made here before: what it touches is flushed first. Writes to one file are one at a time,
in a thread if they have to wait, on the event loop if there is room in the packet at hand.

Belongs to the event loop. ``OpenFile.lock`` is held while the writer is used or replaced.
"""

import asyncio
import logging
import os
import resource
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from gfsclient.core import Core
from gfsclient.leases import FirstLease
from gfsclient.mount.caching import KernelCache
from gfsclient.mount.callers import ROOT
from gfsclient.mount.ranges import Ranges
from gfsclient.mount.reading import FileReads, Readers
from gfsclient.user import User
from gfsclient.writer import FileWriter
from gfsprotocol.errors import GfsError, StaleHandle
from gfsprotocol.messages import (
    Attributes,
    AttributesReply,
    Close,
    Locate,
    Locations,
    OpenForWrite,
    SetAttributes,
    Stat,
)

log = logging.getLogger(__name__)

PAGE_BYTES: Final = resource.getpagesize()
NEVER: Final = -1
"""As a mark: before every notice."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a file is opened for."""

    reads: bool
    writes: bool
    appends: bool
    truncates: bool


def access_of(flags: int) -> Access:
    """Of the flags of open(2)."""
    mode = flags & os.O_ACCMODE
    return Access(mode != os.O_WRONLY, mode != os.O_RDONLY, bool(flags & os.O_APPEND), bool(flags & os.O_TRUNC))


@dataclass(eq=False)
class Handle:
    """One open file description."""

    file: "OpenFile"
    access: Access
    user: User
    error: GfsError | None = None
    """Why something written was lost, if this handle has not told it yet."""
    number: int = 0


class OpenFile:
    """What all handles of one inode share."""

    def __init__(self, core: Core, cache: KernelCache, readers: Readers, inode: int) -> None:
        self.inode = inode
        self.lock = asyncio.Lock()
        self.handles: set[Handle] = set()
        self.users = 0
        """Calls under way that need this object, although no handle may refer to it yet."""
        self.holds = 0
        """Registrations that keep the inode alive although its last name is gone."""
        self.is_removed = False
        """Whether it is known here that it has no name."""
        self.writer: FileWriter | None = None
        self._attributes: Attributes | None = None
        """What the master said last."""
        self._core = core
        self._cache = cache
        self._readers = readers
        self._unflushed = Ranges()
        self._reads: FileReads | None = None
        self.has_no_capability_at = NEVER
        """When the master said last that the file has no capabilities (capabilities(7))."""
        self._located_at = NEVER
        self._measured_at = NEVER
        """When the size was asked for last."""
        self._kernel_size: int | None = None
        """How long the kernel takes the file to be, if that is known."""

    @property
    def is_writing(self) -> bool:
        return any(handle.access.writes for handle in self.handles)

    @property
    def is_dirty(self) -> bool:
        """Whether what the master says of the file will change when our writes are flushed."""
        return bool(self._unflushed)

    # ------------------------------------------------------------------------------------------------------- attributes

    def learn(self, attributes: Attributes) -> None:
        self._attributes = attributes

    def shown(self, attributes: Attributes) -> Attributes:
        """What the file looks like here: with what was written and not flushed."""
        writer = self.writer
        if writer is None or writer.end <= attributes.size or not self.is_dirty:
            return attributes
        return msgspec.structs.replace(attributes, size=writer.end)

    def kernel_knows(self, size: int) -> None:
        """The kernel is answered, or was, that the file is so long."""
        self._kernel_size = size

    def forget_reads(self) -> None:
        """What was located or fetched ahead is not true any more."""
        if self._reads is not None:
            self._reads.close()
            self._reads = None

    # ---------------------------------------------------------------------------------------------------------- opening

    async def open_for_reading(self) -> Attributes:
        """Asks the master what the file is now: what was closed elsewhere before is seen from here on."""
        mark = self._cache.mark()
        located = await self._core.masters.expect(Locate(b"", self.inode), Locations, user=ROOT)
        self._located(located, mark)
        return located.attributes

    async def open_for_writing(self, user: User, truncates: bool) -> Attributes:
        """Makes us a writer of the file. With the lock."""
        if self.writer is not None and not truncates:
            return (await self._core.masters.expect(Stat(b"", self.inode), AttributesReply, user=user)).attributes
        mark = self._cache.mark()
        body = OpenForWrite(b"", self.inode, truncate=truncates)
        attributes = (await self._core.masters.expect(body, AttributesReply, user=user)).attributes
        if truncates:
            self._cache.changed_here()
            await self.give_up_writing()  # of what was there: the master has cut it off
            self.forget_reads()
            self.kernel_knows(0)
        self.begin_writing(attributes, mark)
        return attributes

    def require_name(self, attributes: Attributes) -> None:
        """At an open: StaleHandle if the file has no name any more, unless it is really this file that is meant.

        The kernel may remember a name that others have removed or given to another file a moment ago; told of this
        error it looks the name up and opens what is there. If it comes again, it is by a descriptor (/proc/PID/fd).
        """
        if attributes.links:
            return
        was_known, self.is_removed = self.is_removed, True
        if not self.handles or not was_known:
            raise StaleHandle(f"inode {self.inode} has no name any more")

    def begin_writing(self, attributes: Attributes, mark: int, first: FirstLease | None = None) -> None:
        """The master, asked at ``mark``, has registered us as a writer; ``first`` is the lease that came with a new
        file."""
        self.writer = FileWriter(self._core, attributes, first, follows_cuts=True)
        self._core.count_writer(1)
        self._measured_at = mark
        self.learn(attributes)

    # ---------------------------------------------------------------------------------------------------------- reading

    def fetched(self) -> bytes | None:
        """When it was just opened for reading, and was not open before: all that it holds, if it was fetched ahead.

        None if others have changed it since the master was asked at that open.
        """
        reads = self._reads
        if reads is None or self.writer is not None or len(self.handles) != 1:
            return None
        return reads.whole if self._cache.is_fresh(self.inode, self._located_at) else None

    async def read(self, offset: int, count: int) -> bytes | memoryview:
        """Up to ``count`` bytes at ``offset``, with all that was written here; fewer at the end of the file.

        A view is good until the caller awaits anything.
        """
        if self._unflushed.overlap(offset, offset + count) or self._is_behind(offset + count):
            async with self.lock:
                await self.flush()
        reads = self._reads
        is_fresh = reads is not None and self._cache.is_fresh(self.inode, self._located_at)
        if reads is None or not is_fresh:
            reads = await self._locate()
            is_fresh = self._cache.is_fresh(self.inode, self._located_at)
        if is_fresh:
            # The kernel asks for whole pages. Where the file ends is known, the reader need not ask the master again.
            count = max(0, min(count, reads.attributes.size - offset))
        return await reads.read(offset, count) if count else b""

    def _is_behind(self, end: int) -> bool:
        """Whether the master does not know yet that the file is as long as ``end``, or as it is here."""
        known = self._reads.attributes.size if self._reads is not None else 0
        return self.is_dirty and self.writer is not None and known < min(end, self.writer.end)

    async def _locate(self) -> FileReads:
        reads = self._reads
        if reads is not None and not self._cache.freshness.is_current:
            return reads  # what it said at open counts until the file is opened again, or was changed here
        await self.open_for_reading()
        assert self._reads is not None
        return self._reads

    def _located(self, located: Locations, mark: int) -> None:
        reads = self._reads
        is_same = (
            reads is not None
            and reads.attributes.modified_ns == located.attributes.modified_ns
            and reads.attributes.changed_ns == located.attributes.changed_ns
            and reads.attributes.size == located.attributes.size
        )
        if not is_same:
            self.forget_reads()
            self._reads = FileReads(self._core, located, self._readers)
        self._located_at = mark
        self.learn(located.attributes)

    # ---------------------------------------------------------------------------------------------------------- writing

    async def write(self, handle: Handle, offset: int, data: bytes) -> None:
        """Takes all of ``data``; it is acknowledged after a flush only."""
        async with self.lock:
            self.tell(handle)
            writer = self.writer
            if writer is None:
                await self.open_for_writing(ROOT, truncates=False)  # the one before has failed
                writer = self.writer
                assert writer is not None
            if self._may_have_changed(handle):
                await self._measure(handle, writer)
            if handle.access.appends and not self._is_of_a_mapping(handle, offset):
                self._kernel_size = offset + len(data)
                if offset != writer.end:
                    offset = writer.end  # the kernel knows only of appends made here
                    self._cache.drop_pages(self.inode)
            elif self._kernel_size is not None:
                self._kernel_size = max(self._kernel_size, offset + len(data))
            self._unflushed.add(offset, offset + len(data))
            if writer.fits(offset, len(data)):
                writer.write(offset, data)
            else:
                await self._guarded(handle, lambda: writer.write(offset, data))

    def _may_have_changed(self, handle: Handle) -> bool:
        """Whether to ask how long the file is before a write.

        An append must not rely on a notice that may be on its way: what was appended elsewhere, and is known to be, is
        not to be overwritten. While something of ours is unflushed the next one belongs behind it.
        """
        return (handle.access.appends and not self.is_dirty) or self._was_changed()

    def _is_of_a_mapping(self, handle: Handle, offset: int) -> bool:
        """Whether this is a page of mapped memory: it belongs where it is, also in a file opened with O_APPEND.

        The kernel does not tell (FUSE's library for Python leaves it out). But it sends pages of what it takes for the
        file only, and an append to right behind that.
        """
        is_inside = self._kernel_size is not None and offset < self._kernel_size
        return is_inside and handle.access.reads and offset % PAGE_BYTES == 0

    def _was_changed(self) -> bool:
        return self._cache.freshness.is_current and not self._cache.is_fresh(self.inode, self._measured_at)

    async def _measure(self, handle: Handle | None, writer: FileWriter) -> None:
        """Asks how long the file is now. If others have cut it, chunks that the writer knows may not be the file's."""
        begins_anew = self._was_changed()
        if begins_anew:
            await self._guarded(handle, writer.begin_anew)
        mark = self._cache.mark()
        attributes = await self._stat()
        if attributes.size < writer.end and not begins_anew:
            await self._guarded(handle, writer.begin_anew)
            attributes = await self._stat()
        writer.learn_size(attributes.size)
        self.forget_reads()
        self._measured_at = mark

    async def _stat(self) -> Attributes:
        return (await self._core.masters.expect(Stat(b"", self.inode), AttributesReply, user=ROOT)).attributes

    async def flush(self, sync: bool = False, handle: Handle | None = None) -> None:
        """All replicas have what was written, and others see it; with ``sync`` it is durable. With the lock."""
        writer = self.writer
        if writer is None or not (sync or self.is_dirty):
            return
        if self._was_changed():
            await self._measure(handle, writer)
        await self._guarded(handle, lambda: writer.deliver(sync), writer.record)
        self.flushed()

    def flushed(self) -> None:
        """What was written has reached the master, and what the kernel has of the file is as it is there."""
        if not self.is_dirty:
            return
        self._cache.changed_here()
        self._unflushed.clear()
        self.forget_reads()
        recorded = self.writer.recorded if self.writer is not None else None
        if recorded is not None and self._cache.is_fresh(self.inode, self._measured_at):
            self._cache.pages_are_of(recorded)

    async def truncate(self, size: int, user: User, is_open: bool) -> Attributes:
        """Cuts the file or extends it with zeros. With the lock."""
        if self.writer is not None:
            writer = self.writer
            attributes = await self._core.in_thread(writer.truncate, size)
            self.flushed()
        else:
            body = SetAttributes(b"", self.inode, size=size)
            acting = ROOT if is_open else user
            attributes = (await self._core.masters.expect(body, AttributesReply, user=acting)).attributes
        self.forget_reads()
        self.learn(attributes)
        return attributes

    # ---------------------------------------------------------------------------------------------------------- errors

    async def _guarded(
        self,
        handle: Handle | None,
        work: Callable[[], None],
        afterwards: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Runs what the writer has to wait for in a thread, and what is to be done ``afterwards`` here.

        If either fails, each handle tells so once; the next write begins anew.
        """
        try:
            await self._core.in_thread(work)
            if afterwards is not None:
                await afterwards()
        except GfsError as error:
            for other in self.handles:
                if other is not handle and other.access.writes:
                    other.error = error
            await self.give_up_writing()
            raise

    async def give_up_writing(self) -> None:
        """Ends the writer, and gives up what is not acknowledged. With the lock."""
        writer, self.writer = self.writer, None
        if writer is None:
            return
        self._unflushed.clear()
        self.forget_reads()
        self._cache.drop_pages(self.inode)
        self._core.count_writer(-1)
        try:
            await self._core.in_thread(writer.abort)
        except StaleHandle as error:
            log.info("inode %d: others have cut off what was written: %s", self.inode, error.message)
        except GfsError as error:
            log.warning("inode %d stays open at the master until this mount ends: %s", self.inode, error.message)

    def tell(self, handle: Handle) -> None:
        """Raises the error that this handle has not told yet."""
        error, handle.error = handle.error, None
        if error is not None:
            raise error

    # ------------------------------------------------------------------------------------------------------------- end

    @property
    def is_settled(self) -> bool:
        """Whether the registration as a writer may be ended without waiting for chunk servers."""
        return self.writer is None or self.writer.is_settled or self._is_forgotten

    @property
    def _is_forgotten(self) -> bool:
        return self.is_removed and not self.handles

    async def settle(self) -> None:
        """Makes all durable, as the last thing before :meth:`end_writing`. With the lock."""
        writer = self.writer
        if writer is None or self.is_settled:
            return
        try:
            await self._core.in_thread(writer.settle)
        except BaseException:
            self._forget_writer()
            raise

    async def end_writing(self) -> None:
        """Makes all durable and ends our registration as a writer. With the lock."""
        writer = self.writer
        if writer is None:
            return
        if self._is_forgotten:
            await self.give_up_writing()
            return
        try:
            if not writer.is_settled:
                self.learn(await self._core.in_thread(writer.close))
                return
            reply = await self._core.masters.expect(Close(self.inode), AttributesReply, user=ROOT)
            self.learn(reply.attributes)
        except StaleHandle as error:
            if not writer.is_settled:
                raise
            log.info("the masters have closed the file while this mount was silent: %s", error.message)
        finally:
            self._forget_writer()

    def _forget_writer(self) -> None:
        self._core.count_writer(-1)
        self.writer = None
        self._unflushed.clear()
        self.forget_reads()

    async def release_holds(self) -> None:
        """The inode need not live for our sake any more. With the lock."""
        holds, self.holds = self.holds, 0
        for _ in range(holds):
            self._core.count_writer(-1)
            try:
                await self._core.masters.expect(Close(self.inode), AttributesReply, user=ROOT)
            except GfsError as error:
                log.warning("inode %d stays open at the master until this mount ends: %s", self.inode, error.message)
