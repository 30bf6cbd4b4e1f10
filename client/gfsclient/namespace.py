"""The calls of the async API that concern names and attributes: one request to the masters each."""

import stat
from collections.abc import AsyncIterator, Sequence
from typing import Final

from gfsclient import paths
from gfsclient.masters import Masters
from gfsclient.paths import PathLike
from gfsprotocol import messages as msg
from gfsprotocol.errors import NotADirectory, NotFound, PermissionDenied
from gfsprotocol.ids import PURGED_ENTRIES_MAX, ROOT_INODE
from gfsprotocol.messages import Attributes

PAGE_ENTRIES: Final = 1000
NOW: Final = -1
"""As a time: the master's clock."""


class Namespace:
    """Names, attributes, trash, totals. Paths are absolute: ``str``, ``bytes`` or ``os.PathLike``.

    Everything may raise the NamespaceErrors that POSIX has for it, and an AvailabilityError when no master has answered
    until the deadline.
    """

    def __init__(self, masters: Masters) -> None:
        self._masters = masters

    # ------------------------------------------------------------------------------------------------------ attributes

    async def stat(self, path: PathLike, follow: bool = True) -> Attributes:
        """What a path leads to; with ``follow`` off, a symbolic link itself."""
        return await self._attributes(msg.Stat(paths.to_bytes(path), follow=follow))

    async def exists(self, path: PathLike) -> bool:
        """Whether a path leads to anything."""
        try:
            await self.stat(path)
        except (NotFound, NotADirectory):
            return False
        return True

    async def is_dir(self, path: PathLike) -> bool:
        """Whether a path leads to a directory."""
        try:
            return stat.S_ISDIR((await self.stat(path)).mode)
        except (NotFound, NotADirectory):
            return False

    async def chmod(self, path: PathLike, mode: int, follow: bool = True) -> None:
        """Sets the permission bits."""
        await self._attributes(msg.SetAttributes(paths.to_bytes(path), mode=mode, follow=follow))

    async def chown(self, path: PathLike, uid: int = -1, gid: int = -1, follow: bool = True) -> None:
        """Sets owner and group; -1 leaves one as it is."""
        owner, group = (None if number == -1 else number for number in (uid, gid))
        await self._attributes(msg.SetAttributes(paths.to_bytes(path), uid=owner, gid=group, follow=follow))

    async def utime(
        self, path: PathLike, accessed_ns: int | None = NOW, modified_ns: int | None = NOW, follow: bool = True
    ) -> None:
        """Sets the times, in nanoseconds since the epoch: NOW is the master's clock, None leaves one as it is."""
        body = msg.SetAttributes(paths.to_bytes(path), accessed_ns=accessed_ns, modified_ns=modified_ns, follow=follow)
        await self._attributes(body)

    async def truncate(self, path: PathLike, size: int) -> None:
        """Cuts a file to ``size`` bytes, or extends it with zeros."""
        await self._attributes(msg.SetAttributes(paths.to_bytes(path), size=size))

    async def set_replication(self, path: PathLike, n: int) -> None:
        """How many copies a file's chunks shall have; for a directory, those of files made in it from now on."""
        await self._attributes(msg.SetReplication(paths.to_bytes(path), replication=n))

    async def access(self, path: PathLike, mask: int) -> bool:
        """Whether we may do what ``mask`` says: 4 read, 2 write, 1 search, as :func:`os.access`."""
        try:
            await self._done(msg.CheckAccess(paths.to_bytes(path), mask=mask))
        except PermissionDenied:
            return False
        return True

    async def get_xattr(self, path: PathLike, name: PathLike, follow: bool = True) -> bytes:
        """The value of an extended attribute; NoSuchAttribute if there is none."""
        body = msg.GetXattr(paths.to_bytes(path), name=paths.encoded(name), follow=follow)
        return (await self._masters.expect(body, msg.Data)).data

    async def set_xattr(
        self,
        path: PathLike,
        name: PathLike,
        value: bytes,
        *,
        create: bool = False,
        replace: bool = False,
        follow: bool = True,
    ) -> None:
        """Sets an extended attribute; ``create`` refuses an existing one, ``replace`` a missing one."""
        encoded = paths.encoded(name)
        await self._done(msg.SetXattr(paths.to_bytes(path), ROOT_INODE, encoded, value, create, replace, follow))

    async def list_xattrs(self, path: PathLike, follow: bool = True) -> list[str]:
        """The names of the extended attributes, in order."""
        names = await self._masters.expect(msg.ListXattrs(paths.to_bytes(path), follow=follow), msg.Names)
        return [paths.to_text(name) for name in names.names]

    async def remove_xattr(self, path: PathLike, name: PathLike, follow: bool = True) -> None:
        """Removes an extended attribute; NoSuchAttribute if there is none."""
        await self._done(msg.RemoveXattr(paths.to_bytes(path), name=paths.encoded(name), follow=follow))

    async def locate(self, path: PathLike, first: int = 0, count: int = 16) -> msg.Locations:
        """Where the chunks of a file are, from number ``first`` on: ``count`` of them, or as many as a reply has."""
        return await self._masters.expect(msg.Locate(paths.to_bytes(path), ROOT_INODE, first, count), msg.Locations)

    # ----------------------------------------------------------------------------------------------------- directories

    async def listdir(self, path: PathLike) -> list[str]:
        """The names in a directory, in byte order."""
        return [name async for name, _ in self.scandir(path)]

    async def scandir(self, path: PathLike) -> AsyncIterator[tuple[str, Attributes]]:
        """Names and attributes, page by page: what is added or removed meanwhile may or may not be among them."""
        directory, after, more = paths.to_bytes(path), b"", True
        while more:
            page = await self._masters.expect(msg.List(directory, after=after, limit=PAGE_ENTRIES), msg.Listing)
            for entry in page.entries:
                yield paths.to_text(entry.name), entry.attributes
            more = page.more and bool(page.entries)
            after = page.entries[-1].name if page.entries else after

    async def list_page(self, path: PathLike, after: PathLike = b"", limit: int = PAGE_ENTRIES) -> msg.Listing:
        """Up to ``limit`` entries (1,000 at most) whose names come behind ``after`` in byte order."""
        return await self._masters.expect(
            msg.List(paths.to_bytes(path), after=paths.encoded(after), limit=limit), msg.Listing
        )

    async def walk(self, path: PathLike) -> AsyncIterator[tuple[str, list[str], list[str]]]:
        """(directory, names of directories, other names) of a tree, from the top, as :func:`os.walk`.

        Names removed from the second list are not descended into. Symbolic links are not followed.
        """
        waiting = [paths.to_bytes(path)]
        while waiting:
            directory = waiting.pop()
            directories: list[str] = []
            others: list[str] = []
            async for name, attributes in self.scandir(directory):
                (directories if stat.S_ISDIR(attributes.mode) else others).append(name)
            yield paths.to_text(directory), directories, others
            waiting.extend(paths.join(directory, paths.encoded(name)) for name in reversed(directories))

    async def mkdir(self, path: PathLike, mode: int = 0o777, parents: bool = False) -> None:
        """Makes a directory; ``parents`` makes missing ones above it and accepts an existing one, as ``mkdir -p``."""
        await self._attributes(msg.Mkdir(paths.to_bytes(path), mode=mode, parents=parents))

    async def make_file(self, path: PathLike, permissions: int = 0o666, exclusive: bool = False) -> Attributes:
        """Makes an empty file in one request; an existing one is left as it is, or refused if ``exclusive``."""
        body = msg.Create(paths.to_bytes(path), mode=permissions, exclusive=exclusive, open=False)
        return await self._attributes(body)

    async def rmdir(self, path: PathLike) -> None:
        """Removes an empty directory."""
        await self._done(msg.Rmdir(paths.to_bytes(path)))

    # ----------------------------------------------------------------------------------------------------------- names

    async def remove(self, path: PathLike, expected: msg.FileVersion | None = None) -> None:
        """Removes a name that is not a directory's; if it is the file that is ``expected``, else ConditionFailed."""
        await self._done(msg.Unlink(paths.to_bytes(path), expected=expected))

    async def remove_tree(self, path: PathLike) -> None:
        """Removes a file or a directory with all that is in it, in one step."""
        await self._done(msg.RemoveTree(paths.to_bytes(path)))

    async def rename(
        self,
        source: PathLike,
        target: PathLike,
        no_replace: bool = False,
        exchange: bool = False,
        expected: msg.FileVersion | None = None,
    ) -> None:
        """Renames, replacing what is at ``target`` as rename(2) does; or not, or exchanging the two.

        With ``expected``, only if that is at ``target``; else ConditionFailed.
        """
        old, new = paths.to_bytes(source), paths.to_bytes(target)
        await self._done(msg.Rename(old, target=new, no_replace=no_replace, exchange=exchange, expected=expected))

    async def link(self, source: PathLike, target: PathLike) -> None:
        """Gives the file at ``source`` the second name ``target``."""
        await self._attributes(msg.Link(paths.to_bytes(source), target=paths.to_bytes(target)))

    async def symlink(self, target: PathLike, path: PathLike) -> None:
        """Makes ``path`` a symbolic link to ``target``, which is kept as it is."""
        await self._attributes(msg.Symlink(paths.to_bytes(path), target=paths.target_bytes(target)))

    async def readlink(self, path: PathLike) -> str:
        """Where a symbolic link points."""
        return paths.to_text((await self._masters.expect(msg.ReadLink(paths.to_bytes(path)), msg.Data)).data)

    # ----------------------------------------------------------------------------------------------------------- trash

    async def move_to_trash(self, path: PathLike, keep_seconds: int = 86_400) -> msg.TrashEntry:
        """As :meth:`remove_tree`, but it can be brought back for ``keep_seconds``."""
        body = msg.MoveToTrash(paths.to_bytes(path), keep_seconds=keep_seconds)
        return (await self._masters.expect(body, msg.TrashReply)).entry

    async def list_trash(self) -> list[msg.TrashEntry]:
        """What we can bring back (root: everyone's), in order of deletion."""
        entries: list[msg.TrashEntry] = []
        more = True
        while more:
            after = entries[-1].deleted_ns if entries else 0
            page = await self._masters.expect(msg.ListTrash(after, PAGE_ENTRIES), msg.Trash)
            entries.extend(page.entries)
            more = page.more and bool(page.entries)
        return entries

    async def restore_trash(self, inode: int, path: PathLike | None = None) -> Attributes:
        """Brings an entry back to where it was, or to ``path``."""
        place = b"" if path is None else paths.to_bytes(path)
        return await self._attributes(msg.RestoreTrash(place, inode=inode))

    async def empty_trash(self, inodes: Sequence[int] = ()) -> int:
        """Removes entries for good, all of ours if none is named; how many."""
        total = 0
        if inodes:
            for start in range(0, len(inodes), PURGED_ENTRIES_MAX):
                total += await self._purge(tuple(inodes[start : start + PURGED_ENTRIES_MAX]))
            return total
        while True:
            count = await self._purge(())
            total += count
            if count < PURGED_ENTRIES_MAX:
                return total

    async def _purge(self, inodes: tuple[int, ...]) -> int:
        return (await self._masters.expect(msg.EmptyTrash(inodes), msg.Count)).count

    # ---------------------------------------------------------------------------------------------------------- totals

    async def summarize(self, path: PathLike) -> msg.Summary:
        """Totals of a subtree."""
        return await self._masters.expect(msg.Summarize(paths.to_bytes(path)), msg.Summary)

    async def space(self, deadline_seconds: float | None = None) -> msg.Space:
        """The cluster's sizes, as statfs(2)."""
        return await self._masters.expect(msg.StatSpace(), msg.Space, deadline_seconds)

    async def status(self) -> msg.Status:
        """What the leader knows of the cluster's health."""
        return await self._masters.expect(msg.ClusterStatus(), msg.Status)

    async def list_open(self) -> list[msg.OpenFile]:
        """Files that are open for writing (for others than root: one's own)."""
        files: list[msg.OpenFile] = []
        after = 0
        while True:
            page = await self._masters.expect(msg.ListOpen(after, PAGE_ENTRIES), msg.OpenFiles)
            files.extend(page.files)
            after = page.next
            if not after:
                return files

    async def _attributes(self, body: msg.RequestBody) -> Attributes:
        return (await self._masters.expect(body, msg.AttributesReply)).attributes

    async def _done(self, body: msg.RequestBody) -> None:
        await self._masters.expect(body, msg.Done)
