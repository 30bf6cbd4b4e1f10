"""The users of the native client, the shapes of the load, and what is reported beside locust's own figures.

``python -m loadtests`` starts locust with it, against a cluster of its own.
"""

import sys
import time
from pathlib import Path
from typing import Any, Final

import gevent
from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser

from gfsclient.sync import FileSystem
from loadtests import failover, users
from loadtests.gaps import Gaps
from loadtests.shapes import SHAPES, users_at
from loadtests.stores import NativeStore, Store

HIT_SECONDS: Final = 60.0
"""How long the end of a run waits for a master that was killed to be started again."""

_gaps = Gaps()
_hits: list[gevent.Greenlet] = []
"""What is being done to the leader; its value says what it was."""


class NativeUser(users.StoreUser):
    """Speaks through the client library; the cluster is the one that every client finds (GFS_CONFIG)."""

    abstract = True
    protocol = "native"
    _store: NativeStore | None = None

    @property
    def store(self) -> Store:
        if NativeUser._store is None:
            NativeUser._store = NativeStore(FileSystem.from_config())
        return NativeUser._store


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


@events.init_command_line_parser.add_listener
def _add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--load-shape", choices=SHAPES, default="steady", help="How many users there are when.")
    parser.add_argument(
        "--load-kill",
        metavar="DIR",
        default="",
        help="With the shape failover: the leader of the cluster in this directory is killed, not asked to hand over.",
    )


class Shape(LoadTestShape):
    """What --load-shape says, for --users and --run-time. With ``failover`` the leader is hit after half the time."""

    use_common_options = True
    _was_hit = False

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
def _note(exception: BaseException | None, **_details: Any) -> None:
    if exception is None:
        _gaps.succeeded(time.monotonic())


@events.quitting.add_listener
def _report(environment: Any, **_details: Any) -> None:
    store = NativeUser._store
    if store is not None:
        NativeUser._store = None
        gevent.get_hub().threadpool.apply(store.close)
    total = environment.stats.total
    gevent.joinall(_hits, timeout=HIT_SECONDS)
    lines = [
        f"{total.num_requests} requests, {total.num_failures} failed",
        f"longest time without an answer: {_gaps.longest_seconds:.2f} s",
        *(str(hit.value) for hit in _hits if hit.successful()),
    ]
    was_hit = any(hit.successful() for hit in _hits)
    if environment.parsed_options.load_shape == "failover" and not was_hit:
        lines.append(f"the leader was not hit: {_hits[0].exception if _hits else 'the run ended before'}")
        environment.process_exit_code = 1
    if not total.num_requests:
        environment.process_exit_code = 1
    print("\n".join(lines), file=sys.stderr)
