"""Extended attributes, and access control lists as far as the mode of a file says all that they say."""

import base64
import binascii
import json
import re
from enum import Enum
from typing import Final

from aiohttp import web

from gfsgateway.webhdfs.ask import Ask, Operation, answer, nothing
from gfsgateway.webhdfs.exceptions import ACL, HADOOP_ILLEGAL_ARGUMENT, IO, XATTR_NOT_FOUND, HdfsRefusal, bad_parameter
from gfsgateway.webhdfs.statuses import PERMISSIONS
from gfsprotocol.errors import AlreadyExists, NoSuchAttribute

_NAMESPACES: Final = ("user", "trusted", "system", "security", "raw")
_SHIFTS: Final = {"user": 6, "group": 3, "other": 0}
_ENTRY: Final = re.compile(r"(?:(default):)?(user|group|mask|other):([^:]*)(?::([r-][w-][x-])?)?")
_NO_ACLS: Final = (
    "The ACL operation has been rejected.  Support for ACLs beyond the permissions of owner, group and others"
)


class Encoding(Enum):
    """How a value stands in JSON (XAttrCodec)."""

    TEXT = "text"
    HEX = "hex"
    BASE64 = "base64"


# ------------------------------------------------------------------------------------------------ extended attributes


async def get_xattrs(ask: Ask) -> web.StreamResponse:
    """The attributes that are named, all of them if none is."""
    encoding = _encoding(ask)
    names = ask.parameters.texts("xattr.name")
    files = await ask.files()
    found = []
    for name in names or await files.list_xattrs(ask.path):
        try:
            value = await files.get_xattr(ask.path, _checked(name))
        except NoSuchAttribute as error:
            if not names:
                continue  # removed meanwhile
            message = "At least one of the attributes provided was not found."
            raise HdfsRefusal(XATTR_NOT_FOUND, message) from error
        found.append({"name": name, "value": encoded(value, encoding)})
    return answer({"XAttrs": found})


async def list_xattrs(ask: Ask) -> web.StreamResponse:
    """The names; a JSON text inside the JSON."""
    files = await ask.files()
    return answer({"XAttrNames": json.dumps(await files.list_xattrs(ask.path))})


async def set_xattr(ask: Ask) -> web.StreamResponse:
    """Sets an attribute; the flags say whether it may be new, and whether it may be there."""
    name = _checked(ask.parameters.required("xattr.name"))
    value = decoded(ask.parameters.text("xattr.value"))
    flags = {flag for flag in ask.parameters.text("flag").upper().split(",") if flag}
    if flags - {"CREATE", "REPLACE"}:
        raise bad_parameter("flag", f"No enum constant {min(flags - {'CREATE', 'REPLACE'})}")
    if not flags:
        raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, "A flag must be specified.")
    files = await ask.files()
    try:
        await files.set_xattr(ask.path, name, value, create="REPLACE" not in flags, replace="CREATE" not in flags)
    except AlreadyExists as error:
        raise _unflagged(name, "already exists", "REPLACE") from error
    except NoSuchAttribute as error:
        raise _unflagged(name, "does not exist", "CREATE") from error
    return nothing()


def _unflagged(name: str, state: str, flag: str) -> HdfsRefusal:
    return HdfsRefusal(IO, f"XAttr: {name} {state}. The {flag} flag must be specified.")


async def remove_xattr(ask: Ask) -> web.StreamResponse:
    """Removes an attribute."""
    name = _checked(ask.parameters.required("xattr.name"))
    files = await ask.files()
    try:
        await files.remove_xattr(ask.path, name)
    except NoSuchAttribute as error:
        raise HdfsRefusal(XATTR_NOT_FOUND, "No matching attributes found for remove operation") from error
    return nothing()


def _checked(name: str) -> str:
    prefix, dot, rest = name.partition(".")
    if prefix.lower() not in _NAMESPACES or not dot or not rest:
        message = "An XAttr name must be prefixed with user/trusted/security/system/raw, followed by a '.'"
        raise HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, message)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise bad_parameter("xattr.name", "not UTF-8") from error
    return f"{prefix.lower()}.{rest}"


def _encoding(ask: Ask) -> Encoding:
    name = ask.parameters.text("encoding").lower()
    try:
        return Encoding(name) if name else Encoding.HEX
    except ValueError as error:
        raise bad_parameter("encoding", f"No enum constant {name.upper()}") from error


def encoded(value: bytes, encoding: Encoding) -> str:
    """A value as JSON has it: the encoding can be told from how it begins."""
    if encoding is Encoding.TEXT:
        return f'"{value.decode("utf-8", "replace")}"'
    if encoding is Encoding.HEX:
        return "0x" + value.hex()
    return "0s" + base64.b64encode(value).decode()


def decoded(text: str) -> bytes:
    """A value from a parameter, in any encoding, or as it is."""
    try:
        if text[:2].lower() == "0x":
            return binascii.unhexlify(text[2:])
        if text[:2].lower() == "0s":
            return base64.b64decode(text[2:], validate=True)
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1]
        return text.encode()
    except ValueError as error:
        raise bad_parameter("xattr.value", "cannot be decoded") from error


# ----------------------------------------------------------------------------------------------- access control lists


async def get_acl_status(ask: Ask) -> web.StreamResponse:
    """Owner, group and permissions; there are never entries beside them."""
    files = await ask.files()
    found = await files.stat(ask.path)
    status = {
        "entries": [],
        "group": ask.names.group_name(found.gid),
        "owner": ask.names.user_name(found.uid),
        "permission": f"{found.mode & PERMISSIONS:o}",
        "stickyBit": bool(found.mode & 0o1000),
    }
    return answer({"AclStatus": status})


async def set_acl(ask: Ask) -> web.StreamResponse:
    """Sets the permissions, if the list says no more than these do. AclException if it does."""
    entries = acl_entries(ask.parameters.required("aclspec"))
    if set(entries) != set(_SHIFTS):
        raise HdfsRefusal(ACL, "Invalid ACL: the user, group and other entries are required.")
    return await _apply(ask, entries)


async def modify_acl_entries(ask: Ask) -> web.StreamResponse:
    """Sets the permissions that are named."""
    return await _apply(ask, acl_entries(ask.parameters.required("aclspec")))


async def _apply(ask: Ask, entries: dict[str, int]) -> web.StreamResponse:
    files = await ask.files()
    found = await files.stat(ask.path)
    mode = found.mode & 0o7777
    for kind, bits in entries.items():
        mode = mode & ~(0o7 << _SHIFTS[kind]) | bits << _SHIFTS[kind]
    await files.chmod(ask.path, mode)
    return nothing()


async def remove_acl(ask: Ask) -> web.StreamResponse:
    """Removes entries beside the permissions: there are none, so all that is left to do is to look for the file."""
    files = await ask.files()
    await files.stat(ask.path)
    return nothing()


async def remove_acl_entries(ask: Ask) -> web.StreamResponse:
    """As :func:`remove_acl`, for named entries; those of owner, group and others cannot be removed."""
    for entry in ask.parameters.required("aclspec").split(","):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise _invalid_entry(entry)
        if match[1] is None and match[2] in _SHIFTS and not match[3]:
            raise HdfsRefusal(ACL, "Invalid ACL: the user, group and other entries are required.")
    return await remove_acl(ask)


def acl_entries(spec: str) -> dict[str, int]:
    """The permission bits by ``user``, ``group`` and ``other``. AclException for entries that a mode cannot hold."""
    entries: dict[str, int] = {}
    for entry in spec.split(","):
        match = _ENTRY.fullmatch(entry)
        if match is None or match[4] is None:
            raise _invalid_entry(entry)
        scope, kind, name, permissions = match.groups()
        if scope or name or kind == "mask":
            raise HdfsRefusal(ACL, _NO_ACLS)
        if kind in entries:
            raise HdfsRefusal(ACL, "Invalid ACL: multiple entries with same scope, type and name.")
        entries[kind] = sum(bit for letter, bit in zip(permissions, (4, 2, 1), strict=True) if letter != "-")
    return entries


def _invalid_entry(entry: str) -> HdfsRefusal:
    return HdfsRefusal(HADOOP_ILLEGAL_ARGUMENT, f"Invalid <aclSpec> : {entry}")


GET: Final[dict[str, Operation]] = {
    "GETXATTRS": get_xattrs,
    "LISTXATTRS": list_xattrs,
    "GETACLSTATUS": get_acl_status,
}
PUT: Final[dict[str, Operation]] = {
    "SETXATTR": set_xattr,
    "REMOVEXATTR": remove_xattr,
    "SETACL": set_acl,
    "MODIFYACLENTRIES": modify_acl_entries,
    "REMOVEACL": remove_acl,
    "REMOVEDEFAULTACL": remove_acl,
    "REMOVEACLENTRIES": remove_acl_entries,
}
