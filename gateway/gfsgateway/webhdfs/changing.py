"""Names and what belongs to them: directories, renames, removal, permissions, owners, times, copies, links."""

import stat
from typing import Final

from aiohttp import web

from gfsclient import paths
from gfsclient.filesystem import FileSystem
from gfsgateway.webhdfs.ask import Ask, Operation, boolean, missing, nothing
from gfsgateway.webhdfs.exceptions import (
    ACCESS_CONTROL,
    ALREADY_EXISTS,
    FILE_NOT_FOUND,
    ILLEGAL_ARGUMENT,
    IO,
    HdfsRefusal,
    bad_parameter,
)
from gfsprotocol.errors import AlreadyExists, InvalidArgument, NamespaceError, NotADirectory, NotFound
from gfsprotocol.ids import REPLICATION_MAX
from gfsprotocol.messages import Attributes

DIRECTORY_MODE: Final = 0o755
PARENT_BITS: Final = 0o300
"""What a directory needs that another is made in: HDFS adds it for those that are made on the way."""
TIME_MS_MAX: Final = (2**63 - 1) // 10**6
_OVERWRITE: Final = "OVERWRITE"
_RENAME_OPTIONS: Final = {_OVERWRITE, "NONE", "TO_TRASH"}


async def mkdirs(ask: Ask) -> web.StreamResponse:
    """Makes a directory and those above it that are missing; one that is there already is as good."""
    mode = ask.parameters.permission("permission", DIRECTORY_MODE)
    files = await ask.files()
    if ask.path == b"/":
        return boolean(True)
    try:
        if mode & PARENT_BITS != PARENT_BITS:
            await files.mkdir(paths.parent(ask.path), mode=mode | PARENT_BITS, parents=True)
        await files.mkdir(ask.path, mode=mode, parents=True)
    except AlreadyExists as error:
        raise HdfsRefusal(ALREADY_EXISTS, f"Path is not a directory: {ask.shown}") from error
    return boolean(True)


async def create_symlink(ask: Ask) -> web.StreamResponse:
    """Makes a symbolic link to ``destination``, which is kept as it is."""
    target = ask.parameters.required("destination")
    files = await ask.files()
    if ask.parameters.flag("createparent"):
        await files.mkdir(paths.parent(ask.path), mode=DIRECTORY_MODE, parents=True)
    try:
        await files.symlink(target, ask.path)
    except UnicodeEncodeError as error:
        raise bad_parameter("destination", "not a path") from error
    return nothing()


async def rename(ask: Ask) -> web.StreamResponse:
    """Renames: with options it fails with an exception, as FileContext's, without it says whether it did it."""
    target = ask.call.permitted(ask.parameters.path("destination"))
    files = await ask.files()
    options = {option for option in ask.parameters.text("renameoptions").upper().split(",") if option}
    if options - _RENAME_OPTIONS:
        raise bad_parameter("renameoptions", f"No enum constant {min(options - _RENAME_OPTIONS)}")
    if options:
        await _rename_or_fail(ask, files, target, _OVERWRITE in options)
        return nothing()
    return boolean(await _rename_if_possible(ask, files, target))


async def _rename_if_possible(ask: Ask, files: FileSystem, target: bytes) -> bool:
    """HDFS's old rename: into a directory that is there; never over anything."""
    if await _found(files, ask.path) is None or ask.path == b"/":
        return False
    place = await _found(files, target)
    if place is not None and stat.S_ISDIR(place.mode):
        if target == ask.path:
            return True
        target = ask.call.permitted(paths.join(target, ask.path.rpartition(b"/")[2]))
    elif target == ask.path:
        return True
    try:
        await files.rename(ask.path, target, no_replace=True)
    except (NotFound, NotADirectory, AlreadyExists, InvalidArgument):
        return False
    return True


async def _rename_or_fail(ask: Ask, files: FileSystem, target: bytes, is_overwriting: bool) -> None:
    source, place = await _found(files, ask.path), await _found(files, target)
    shown = paths.to_text(target)
    if source is None:
        raise HdfsRefusal(FILE_NOT_FOUND, f"rename source {ask.shown} not found.")
    if target == ask.path:
        raise HdfsRefusal(ALREADY_EXISTS, f"The source {ask.shown} and destination {shown} are the same")
    if target.startswith(ask.path.rstrip(b"/") + b"/"):
        raise HdfsRefusal(IO, f"Rename destination {shown} is a directory or file under source {ask.shown}")
    if place is not None:
        if stat.S_ISDIR(place.mode) != stat.S_ISDIR(source.mode):
            raise HdfsRefusal(IO, f"Source {ask.shown} and destination {shown} must both be directories")
        if not is_overwriting:
            raise HdfsRefusal(ALREADY_EXISTS, f"rename destination {shown} already exists")
    try:
        await files.rename(ask.path, target, no_replace=not is_overwriting)
    except NotFound as error:
        raise HdfsRefusal(FILE_NOT_FOUND, f"rename destination parent {shown} not found.") from error


async def _found(files: FileSystem, path: bytes) -> Attributes | None:
    """What is at a path, be it a symbolic link; None if nothing is."""
    try:
        return await files.stat(path, follow=False)
    except (NotFound, NotADirectory):
        return None


async def delete(ask: Ask) -> web.StreamResponse:
    """Removes a file, or a directory, with ``recursive`` also one that is not empty; whether there was anything."""
    files = await ask.files()
    found = await _found(files, ask.path)
    if found is None or ask.path == b"/":
        return boolean(False)
    try:
        if not stat.S_ISDIR(found.mode):
            await files.remove(ask.path)
        elif ask.parameters.flag("recursive"):
            await files.remove_tree(ask.path)
        else:
            await files.rmdir(ask.path)
    except NotFound:
        return boolean(False)
    return boolean(True)


async def set_permission(ask: Ask) -> web.StreamResponse:
    """Sets the permission bits."""
    files = await ask.files()
    await files.chmod(ask.path, ask.parameters.permission("permission", DIRECTORY_MODE))
    return nothing()


async def set_owner(ask: Ask) -> web.StreamResponse:
    """Sets owner, group, or both."""
    owner, group = ask.parameters.text("owner"), ask.parameters.text("group")
    if not owner and not group:
        raise HdfsRefusal(ILLEGAL_ARGUMENT, "Both owner and group are empty.")
    files = await ask.files()
    uid = ask.names.uid(owner) if owner else -1
    await files.chown(ask.path, uid, ask.names.gid(group) if group else -1)
    return nothing()


async def set_replication(ask: Ask) -> web.StreamResponse:
    """Sets how many copies a file has; whether it is a file."""
    copies = ask.parameters.whole("replication", least=1) or 3
    if copies > REPLICATION_MAX:
        message = f"Requested replication factor of {copies} exceeds maximum of {REPLICATION_MAX} for {ask.shown}"
        raise HdfsRefusal(IO, message)
    files = await ask.files()
    found = await _found(files, ask.path)
    if found is None:
        raise missing(ask.path)
    if stat.S_ISDIR(found.mode):
        return boolean(False)
    await files.set_replication(ask.path, copies)
    return boolean(True)


async def set_times(ask: Ask) -> web.StreamResponse:
    """Sets the times, in milliseconds since the epoch; -1 leaves one as it is."""
    modified_ns, accessed_ns = (_time_ns(ask, name) for name in ("modificationtime", "accesstime"))
    files = await ask.files()
    await files.utime(ask.path, accessed_ns, modified_ns)
    return nothing()


def _time_ns(ask: Ask, name: str) -> int | None:
    time_ms = ask.parameters.time_ms(name)
    if time_ms is not None and time_ms > TIME_MS_MAX:
        raise bad_parameter(name, f"{time_ms} is too far in the future")
    return None if time_ms is None else time_ms * 10**6


async def check_access(ask: Ask) -> web.StreamResponse:
    """Whether the caller may do what ``fsaction`` says, as ``rw-``."""
    action = ask.parameters.required("fsaction")
    bits = zip(action.lower(), "rwx", (4, 2, 1), strict=False)
    if len(action) != len("rwx"):
        raise bad_parameter("fsaction", f'"{action}" is not of the form [r-][w-][x-]')
    mask = 0
    for given, letter, bit in bits:
        if given not in (letter, "-"):
            raise bad_parameter("fsaction", f'"{action}" is not of the form [r-][w-][x-]')
        mask |= bit if given == letter else 0
    files = await ask.files()
    if not await files.access(ask.path, mask):
        raise _denied(ask, action, await _found(files, ask.path))
    return nothing()


def _denied(ask: Ask, action: str, found: Attributes | None) -> NamespaceError:
    what = f'"{ask.shown}"'
    if found is not None:
        owner, group = ask.names.user_name(found.uid), ask.names.group_name(found.gid)
        what += f":{owner}:{group}:{stat.filemode(found.mode)}"
    return HdfsRefusal(ACCESS_CONTROL, f"Permission denied: user={ask.user_name}, access={action}, inode={what}")


GET: Final[dict[str, Operation]] = {"CHECKACCESS": check_access}
PUT: Final[dict[str, Operation]] = {
    "MKDIRS": mkdirs,
    "CREATESYMLINK": create_symlink,
    "RENAME": rename,
    "SETPERMISSION": set_permission,
    "SETOWNER": set_owner,
    "SETREPLICATION": set_replication,
    "SETTIMES": set_times,
}
DELETE: Final[dict[str, Operation]] = {"DELETE": delete}
