"""What users do, whatever protocol they speak: a class for each kind of load, to be mixed with a protocol's base class.

Calls block, and locust's users are greenlets of one thread: each call is made in a thread of gevent's pool, and only
its user waits for it. For that nothing may be monkey-patched: LOCUST_SKIP_MONKEY_PATCH must be set.
"""

import itertools
import random
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Any, ClassVar, Final, Protocol, TypeVar

from gevent import GreenletExit
from gevent.lock import RLock
from gevent.pool import Pool
from gevent.threadpool import ThreadPool
from locust import User, between, task
from locust.exception import RescheduleTask
from locust.user.task import LOCUST_STATE_STOPPING

from gfsprotocol.errors import GfsError
from loadtests.content import WrongContent, check, content
from loadtests.http import RequestFailed
from loadtests.sizes import APPENDS, KIB, MIB, READS, draw
from loadtests.stores import Store

CALLS_MAX: Final = 512
"""At the same time, of all users."""
SMALL_BYTES_MAX: Final = 64 * KIB
STREAM_BYTES: Final = 32 * MIB
PIECE_BYTES: Final = 1 * MIB
SHARED_FILES: Final = 4
SHARED_BYTES: Final = 8 * MIB
RECORDS_PER_LOG: Final = 500
LOGS_KEPT: Final = 4
LISTED_FILES: Final = 300
FILLERS: Final = 20
"""Who make these files at the same time."""

FAILURES: Final = (GfsError, OSError, HTTPException, RequestFailed, WrongContent)
"""What makes a request a failed one, over any protocol; anything else is a mistake in these tests."""

_Result = TypeVar("_Result")


class Unanswered(Exception):
    """The run is over, the time to end it as well, and there is still no answer."""

    def __init__(self) -> None:
        super().__init__("no answer until the end of the run")


_threads = ThreadPool(CALLS_MAX)
_run: Final = secrets.token_hex(4)
TOP: Final = f"/load-{_run}"
"""Where everything of this run is."""


class _Log:
    """The file that its users append to: a new one now and then, and old ones are removed."""

    def __init__(self, stem: str) -> None:
        self._stem = stem
        self._lock = RLock()
        self._turn = 0
        self._left = 0

    def next(self, user: "StoreUser") -> str:
        """Where the next record goes."""
        with self._lock:
            if not self._left:
                user.call("make log", lambda: user.store.make_file(self._path(self._turn + 1)))
                self._turn += 1
                self._left = RECORDS_PER_LOG
                if self._turn > LOGS_KEPT:
                    user.call("remove log", lambda: user.store.remove(self._path(self._turn - LOGS_KEPT)))
            self._left -= 1
            return self._path(self._turn)

    def _path(self, turn: int) -> str:
        return f"{self._stem}-log-{turn}"


class OpenStore(Protocol):
    """Begins to speak to an address; empty if there is no choice."""

    def __call__(self, address: str, /) -> Store: ...


class StoreUser(User):
    """A user of some protocol: ``protocol`` is what the report calls it, ``open_store`` how it is spoken."""

    abstract = True
    protocol: ClassVar[str]
    open_store: ClassVar[OpenStore]
    address = ""
    stores: ClassVar[dict[tuple[str, str], Store]] = {}
    """Those that are open, by protocol and address."""
    _opening: ClassVar[threading.Lock] = threading.Lock()
    appends_together: ClassVar[bool] = True
    """Whether all users may append to one file; else each has its own."""
    wait_time = between(0.0, 0.05)
    _numbers: ClassVar[Iterator[int]] = itertools.count(1)
    _preparing: ClassVar[defaultdict[str, RLock]] = defaultdict(RLock)
    _prepared: ClassVar[set[str]] = set()
    _logs: ClassVar[dict[str, _Log]] = {}

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.random = random.Random(f"{_run} {next(self._numbers)}")
        self.home = f"{TOP}/{self.protocol}-{next(self._numbers)}"

    @property
    def store(self) -> Store:
        """Shared by all users who speak in the same way to the same address."""
        key = self.protocol, self.address
        with self._opening:
            if key not in self.stores:
                self.stores[key] = self.open_store(self.address)
            return self.stores[key]

    def on_start(self) -> None:
        self.call("make directory", lambda: self.store.make_directory(self.home))

    def path(self, kind: str) -> str:
        """Of a new file of this user."""
        return f"{self.home}/{kind}-{next(self._numbers)}"

    def call(
        self,
        name: str,
        work: Callable[[], _Result],
        length: int = 0,
        verify: Callable[[_Result], None] = lambda _result: None,
    ) -> _Result:
        """One request, reported with its time and ``length`` bytes. What ``verify`` raises makes it a failed one.

        After a failure the user begins with another task.
        """
        begun = time.perf_counter()
        try:
            result: _Result = _threads.apply(work)
            seconds = time.perf_counter() - begun
            _threads.apply(verify, (result,))
        except FAILURES as error:
            self._report(name, time.perf_counter() - begun, 0, error)
            raise RescheduleTask from error
        except GreenletExit:
            # Asked to end, and given all of --stop-timeout for it. Who is ended at once has waited for nothing: locust
            # takes a user that has just begun with something for one that rests, and without that option it takes all.
            if self._state == LOCUST_STATE_STOPPING:
                self._report(name, time.perf_counter() - begun, 0, Unanswered())
            raise
        self._report(name, seconds, length, None)
        return result

    def _report(self, name: str, seconds: float, length: int, failure: Exception | None) -> None:
        """To locust."""
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=name,
            response_time=seconds * 1000,
            response_length=length,
            exception=failure,
            context={},
        )

    def prepare(self, key: str, work: Callable[[], None]) -> None:
        """Does ``work`` if no user of this protocol has done it; the others wait for the first."""
        with self._preparing[key]:
            if key not in self._prepared:
                work()
                self._prepared.add(key)

    def next_log(self) -> str:
        """The file that the next record goes to."""
        stem = f"{TOP}/{self.protocol}" if self.appends_together else self.home
        return self._logs.setdefault(stem, _Log(stem)).next(self)


class SmallFiles(StoreUser):
    """A storm of small files: written, read back, removed."""

    abstract = True

    @task
    def cycle(self) -> None:
        path, length = self.path("small"), self.random.randint(1, SMALL_BYTES_MAX)
        data = content(path, length)
        self.call("write small file", lambda: self.store.write(path, data), length)
        self.call("read small file", lambda: self.store.read(path), length, lambda found: check(path, found, length))
        self.call("remove small file", lambda: self.store.remove(path))


class Streams(StoreUser):
    """Large files, written and read from one end to the other."""

    abstract = True

    @task
    def cycle(self) -> None:
        path = self.path("stream")
        pieces = (content(path, PIECE_BYTES, offset) for offset in range(0, STREAM_BYTES, PIECE_BYTES))
        self.call("write stream", lambda: self.store.write_stream(path, pieces), STREAM_BYTES)
        self.call("read stream", lambda: self._read(path), STREAM_BYTES)
        self.call("remove stream", lambda: self.store.remove(path))

    def _read(self, path: str) -> None:
        done = 0

        def take(piece: bytes) -> None:
            nonlocal done
            check(path, piece, len(piece), done)
            done += len(piece)

        self.store.read_stream(path, take)
        if done != STREAM_BYTES:
            raise WrongContent(f"{path}: {done} bytes instead of {STREAM_BYTES}")


class Appends(StoreUser):
    """Records appended to one file, by all if the protocol has that; each is read back from where the system put it."""

    abstract = True

    @task
    def append(self) -> None:
        length = draw(self.random, APPENDS)
        path, name = self.next_log(), self.path("record")
        data = content(name, length)
        offset = self.call("append record", lambda: self.store.append_record(path, data), length)
        self.call(
            "read record",
            lambda: self.store.read(path, length, offset),
            length,
            lambda found: check(name, found, length),
        )


class Mixed(StoreUser):
    """Requests of many sizes, as in the GFS paper's Table 4: reads anywhere in large files, and record appends."""

    abstract = True

    def on_start(self) -> None:
        super().on_start()
        for number in range(SHARED_FILES):
            path = self._shared(number)
            self.prepare(path, lambda path=path: self._write(path))  # type: ignore[misc]

    def _shared(self, number: int) -> str:
        return f"{TOP}/{self.protocol}-shared-{number}"

    def _write(self, path: str) -> None:
        self.call("write shared file", lambda: self.store.write(path, content(path, SHARED_BYTES)), SHARED_BYTES)

    @task(3)
    def read(self) -> None:
        path, length = self._shared(self.random.randrange(SHARED_FILES)), draw(self.random, READS)
        offset = self.random.randrange(SHARED_BYTES - length)
        self.call(
            "read anywhere",
            lambda: self.store.read(path, length, offset),
            length,
            lambda found: check(path, found, length, offset),
        )

    @task(1)
    def append(self) -> None:
        length = draw(self.random, APPENDS)
        path, data = self.next_log(), content(self.path("record"), length)
        self.call("append record", lambda: self.store.append_record(path, data), length)


class Metadata(StoreUser):
    """Names and attributes only."""

    abstract = True

    @task
    def cycle(self) -> None:
        first, second = self.path("name"), self.path("name")
        self.call("make file", lambda: self.store.make_file(first))
        self.call("stat", lambda: self.store.size(first), verify=lambda size: _is_size(first, size, 0))
        self.call("rename", lambda: self.store.rename(first, second))
        self.call("stat missing", lambda: self.store.size(first), verify=lambda size: _is_size(first, size, None))
        self.call("stat", lambda: self.store.size(second), verify=lambda size: _is_size(second, size, 0))
        self.call("remove file", lambda: self.store.remove(second))


class Listings(StoreUser):
    """A directory of some hundred names, listed again and again."""

    abstract = True

    @property
    def _listed(self) -> str:
        return f"{TOP}/{self.protocol}-listed"

    def on_start(self) -> None:
        super().on_start()
        self.prepare(self._listed, self._fill)

    def _fill(self) -> None:
        self.call("make directory", lambda: self.store.make_directory(self._listed))
        Pool(FILLERS).map(self._make, _NAMES)

    def _make(self, name: str) -> None:
        self.call("make file", lambda: self.store.make_file(f"{self._listed}/{name}"))

    @task
    def list(self) -> None:
        self.call("list", lambda: self.store.list(self._listed), verify=_is_complete)


_NAMES: Final = [f"name-{number:04d}" for number in range(LISTED_FILES)]


def _is_complete(names: list[str]) -> None:
    if names != _NAMES:
        raise WrongContent(f"a directory of {LISTED_FILES} names was listed with {len(names)}, or others")


def _is_size(path: str, found: int | None, expected: int | None) -> None:
    if found != expected:
        raise WrongContent(f"{path}: the size is {found}, not {expected}")
