"""The mount's operations as pyfuse3 wants them: inode numbers, structures, error numbers; nothing else."""

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Sequence
from typing import Final, TypeVar, cast

import pyfuse3
import pyfuse3.asyncio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FlagT, InodeT, ModeT, RequestContext

from gfsclient.mount.answers import Answer, Changes
from gfsclient.mount.callers import Callers
from gfsclient.mount.operations import Operations
from gfsclient.user import User
from gfsprotocol.errors import GfsError, NamespaceError
from gfsprotocol.ids import NAME_BYTES_MAX
from gfsprotocol.messages import Attributes

log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 512
BEST_IO_BYTES: Final = 128 * 1024
FRAGMENT_BYTES: Final = 4096
FREE_INODES: Final = 2**31
"""The namespace has no fixed number of them."""
RENAME_FLAGS: Final = pyfuse3.RENAME_NOREPLACE | pyfuse3.RENAME_EXCHANGE
_PASSED_ON: Final = frozenset({errno.ENOSPC, errno.ETIMEDOUT})

_Result = TypeVar("_Result")

pyfuse3.asyncio.enable()


def number_of(error: GfsError) -> int:
    """The error number for a program: what is wrong with the cluster is EIO, or ETIMEDOUT if it did not answer."""
    if isinstance(error, NamespaceError) or error.errno in _PASSED_ON:
        return error.errno
    return errno.ETIMEDOUT if error.errno == errno.EAGAIN else errno.EIO


class Inodes:
    """FUSE's root is the directory that was mounted; all other inodes have the cluster's own numbers."""

    def __init__(self, root: int) -> None:
        self._root = root

    def of(self, shown: int) -> int:
        """The cluster's number for FUSE's."""
        return self._root if shown == pyfuse3.ROOT_INODE else shown

    def shown(self, inode: int) -> InodeT:
        """FUSE's number for the cluster's."""
        return pyfuse3.ROOT_INODE if inode == self._root else InodeT(inode)


class Adapter(pyfuse3.Operations):
    """What pyfuse3 calls for each request of the kernel."""

    enable_writeback_cache = False
    supports_dot_lookup = False

    def __init__(self, operations: Operations, callers: Callers, inodes: Inodes) -> None:
        super().__init__()
        self._operations = operations
        self._callers = callers
        self._inodes = inodes
        self.greeted = asyncio.Event()
        """Whether the kernel has agreed with us on how to talk; whoever waits for it goes on after our answer."""

    def init(self) -> None:
        """The kernel's first request, which is answered as soon as this returns."""
        self.greeted.set()

    # ----------------------------------------------------------------------------------------------------------- names

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await _told(self._operations.lookup(self._inodes.of(parent_inode), name, self._user(ctx))))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Inodes have no state here unless they are open."""

    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(
            await _told(self._operations.mkdir(self._inodes.of(parent_inode), name, mode, self._user(ctx)))
        )

    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        work = self._operations.mknod(self._inodes.of(parent_inode), name, mode, rdev, self._user(ctx))
        return self._entry(await _told(work))

    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        work = self._operations.symlink(self._inodes.of(parent_inode), name, target, self._user(ctx))
        return self._entry(await _told(work))

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        work = self._operations.link(
            self._inodes.of(inode), self._inodes.of(new_parent_inode), new_name, self._user(ctx)
        )
        return self._entry(await _told(work))

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(await _told(self._operations.readlink(self._inodes.of(inode), self._user(ctx))))

    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await _told(self._operations.unlink(self._inodes.of(parent_inode), name, self._user(ctx)))

    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await _told(self._operations.rmdir(self._inodes.of(parent_inode), name, self._user(ctx)))

    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        if flags & ~RENAME_FLAGS:
            raise pyfuse3.FUSEError(errno.EINVAL)
        work = self._operations.rename(
            self._inodes.of(parent_inode_old),
            name_old,
            self._inodes.of(parent_inode_new),
            name_new,
            bool(flags & pyfuse3.RENAME_NOREPLACE),
            bool(flags & pyfuse3.RENAME_EXCHANGE),
            self._user(ctx),
        )
        await _told(work)

    # ------------------------------------------------------------------------------------------------------ attributes

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await _told(self._operations.getattr(self._inodes.of(inode), self._user(ctx))))

    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        changes = Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            accessed_ns=attr.st_atime_ns if fields.update_atime else None,
            modified_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        is_open = fh is not None
        return self._entry(
            await _told(self._operations.setattr(self._inodes.of(inode), changes, is_open, self._user(ctx)))
        )

    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        await _told(self._operations.access(self._inodes.of(inode), mode, self._user(ctx)))
        return True

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:  # noqa: ARG002
        space = await _told(self._operations.statfs())
        result = pyfuse3.StatvfsData()
        result.f_bsize = result.f_frsize = FRAGMENT_BYTES
        result.f_blocks = space.total_bytes // FRAGMENT_BYTES
        result.f_bfree = result.f_bavail = space.free_bytes // FRAGMENT_BYTES
        result.f_files = space.inodes + FREE_INODES
        result.f_ffree = result.f_favail = FREE_INODES
        result.f_namemax = NAME_BYTES_MAX
        return result

    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: RequestContext) -> None:
        await _told(self._operations.setxattr(self._inodes.of(inode), name, value, self._user(ctx)))

    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        return await _told(self._operations.getxattr(self._inodes.of(inode), name, self._user(ctx)))

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[bytes]:
        return await _told(self._operations.listxattr(self._inodes.of(inode), self._user(ctx)))

    async def removexattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        await _told(self._operations.removexattr(self._inodes.of(inode), name, self._user(ctx)))

    # ----------------------------------------------------------------------------------------------------- directories

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(await _told(self._operations.opendir(self._inodes.of(inode), self._user(ctx))))

    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        def add(name: bytes, answer: Answer, place: int) -> bool:
            return pyfuse3.readdir_reply(token, FileNameT(name), self._entry(answer), place)

        await _told(self._operations.readdir(fh, start_id, add))

    async def releasedir(self, fh: FileHandleT) -> None:
        await _told(self._operations.releasedir(fh))

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """A change of names is on disk when it is answered."""

    # ----------------------------------------------------------------------------------------------------------- files

    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        work = self._operations.create(self._inodes.of(parent_inode), name, mode, flags, self._user(ctx))
        handle, answer = await _told(work)
        return FileInfo(fh=FileHandleT(handle), keep_cache=False), self._entry(answer)

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        handle, is_kept = await _told(self._operations.open(self._inodes.of(inode), flags, self._user(ctx)))
        return FileInfo(fh=FileHandleT(handle), keep_cache=is_kept)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        data = await _told(self._operations.read(fh, off, size))
        return cast(bytes, data)  # any buffer will do: it is copied to the kernel before anything else runs

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await _told(self._operations.write(fh, off, buf))

    async def flush(self, fh: FileHandleT) -> None:
        await _told(self._operations.flush(fh))

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:  # noqa: ARG002
        await _told(self._operations.fsync(fh))

    async def release(self, fh: FileHandleT) -> None:
        await _told(self._operations.release(fh))

    # ---------------------------------------------------------------------------------------------------------- common

    def _user(self, ctx: RequestContext) -> User:
        return self._callers.user(ctx.uid, ctx.gid, ctx.pid)

    def _entry(self, answer: Answer) -> EntryAttributes:
        entry = EntryAttributes()
        entry.entry_timeout = answer.entry_seconds
        entry.attr_timeout = answer.attributes_seconds
        if answer.attributes is None:
            entry.st_ino = InodeT(0)  # how FUSE is told that a name is missing, and that this may be kept
            return entry
        _fill(entry, answer.attributes)
        entry.st_ino = self._inodes.shown(answer.attributes.inode)
        return entry


def _fill(entry: EntryAttributes, attributes: Attributes) -> None:
    entry.st_mode = ModeT(attributes.mode)
    entry.st_nlink = attributes.links
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.device
    entry.st_size = attributes.size
    entry.st_blksize = BEST_IO_BYTES
    entry.st_blocks = -(-attributes.size // BLOCK_BYTES)
    entry.st_atime_ns = attributes.accessed_ns
    entry.st_mtime_ns = attributes.modified_ns
    entry.st_ctime_ns = attributes.changed_ns


async def _told(work: Awaitable[_Result]) -> _Result:
    """The result, or the error as a number. One that is not expected is told as EIO, and does not end the mount."""
    try:
        return await work
    except GfsError as error:
        number = number_of(error)
        if not isinstance(error, NamespaceError):
            log.warning("%s: %s", os.strerror(number), error.message)
        raise pyfuse3.FUSEError(number) from None
    except OSError as error:
        raise pyfuse3.FUSEError(error.errno or errno.EIO) from None
    except Exception as error:
        log.exception("unexpected")
        raise pyfuse3.FUSEError(errno.EIO) from error
