"""The file system's operations by inode, as a kernel asks for them, without FUSE: names, attributes, open files.

Each takes the caller as a :data:`~gfsclient.user.User` and raises the errors of :mod:`gfsprotocol.errors`, or an
OSError for what this file system does not have. What is answered says for how many seconds it may be kept.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Final

from gfsclient.core import Core
from gfsclient.leases import FirstLease
from gfsclient.mount.ahead import Ahead
from gfsclient.mount.answers import Answer, Changes
from gfsclient.mount.caching import KernelCache
from gfsclient.mount.callers import ROOT
from gfsclient.mount.directories import DOTS, Listed, OpenDirectories, OpenDirectory
from gfsclient.mount.expected import ExpectedDirectories
from gfsclient.mount.filetable import FileTable
from gfsclient.mount.holding import Holding
from gfsclient.mount.openfiles import NEVER, Access, Handle, OpenFile, access_of
from gfsclient.mount.reading import Readers
from gfsclient.mount.remembered import Remembered
from gfsclient.user import User
from gfsprotocol import messages as msg
from gfsprotocol.errors import NamespaceError, NoSuchAttribute, NotFound, NotPermitted, StaleHandle, SymlinkLoop
from gfsprotocol.messages import Attributes, AttributesReply

MODE_BITS: Final = 0o7777
CAPABILITY: Final = b"security.capability"
NAMESPACES: Final = (b"user.", b"trusted.", b"security.")
NOW_WITHIN_NS: Final = 5_000_000_000
"""A request may have waited for so long before it is looked at here."""
OPENING_SECONDS: Final = 1.0
"""For so long the kernel may keep the attributes of a file that a program creates."""


class Operations:
    """A mounted file system. Belongs to the event loop of its core."""

    def __init__(self, core: Core, cache: KernelCache) -> None:
        self._core = core
        self._masters = core.masters
        self._remembered = core.masters.change_observer = Remembered(cache)
        self._ahead = Ahead(core, cache, self._remembered)
        self.files = FileTable(core, cache, Readers(self._ahead))
        self._cache = cache
        self._expected = ExpectedDirectories(core.masters, cache)
        self._directories = OpenDirectories(self._remembered)
        self._holding = Holding(core, self.files)

    # ----------------------------------------------------------------------------------------------------------- names

    async def lookup(self, parent: int, name: bytes, user: User) -> Answer:
        """What a name leads to. NotFound, unless it may be kept that there is nothing."""
        known = self._remembered.find(parent, name)
        if known is not None:
            self._ahead.found(parent)
            return self._entry(parent, name, known, self._cache.mark())
        mark = self._remembered.mark()
        if self._remembered.is_missing(parent, name):
            self._ahead.found(parent)
            return Answer(None, 0.0, self._cache.keeps_entry(parent, name, None, mark.others))
        before = self._remembered.before(parent, name)
        try:
            found = await self._attributes(msg.Stat(name, parent, follow=False), user)
        except NotFound:
            self._remembered.missed(before)
            self._ahead.missed(parent)
            seconds = self._cache.keeps_entry(parent, name, None, mark.others)
            if not seconds:
                raise
            return Answer(None, 0.0, seconds)
        self._remembered.learn(parent, name, found, mark)
        self._ahead.looked_up(parent, name)
        return self._entry(parent, name, found, mark.others)

    async def mkdir(self, parent: int, name: bytes, mode: int, user: User) -> Answer:
        mark = self._remembered.mark()
        answer = await self._made(parent, name, msg.Mkdir(name, parent, mode=mode & MODE_BITS), user)
        if answer.attributes is not None:
            self._remembered.made(answer.attributes.inode, mark)
        return answer

    async def mknod(self, parent: int, name: bytes, mode: int, device: int, user: User) -> Answer:
        """Makes a special file, or an empty regular one."""
        body: msg.RequestBody = msg.MakeNode(name, parent, mode=mode, device=device)
        if stat.S_ISREG(mode) or not stat.S_IFMT(mode):
            body = self._create_body(parent, name, mode, exclusive=True, is_open=False)
        return await self._made(parent, name, body, user)

    async def symlink(self, parent: int, name: bytes, target: bytes, user: User) -> Answer:
        return await self._made(parent, name, msg.Symlink(name, parent, target=target), user)

    async def link(self, inode: int, parent: int, name: bytes, user: User) -> Answer:
        """Gives a file a second name."""
        return await self._made(parent, name, msg.Link(b"", inode, target=name, target_base=parent), user)

    async def readlink(self, inode: int, user: User) -> bytes:
        return (await self._masters.expect(msg.ReadLink(b"", inode), msg.Data, user=user)).data

    async def unlink(self, parent: int, name: bytes, user: User) -> None:
        """Removes a name; a file that is open here lives on until it is closed."""
        body = msg.Unlink(name, parent, hold=self._may_be_open(parent, name))
        before = self._remembered.before(parent, name)
        self._expected.changes(parent)
        self._holding.removed_here(await self._masters.call(body, user=user))
        self._remembered.removed(before)
        self._cache.removed(parent, name)

    async def rmdir(self, parent: int, name: bytes, user: User) -> None:
        before = self._remembered.before(parent, name)
        self._expected.changes(parent)
        await self._masters.expect(msg.Rmdir(name, parent), msg.Done, user=user)
        self._remembered.removed(before)
        self._cache.removed(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, no_replace: bool, exchange: bool, user: User
    ) -> None:
        """rename(2) and renameat2(2); a file that is replaced and open here lives on until it is closed."""
        hold = not exchange and self._may_be_open(new_parent, new_name)
        body = msg.Rename(name, parent, new_name, new_parent, no_replace, exchange, hold)
        self._expected.forget_all()  # what is moved may be one of them
        self._expected.changes(parent, new_parent)
        self._holding.removed_here(await self._masters.call(body, user=user))
        self._cache.renamed((parent, name), (new_parent, new_name), exchange)

    def _may_be_open(self, parent: int, name: bytes) -> bool:
        if not len(self.files):
            return False
        inode = self._cache.inode_at(parent, name)
        return inode is None or self.files.find(inode) is not None

    def invalidate(self, notice: msg.Invalidate) -> None:
        """Others have changed this: the kernel drops it, and files that are open here and were removed are held."""
        self._remembered.invalidate(notice)
        self._ahead.invalidate(notice)
        self._cache.invalidate(notice)
        for inode in notice.inodes:
            self._directories.forget(inode)
        for inode in notice.removed:
            self._holding.removed_elsewhere(inode)

    def drop_everything(self) -> None:
        """Nobody tells of changes any more, or we were not told of some."""
        self._remembered.drop_everything()
        self._ahead.drop_everything()
        self._cache.drop_everything()
        self._holding.doubt()

    # ------------------------------------------------------------------------------------------------------ attributes

    async def getattr(self, inode: int, user: User) -> Answer:
        """What an inode is now; what was written here is flushed first, so that its times are final."""
        file = self.files.find(inode)
        if file is not None and file.is_dirty:
            async with self.files.using(inode), file.lock:
                await file.flush()
        expected = self._expected.take(inode)
        if expected is not None:
            return self._answer(*expected)
        mark = self._cache.mark()
        known = self._remembered.attributes(inode)
        try:
            return self._answer(known or await self._attributes(msg.Stat(b"", inode), user), mark)
        except StaleHandle:
            removed = self._directories.removed(inode)
            if removed is None:
                raise
            return Answer(removed, 0.0)

    async def setattr(self, inode: int, changes: Changes, is_open: bool, user: User) -> Answer:
        """Changes attributes; ``is_open`` if by an open descriptor.

        What was written before is flushed, lest it changes the times again.
        """
        self._expected.forget(inode)
        async with self.files.using(inode) as file, file.lock:
            await file.flush()
            mark = self._cache.mark()
            if changes.size is not None:
                attributes = await file.truncate(changes.size, user, is_open)
            rest = msg.SetAttributes(
                b"",
                inode,
                None if changes.mode is None else changes.mode & MODE_BITS,
                changes.uid,
                changes.gid,
                changes.accessed_ns,
                changes.modified_ns,
            )
            if changes.size is None or rest != msg.SetAttributes(b"", inode):
                attributes = await self._set_attributes(rest, user)
            file.learn(attributes)
            self._cache.changed_here()
            self._cache.pages_stay(attributes, mark)
            return self._answer(attributes, mark)

    async def _set_attributes(self, body: msg.SetAttributes, user: User) -> Attributes:
        try:
            return await self._attributes(body, user)
        except NotPermitted:
            if body.mode is not None and await self._only_drops_privileges(body):
                return await self._attributes(msg.SetAttributes(b"", body.base, mode=body.mode), ROOT)
            # "Now" is all that who may write, but does not own the file, may set; FUSE's library tells it as a time.
            now = time.time_ns()
            times = [time_ns for time_ns in (body.accessed_ns, body.modified_ns) if time_ns is not None]
            if not times or any(abs(now - time_ns) > NOW_WITHIN_NS for time_ns in times):
                raise
            accessed, modified = (None if time_ns is None else -1 for time_ns in (body.accessed_ns, body.modified_ns))
            return await self._attributes(
                msg.SetAttributes(b"", body.base, accessed_ns=accessed, modified_ns=modified), user
            )

    async def _only_drops_privileges(self, body: msg.SetAttributes) -> bool:
        """Whether this takes set-user-ID and set-group-ID away and changes nothing else.

        The kernel, which has checked the caller, asks for that in the name of whoever writes to a program of another.
        """
        now = stat.S_IMODE((await self._attributes(msg.Stat(b"", body.base), ROOT)).mode)
        dropped = now & ~(body.mode or 0)
        only_mode = body == msg.SetAttributes(b"", body.base, mode=body.mode)
        return only_mode and now & ~dropped == body.mode and dropped & ~(stat.S_ISUID | stat.S_ISGID) == 0

    async def access(self, inode: int, mask: int, user: User) -> None:
        """PermissionDenied if the user may not do what ``mask`` says, as access(2)."""
        await self._masters.expect(msg.CheckAccess(b"", inode, mask=mask), msg.Done, user=user)

    async def statfs(self) -> msg.Space:
        return await self._masters.expect(msg.StatSpace(), msg.Space, user=ROOT)

    # ---------------------------------------------------------------------------------------------- extended attributes

    async def getxattr(self, inode: int, name: bytes, user: User) -> bytes:
        """An extended attribute. Who lists a directory asks for some of each entry, and the kernel for capabilities at
        each write: that an inode has none is kept."""
        _check_namespace(name)
        if self._has_no_xattrs(inode):
            raise NoSuchAttribute(f"inode {inode} has no extended attributes")
        file = self.files.find(inode) if name == CAPABILITY else None
        if file is not None:
            return await self._capability(file)
        return (await self._masters.expect(msg.GetXattr(b"", inode, name), msg.Data, user=user)).data

    def _has_no_xattrs(self, inode: int) -> bool:
        """The kernel has checked what the caller may ask for."""
        known = self._remembered.attributes(inode)
        return known is not None and not known.has_xattrs

    async def _capability(self, file: OpenFile) -> bytes:
        if self._cache.is_fresh(file.inode, file.has_no_capability_at):
            raise NoSuchAttribute("the file has no capabilities")
        mark = self._cache.mark()
        try:
            return (await self._masters.expect(msg.GetXattr(b"", file.inode, CAPABILITY), msg.Data, user=ROOT)).data
        except NoSuchAttribute:
            file.has_no_capability_at = mark
            raise

    async def setxattr(self, inode: int, name: bytes, value: bytes, user: User) -> None:
        _check_namespace(name)
        self._expected.forget(inode)
        await self._masters.expect(msg.SetXattr(b"", inode, name, value), msg.Done, user=user)
        self._cache.changed_here()
        file = self.files.find(inode)
        if file is not None:
            file.has_no_capability_at = NEVER

    async def listxattr(self, inode: int, user: User) -> tuple[bytes, ...]:
        if self._has_no_xattrs(inode):
            return ()
        return (await self._masters.expect(msg.ListXattrs(b"", inode), msg.Names, user=user)).names

    async def removexattr(self, inode: int, name: bytes, user: User) -> None:
        _check_namespace(name)
        self._expected.forget(inode)
        await self._masters.expect(msg.RemoveXattr(b"", inode, name), msg.Done, user=user)
        self._cache.changed_here()

    # ----------------------------------------------------------------------------------------------------- directories

    async def opendir(self, inode: int, user: User) -> int:
        """The number of an open directory."""
        return self._directories.open(inode, user)

    async def releasedir(self, number: int) -> None:
        self._directories.release(number)

    async def readdir(self, number: int, place: int, add: Callable[[bytes, Answer, int], bool]) -> None:
        """Lists from ``place`` on (0 is the beginning), as long as ``add(name, answer, place after it)`` takes more.

        One that was removed is empty.
        """
        directory = self._directories[number]
        try:
            await self._list(directory, place, add)
        except StaleHandle:
            if self._directories.removed(directory.inode) is None:
                raise

    async def _list(self, directory: OpenDirectory, place: int, add: Callable[[bytes, Answer, int], bool]) -> None:
        if not place:
            directory.rewind()
        while place < DOTS:
            name = b".." if place else b"."
            if not add(name, await self._dot(directory, name), place + 1):
                return
            place += 1
        while (listed := await self._next_of(directory, place)) is not None:
            name, attributes = listed.entry.name, listed.entry.attributes
            if not add(name, self._entry(directory.inode, name, attributes, listed.mark.others), listed.place):
                return
            self._remembered.learn(directory.inode, name, attributes, listed.mark)
            directory.took()
            place = listed.place

    async def _next_of(self, directory: OpenDirectory, place: int) -> Listed | None:
        return await directory.next(self._masters, place, self._remembered.mark(), self._cache.changes_here)

    async def _dot(self, directory: OpenDirectory, name: bytes) -> Answer:
        return Answer(await self._attributes(msg.Stat(name, directory.inode), ROOT), 0.0)

    # ----------------------------------------------------------------------------------------------------------- files

    async def create(self, parent: int, name: bytes, mode: int, flags: int, user: User) -> tuple[int, Answer]:
        """Makes a regular file and opens it, or opens the one that is there: the handle's number, and what it is."""
        await self.files.make_room()
        access = access_of(flags)
        mark = self._cache.mark()
        body = self._create_body(parent, name, mode, bool(flags & os.O_EXCL), is_open=True, flags=flags)
        asked = time.monotonic()
        self._expected.changes(parent)
        try:
            reply = await self._masters.expect(body, AttributesReply, user=user)
        except SymlinkLoop as error:
            # The kernel, which follows symlinks itself, has not heard of this one. It looks the name up anew.
            raise StaleHandle(f"{os.fsdecode(name)} has become a symlink") from error
        attributes = reply.attributes
        first = FirstLease(reply.lease, asked) if reply.lease is not None else None
        async with self.files.using(attributes.inode) as file, file.lock:
            if access.truncates:
                await file.give_up_writing()  # of what was there: the master has cut it off
            if file.writer is None:
                file.begin_writing(attributes, mark, first)
                if not attributes.size:
                    file.has_no_capability_at = mark
            else:
                file.holds += 1  # a program here writes to it already: this is one registration more
                self._core.count_writer(1)
            handle = self.files.add(file, access, user)
        self._cache.changed_here()
        self._cache.pages_are_of(attributes)
        answer = self._entry(parent, name, attributes, mark)
        if not file.is_dirty:
            # The kernel wants them once more before it lets the program have the file. Not for long: it drops them when
            # the program writes, but not when it writes to memory that is mapped.
            seconds = min(OPENING_SECONDS, self._cache.keeps_inode(attributes, mark))
            answer = answer._replace(attributes_seconds=seconds)
        return handle.number, answer

    def _create_body(
        self, parent: int, name: bytes, mode: int, exclusive: bool, is_open: bool, flags: int = 0
    ) -> msg.Create:
        config = self._core.config
        return msg.Create(
            name,
            parent,
            mode & MODE_BITS,
            config.replication,
            config.chunk_bytes,
            exclusive,
            bool(flags & os.O_TRUNC),
            is_open,
            allocate=is_open and not self._core.servers.excluded(),
            follow=False,
        )

    async def open(self, inode: int, flags: int, user: User) -> tuple[int, bool]:
        """Opens a regular file: the handle's number, and whether the kernel's pages of it are still good."""
        access = access_of(flags)
        if access.writes:
            await self.files.make_room()
        try:
            handle, attributes = await self._open(inode, access, user)
        except NamespaceError:
            self._remembered.doubt(inode)
            raise
        self._remembered.confirm(attributes)
        if self._cache.was_told(attributes):
            handle.file.kernel_knows(attributes.size)
        is_kept = self._cache.pages_are_good(attributes)
        is_kept = self._fills_pages(handle, attributes) or is_kept
        if not attributes.links:
            await self._holding.hold(inode)
        return handle.number, is_kept

    def _fills_pages(self, handle: Handle, attributes: Attributes) -> bool:
        """The kernel need not ask for what was fetched ahead; it may have dropped its pages, which nobody tells us."""
        data = None if handle.access.writes else handle.file.fetched()
        return data is not None and self._cache.fills_pages(attributes, data)

    async def _open(self, inode: int, access: Access, user: User) -> tuple[Handle, Attributes]:
        async with self.files.using(inode) as file:
            if access.writes or access.truncates:
                async with file.lock:
                    attributes = await file.open_for_writing(user, access.truncates)
                    file.require_name(attributes)
                    return self.files.add(file, access, user), attributes
            if file.is_dirty:
                async with file.lock:
                    await file.flush()
            attributes = await file.open_for_reading()
            file.require_name(attributes)
            return self.files.add(file, access, user), attributes

    async def read(self, number: int, offset: int, count: int) -> bytes | memoryview:
        """Up to ``count`` bytes at ``offset``. A view is good until the caller awaits anything."""
        return await self.files[number].file.read(offset, count)

    async def write(self, number: int, offset: int, data: bytes) -> int:
        handle = self.files[number]
        await handle.file.write(handle, offset, data)
        return len(data)

    async def flush(self, number: int) -> None:
        """close(2) of one descriptor: others see what was written, and errors are told."""
        await self._settle(self.files[number], sync=False)

    async def fsync(self, number: int) -> None:
        """What was written to the file, through any handle, is on stable storage on every replica."""
        await self._settle(self.files[number], sync=True)

    async def _settle(self, handle: Handle, sync: bool) -> None:
        if not handle.access.writes and not sync:
            return
        file = handle.file
        async with file.lock:
            file.tell(handle)
            await file.flush(sync, handle)
            if sync:
                self.files.tell_lost(file.inode)

    async def release(self, number: int) -> None:
        """The last descriptor of a handle is closed; what is left to do for the file is done behind us."""
        self.files.release(self.files[number])

    async def close(self) -> None:
        """Ends all that is open, durably."""
        await self._ahead.close()
        await self.files.close()
        await self._holding.close()
        await self.files.close()

    # ---------------------------------------------------------------------------------------------------------- common

    async def _attributes(self, body: msg.RequestBody, user: User) -> Attributes:
        return (await self._masters.expect(body, AttributesReply, user=user)).attributes

    async def _made(self, parent: int, name: bytes, body: msg.RequestBody, user: User) -> Answer:
        mark = self._cache.mark()
        self._expected.changes(parent)
        attributes = await self._attributes(body, user)
        self._cache.changed_here()
        return self._entry(parent, name, attributes, mark)

    def _entry(self, parent: int, name: bytes, attributes: Attributes, mark: int) -> Answer:
        seconds = self._cache.keeps_entry(parent, name, attributes, mark)
        return self._answer(attributes, mark)._replace(entry_seconds=seconds)

    def _answer(self, attributes: Attributes, mark: int) -> Answer:
        """With what was written here; attributes that will change when it is flushed are not kept."""
        self._directories.learn(attributes)
        file = self.files.find(attributes.inode)
        if file is not None:
            shown = file.shown(attributes)
            file.kernel_knows(shown.size)
            if file.is_dirty or file.writer is not None:
                return Answer(shown, 0.0)
        return Answer(attributes, self._cache.keeps_inode(attributes, mark))


def _check_namespace(name: bytes) -> None:
    """Names are in a namespace. ACLs would have to be obeyed by the master, and are not: none is accepted."""
    if not name.startswith(NAMESPACES):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    if name in NAMESPACES:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
