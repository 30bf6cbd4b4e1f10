"""The stores behind a gateway: plain REST, and WebHDFS in two steps as HDFS's clients speak it."""

import json
from collections.abc import Callable, Collection, Iterable
from http.client import HTTPResponse
from typing import Any, Final
from urllib.parse import quote, urlencode

from loadtests.http import HttpClient, RequestFailed
from loadtests.stores import READ_BYTES

CONTENT: Final = {"Content-Type": "application/octet-stream"}
JSON: Final = {"Content-Type": "application/json"}


class RestStore:
    """``/v1`` of one gateway."""

    def __init__(self, base: str) -> None:
        self._http = HttpClient(base)

    def write(self, path: str, data: bytes) -> None:
        self._http.ask("PUT", _file(path), data, CONTENT)

    def read(self, path: str, length: int | None = None, offset: int = 0) -> bytes:
        if length is None and not offset:
            return self._http.ask("GET", _file(path))[1]
        last = "" if length is None else offset + length - 1
        return self._http.ask("GET", _file(path), headers={"Range": f"bytes={offset}-{last}"}, good=(206,))[1]

    def write_stream(self, path: str, pieces: Iterable[bytes]) -> None:
        self._http.ask("PUT", _file(path), pieces, CONTENT)

    def read_stream(self, path: str, take: Callable[[bytes], None]) -> None:
        with self._http.open("GET", _file(path)) as response:
            _take_all(response, take)

    def append_record(self, path: str, data: bytes) -> int:
        _, body = self._http.ask("POST", f"{_file(path)}?append=record", data, CONTENT)
        return int(json.loads(body)["offset"])

    def make_file(self, path: str) -> None:
        self._http.ask("PUT", _file(path), b"", CONTENT | {"If-None-Match": "*"}, good=(201, 412))

    def make_directory(self, path: str) -> None:
        self._http.ask("PUT", f"/v1/directories{quote(path)}?parents=true")

    def list(self, path: str) -> list[str]:
        names: list[str] = []
        query = ""
        while True:
            _, body = self._http.ask("GET", f"/v1/directories{quote(path)}{query}")
            page = json.loads(body)
            names += [entry["name"] for entry in page["entries"]]
            if page["next"] is None:
                return names
            query = "?" + urlencode({"cursor": page["next"]})

    def size(self, path: str) -> int | None:
        response, _ = self._http.ask("HEAD", _file(path), good=(200, 404))
        return None if response.status == 404 else int(response.headers["Content-Length"])

    def rename(self, source: str, target: str) -> None:
        self._http.ask("POST", "/v1/rename", json.dumps({"source": source, "target": target}).encode(), JSON)

    def remove(self, path: str) -> None:
        self._http.ask("DELETE", _file(path))

    def close(self) -> None:
        self._http.close()


class WebHdfsStore:
    """``/webhdfs/v1`` of one gateway. Data is sent to, and read from, where a redirect leads."""

    def __init__(self, base: str) -> None:
        self._http = HttpClient(base)

    def write(self, path: str, data: bytes) -> None:
        self._send("PUT", path, data, op="CREATE", overwrite="true")

    def read(self, path: str, length: int | None = None, offset: int = 0) -> bytes:
        limit = {} if length is None else {"length": length}
        where = self._redirected("GET", path, op="OPEN", offset=offset, **limit)
        return self._http.ask("GET", where)[1]

    def write_stream(self, path: str, pieces: Iterable[bytes]) -> None:
        self._send("PUT", path, pieces, op="CREATE", overwrite="true")

    def read_stream(self, path: str, take: Callable[[bytes], None]) -> None:
        with self._http.open("GET", self._redirected("GET", path, op="OPEN")) as response:
            _take_all(response, take)

    def append_record(self, path: str, data: bytes) -> int:
        """By an append, which has one writer at a time: nobody else may append to this file."""
        offset = self.size(path)
        if offset is None:
            raise RequestFailed(f"{path} is not there")
        self._send("POST", path, data, op="APPEND")
        return offset

    def make_file(self, path: str) -> None:
        if self.size(path) is None:
            self._send("PUT", path, b"", op="CREATE")

    def make_directory(self, path: str) -> None:
        self._ask("PUT", path, op="MKDIRS")

    def list(self, path: str) -> list[str]:
        _, status = self._ask("GET", path, op="LISTSTATUS")
        return [each["pathSuffix"] for each in status["FileStatuses"]["FileStatus"]]

    def size(self, path: str) -> int | None:
        response, status = self._ask("GET", path, good=(200, 404), op="GETFILESTATUS")
        return None if response.status == 404 else int(status["FileStatus"]["length"])

    def rename(self, source: str, target: str) -> None:
        _true(self._ask("PUT", source, op="RENAME", destination=target)[1])

    def remove(self, path: str) -> None:
        _true(self._ask("DELETE", path, op="DELETE")[1])

    def close(self) -> None:
        self._http.close()

    def _ask(
        self, method: str, path: str, good: Collection[int] = (200,), **parameters: object
    ) -> tuple[HTTPResponse, Any]:
        response, body = self._http.ask(method, _operation(path, parameters), good=good)
        return response, json.loads(body)

    def _send(self, method: str, path: str, body: bytes | Iterable[bytes], **parameters: object) -> None:
        self._http.ask(method, self._redirected(method, path, **parameters), body, CONTENT)

    def _redirected(self, method: str, path: str, **parameters: object) -> str:
        """The target of the second step. It must be at the gateway that was asked: there is no other place for it."""
        response, _ = self._http.ask(method, _operation(path, parameters), good=(307,))
        location = response.headers["Location"]
        if not location.startswith(self._http.base + "/"):
            raise RequestFailed(f"redirected to {location}")
        return location.removeprefix(self._http.base)


def _file(path: str) -> str:
    return f"/v1/files{quote(path)}"


def _operation(path: str, parameters: dict[str, object]) -> str:
    return f"/webhdfs/v1{quote(path)}?{urlencode(parameters)}"


def _true(answer: dict[str, bool]) -> None:
    """WebHDFS says by a status of 200 and false that nothing was done."""
    if not answer["boolean"]:
        raise RequestFailed("the answer is false")


def _take_all(response: HTTPResponse, take: Callable[[bytes], None]) -> None:
    while piece := response.read(READ_BYTES):
        take(piece)
