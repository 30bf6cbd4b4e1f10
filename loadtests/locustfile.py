"""The users of all protocols, the shapes of the load, and what is reported beside locust's own figures.

``python -m loadtests`` starts locust with it, against a cluster of its own.
"""

import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import gevent
from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser

from gfsclient.sync import FileSystem
from loadtests import failover, users
from loadtests.gaps import Gaps
from loadtests.shapes import SHAPES, users_at
from loadtests.stores import NativeStore
from loadtests.webstores import RestStore, WebHdfsStore

HIT_SECONDS: Final = 60.0
"""How long the end of a run waits for a master that was killed to be started again."""

_gaps: defaultdict[str, Gaps] = defaultdict(Gaps)
"""By protocol."""
_hits: list[gevent.Greenlet] = []
"""What is being done to the leader; its value says what it was."""


class NativeUser(users.StoreUser):
    """Speaks through the client library; the cluster is the one that every client finds (GFS_CONFIG)."""

    abstract = True
    protocol = "native"
    open_store = staticmethod(lambda _address: NativeStore(FileSystem.from_config()))


class WebUser(users.StoreUser):
    """Speaks to a gateway; users take turns with the gateways of --load-gateways."""

    abstract = True
    _turns: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        gateways: Sequence[str] = environment.parsed_options.load_gateways.split(",")
        self.address = gateways[next(self._turns) % len(gateways)].rstrip("/")


class RestUser(WebUser):
    """Speaks plain REST."""

    abstract = True
    protocol = "rest"
    open_store = RestStore


class WebHdfsUser(WebUser):
    """Speaks WebHDFS, which has no record append: each user appends to a file of its own."""

    abstract = True
    protocol = "webhdfs"
    appends_together = False
    open_store = WebHdfsStore


class NativeSmallFiles(users.SmallFiles, NativeUser):
    weight = 3


class NativeStreams(users.Streams, NativeUser):
    weight = 1


class NativeAppends(users.Appends, NativeUser):
    weight = 2


class NativeMixed(users.Mixed, NativeUser):
    weight = 4


class NativeMetadata(users.Metadata, NativeUser):
    weight = 3


class NativeListings(users.Listings, NativeUser):
    weight = 1


class RestSmallFiles(users.SmallFiles, RestUser):
    weight = 3


class RestStreams(users.Streams, RestUser):
    weight = 1


class RestAppends(users.Appends, RestUser):
    weight = 2


class RestMixed(users.Mixed, RestUser):
    weight = 4


class RestMetadata(users.Metadata, RestUser):
    weight = 3


class RestListings(users.Listings, RestUser):
    weight = 1


class WebHdfsSmallFiles(users.SmallFiles, WebHdfsUser):
    weight = 3


class WebHdfsStreams(users.Streams, WebHdfsUser):
    weight = 1


class WebHdfsAppends(users.Appends, WebHdfsUser):
    weight = 2


class WebHdfsMixed(users.Mixed, WebHdfsUser):
    weight = 4


class WebHdfsMetadata(users.Metadata, WebHdfsUser):
    weight = 3


class WebHdfsListings(users.Listings, WebHdfsUser):
    weight = 1


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--load-shape", choices=SHAPES, default="steady", help="How many users there are when.")
    parser.add_argument(
        "--load-kill",
        metavar="DIR",
        default="",
        help="With the shape failover: the leader of the cluster in this directory is killed, not asked to hand over.",
    )
    parser.add_argument(
        "--load-gateways",
        metavar="URLS",
        default="http://127.0.0.1:9600",
        help="Where the users of REST and WebHDFS go, with commas between.",
    )


class Shape(LoadTestShape):
    """What --load-shape says, for --users and --run-time. With ``failover`` the leader is hit after half the time."""

    use_common_options = True
    _was_hit = False

    def reset_time(self) -> None:
        """Another run begins."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._was_hit = False

    def tick(self) -> tuple[int, float] | None:
        options: Any = self.runner.environment.parsed_options if self.runner else None
        seconds, most = float(options.run_time or 60), int(options.num_users or 1)
        part = self.get_run_time() / seconds  # type: ignore[no-untyped-call]
        if part >= 1:
            return None
        if options.load_shape == "failover" and part >= 0.5 and not self._was_hit:
            self._was_hit = True
            _hits.append(gevent.spawn(_hit, options.load_kill))
        return users_at(options.load_shape, most, part), float(options.spawn_rate or most)


def _hit(directory: str) -> str:
    work = (lambda: failover.kill_leader(Path(directory))) if directory else failover.hand_over
    return str(gevent.get_hub().threadpool.apply(work))


@events.request.add_listener
def _note(request_type: str, exception: BaseException | None, **_details: Any) -> None:
    if exception is None:
        _gaps[request_type].succeeded(time.monotonic())


@events.test_stopping.add_listener
def _end(**_details: Any) -> None:
    for gaps in _gaps.values():
        gaps.ended(time.monotonic())


@events.quitting.add_listener
def _report(environment: Any, **_details: Any) -> None:
    stores = list(users.StoreUser.stores.values())
    users.StoreUser.stores.clear()
    for store in stores:
        gevent.get_hub().threadpool.apply(store.close)
    gevent.joinall(_hits, timeout=HIT_SECONDS)
    lines = [*_counts(environment.stats), *(str(hit.value) for hit in _hits if hit.successful())]
    if environment.parsed_options.headless:
        lines += _complaints(environment)
    print("\n".join(lines), file=sys.stderr)


def _complaints(environment: Any) -> list[str]:
    """What makes a run worth nothing; the exit code says so, too."""
    complaints = []
    was_hit = any(hit.successful() for hit in _hits)
    if environment.parsed_options.load_shape == "failover" and not was_hit:
        complaints.append(f"the leader was not hit: {_hits[0].exception if _hits else 'the run ended before'}")
    if not environment.stats.total.num_requests:
        complaints.append("nothing was requested")
    if complaints:
        environment.process_exit_code = 1
    return complaints


def _counts(stats: Any) -> list[str]:
    """A line for each protocol, and one for each kind of error."""
    requests: defaultdict[str, int] = defaultdict(int)
    failures: defaultdict[str, int] = defaultdict(int)
    for (_, protocol), entry in stats.entries.items():
        requests[protocol] += entry.num_requests
        failures[protocol] += entry.num_failures
    lines = [
        f"{protocol}: {count} requests, {failures[protocol]} failed; "
        f"longest time without an answer: {_gaps[protocol].longest_seconds:.2f} s"
        for protocol, count in sorted(requests.items())
    ]
    lines.append(f"{stats.total.num_requests} requests, {stats.total.num_failures} failed")
    return lines + [
        f"{error.method} {error.name}, {error.occurrences} times: {error.error}" for error in stats.errors.values()
    ]
