"""Errors as HDFS sends them: the name of a Java exception, a message, and the status that goes with that exception.

Hadoop's client makes an exception of that class again, and programs decide by it what to do next; so the class says
more than the status, which is 403 for whatever is an IOException (``ExceptionHandler`` of HDFS's WebHDFS).
"""

import json
from http import HTTPStatus
from typing import Final

from aiohttp import web

from gfsgateway.problems import DETAIL_CHARACTERS_MAX, RETRY_SECONDS, HttpRefusal
from gfsprotocol import errors
from gfsprotocol.errors import GfsError, InvalidArgument

IO: Final = "java.io.IOException"
FILE_NOT_FOUND: Final = "java.io.FileNotFoundException"
ILLEGAL_ARGUMENT: Final = "java.lang.IllegalArgumentException"
HADOOP_ILLEGAL_ARGUMENT: Final = "org.apache.hadoop.HadoopIllegalArgumentException"
UNSUPPORTED: Final = "java.lang.UnsupportedOperationException"
ACCESS_CONTROL: Final = "org.apache.hadoop.security.AccessControlException"
AUTHENTICATION: Final = "org.apache.hadoop.security.authentication.client.AuthenticationException"
AUTHORIZATION: Final = "org.apache.hadoop.security.authorize.AuthorizationException"
INVALID_TOKEN: Final = "org.apache.hadoop.security.token.SecretManager$InvalidToken"  # noqa: S105 - a class
ALREADY_EXISTS: Final = "org.apache.hadoop.fs.FileAlreadyExistsException"
PARENT_NOT_DIRECTORY: Final = "org.apache.hadoop.fs.ParentNotDirectoryException"
NOT_EMPTY: Final = "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException"
NAME_TOO_LONG: Final = "org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException"
XATTR_NOT_FOUND: Final = "org.apache.hadoop.hdfs.protocol.XAttrNotFoundException"
ACL: Final = "org.apache.hadoop.hdfs.protocol.AclException"
BEING_CREATED: Final = "org.apache.hadoop.hdfs.protocol.AlreadyBeingCreatedException"
BLOCK_MISSING: Final = "org.apache.hadoop.hdfs.BlockMissingException"
RETRIABLE: Final = "org.apache.hadoop.ipc.RetriableException"
RUNTIME: Final = "java.lang.RuntimeException"

_STATUSES: Final = {
    FILE_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ILLEGAL_ARGUMENT: HTTPStatus.BAD_REQUEST,
    HADOOP_ILLEGAL_ARGUMENT: HTTPStatus.BAD_REQUEST,
    UNSUPPORTED: HTTPStatus.BAD_REQUEST,
    AUTHENTICATION: HTTPStatus.UNAUTHORIZED,
    RUNTIME: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_JAVA: Final[list[tuple[type[GfsError], str]]] = [
    (errors.NotFound, FILE_NOT_FOUND),
    (errors.StaleHandle, FILE_NOT_FOUND),
    (errors.AlreadyExists, ALREADY_EXISTS),
    (errors.IsADirectory, ALREADY_EXISTS),
    (errors.NotADirectory, PARENT_NOT_DIRECTORY),
    (errors.DirectoryNotEmpty, NOT_EMPTY),
    (errors.PermissionDenied, ACCESS_CONTROL),
    (errors.NotPermitted, ACCESS_CONTROL),
    (errors.NameTooLong, NAME_TOO_LONG),
    (errors.NoSuchAttribute, XATTR_NOT_FOUND),
    (errors.InvalidArgument, ILLEGAL_ARGUMENT),
    (errors.AuthenticationFailed, AUTHENTICATION),
    (errors.DataLost, BLOCK_MISSING),
    (errors.AvailabilityError, RETRIABLE),
    (errors.NamespaceError, IO),
    (errors.DataError, IO),
]
"""The first that fits."""


class HdfsRefusal(InvalidArgument):
    """What HDFS refuses with a class of its own."""

    def __init__(self, java_class: str, message: str) -> None:
        super().__init__(message)
        self.java_class = java_class


def bad_parameter(name: str, complaint: str) -> HdfsRefusal:
    """The refusal of a parameter, in HDFS's words."""
    return HdfsRefusal(ILLEGAL_ARGUMENT, f'Invalid value for webhdfs parameter "{name}": {complaint}')


def name_of(error: GfsError) -> str:
    """The exception's name without its packages."""
    return _simple(_java_class(error))


def remote_exception(error: GfsError) -> web.Response:
    """The response for an error."""
    java_class = _java_class(error)
    status = _STATUSES.get(java_class, HTTPStatus.FORBIDDEN)
    headers = {}
    if isinstance(error, HttpRefusal):
        status, headers = error.status, error.headers
    elif status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="gfs"'
    elif java_class == RETRIABLE:
        headers["Retry-After"] = str(RETRY_SECONDS)
    response = web.Response(
        status=status, body=document(java_class, error.message), content_type="application/json", headers=headers
    )
    if isinstance(error, HttpRefusal) and error.close:
        response.force_close()
    return response


def document(java_class: str, message: str) -> bytes:
    """The JSON itself."""
    value = {"exception": _simple(java_class), "javaClassName": java_class, "message": message[:DETAIL_CHARACTERS_MAX]}
    return json.dumps({"RemoteException": value}).encode()


def _simple(java_class: str) -> str:
    return java_class.rpartition(".")[2].rpartition("$")[2]


def _java_class(error: GfsError) -> str:
    if isinstance(error, HdfsRefusal):
        return error.java_class
    if isinstance(error, HttpRefusal):
        return IO
    return next((java_class for kind, java_class in _JAVA if isinstance(error, kind)), RUNTIME)
