"""The stores that the load tests use do what they promise, over plain REST and over WebHDFS, and tell what fails."""

from collections.abc import Callable

import pytest

from loadtests.content import content
from loadtests.http import HttpClient, RequestFailed
from loadtests.stores import Store
from loadtests.webstores import RestStore, WebHdfsStore
from tests.cluster.harness import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(params=[RestStore, WebHdfsStore])
def store(request: pytest.FixtureRequest, served: Cluster) -> Store:
    """Made for the first gateway; closed by each test."""
    made: Callable[[str], Store] = request.param
    return made(served.gateway_url())


def _everything(store: Store, top: str) -> None:
    store.make_directory(f"{top}/deep")
    store.make_directory(f"{top}/deep")
    store.write(f"{top}/a file", content("a", 5000))
    assert store.read(f"{top}/a file") == content("a", 5000)
    assert store.read(f"{top}/a file", 100, 4000) == content("a", 100, 4000)
    store.write(f"{top}/a file", b"shorter")
    assert store.read(f"{top}/a file", offset=2) == b"orter"

    store.write_stream(f"{top}/stream", (content("s", 70_000, start) for start in range(0, 700_000, 70_000)))
    pieces: list[bytes] = []
    store.read_stream(f"{top}/stream", pieces.append)
    assert b"".join(pieces) == content("s", 700_000)

    store.make_file(f"{top}/log")
    offsets = [store.append_record(f"{top}/log", record) for record in (b"first", b"second")]
    assert [store.read(f"{top}/log", size, at) for at, size in zip(offsets, (5, 6), strict=True)] == [
        b"first",
        b"second",
    ]
    store.make_file(f"{top}/log")
    assert store.size(f"{top}/log") == offsets[1] + 6

    store.rename(f"{top}/a file", f"{top}/deep/b")
    assert (store.size(f"{top}/a file"), store.size(f"{top}/deep/b")) == (None, 7)
    assert store.list(top) == ["deep", "log", "stream"]
    store.remove(f"{top}/deep/b")
    assert store.list(f"{top}/deep") == []
    for call in (lambda: store.read(f"{top}/gone"), lambda: store.remove(f"{top}/gone")):
        with pytest.raises(RequestFailed):
            call()


def test_a_store_does_what_it_promises(store: Store) -> None:
    try:
        _everything(store, f"/stores-{type(store).__name__}")
    finally:
        store.close()


def test_connections_are_kept_unless_a_body_is_left_unread(served: Cluster) -> None:
    client = HttpClient(served.gateway_url())
    try:
        client.ask("PUT", "/v1/files/kept", content("k", 3_000_000))
        with client.open("GET", "/v1/files/kept") as first:
            assert first.read(10) == content("k", 10)
        assert not client._idle
        for _ in range(3):
            client.ask("GET", "/healthz")
        assert len(client._idle) == 1
    finally:
        client.close()
