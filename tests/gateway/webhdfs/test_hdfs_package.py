"""The client of the package ``hdfs``: all that it can do."""

import os
from pathlib import Path

import hdfs
import pytest
import requests
from hdfs.util import HdfsError

from tests.cluster.harness import Cluster
from tests.gateway.webhdfs.conftest import ME

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_writing_and_reading(client: hdfs.Client) -> None:
    client.write("d/file", b"0123456789", permission="640", replication=1, blocksize=65536)
    with client.read("d/file") as reader:
        assert reader.read() == b"0123456789"
    with client.read("d/file", offset=2, length=3) as reader:
        assert reader.read() == b"234"
    with pytest.raises(HdfsError, match="already exists"):
        client.write("d/file", b"x")
    client.write("d/file", (b"%d," % number for number in range(1000)), overwrite=True)
    with client.read("d/file", chunk_size=100) as pieces:
        assert b"".join(pieces) == b"".join(b"%d," % number for number in range(1000))
    with client.write("text", encoding="utf-8") as writer:
        writer.write("one\n")
        writer.write("two\n")
    client.write("text", "drei\n", append=True, encoding="utf-8")
    with client.read("text", encoding="utf-8", delimiter="\n") as lines:
        assert list(lines) == ["one", "two", "drei", ""]
    with pytest.raises(HdfsError, match="does not exist"), client.read("none"):
        pass


def test_status_and_content(client: hdfs.Client) -> None:
    client.write("d/file", b"12345", replication=2)
    status = client.status("d/file")
    assert (status["type"], status["length"], status["owner"]) == ("FILE", 5, ME)
    assert client.status("none", strict=False) is None
    content = client.content("d")
    assert (content["fileCount"], content["length"], content["spaceConsumed"]) == (1, 5, 10)
    with pytest.raises(HdfsError, match="does not exist"):
        client.status("none")


def test_listing_and_walking(client: hdfs.Client) -> None:
    client.write("a/b/one", b"1")
    client.write("a/two", b"2")
    assert client.list("a") == ["b", "two"]
    assert [(name, status["type"]) for name, status in client.list("a", status=True)] == [
        ("b", "DIRECTORY"),
        ("two", "FILE"),
    ]
    walked = [(path.removeprefix(client.root), directories, files) for path, directories, files in client.walk("")]
    assert walked == [("", ["a"], []), ("/a", ["b"], ["two"]), ("/a/b", [], ["one"])]
    with pytest.raises(HdfsError, match="not a directory"):
        client.list("a/two")


def test_names(client: hdfs.Client) -> None:
    client.makedirs("a/b", permission="750")
    assert client.status("a/b")["permission"] == "750"
    client.write("a/file", b"x")
    client.rename("a/file", "a/b")
    assert client.list("a/b") == ["file"]
    with pytest.raises(HdfsError, match="Unable to rename"):
        client.rename("a/none", "a/x")
    with pytest.raises(HdfsError, match="not empty"):
        client.delete("a")
    assert client.delete("a", recursive=True) and not client.delete("a")


def test_trash(client: hdfs.Client) -> None:
    client.write("file", b"precious")
    assert client.delete("file", skip_trash=False)
    assert client.status("file", strict=False) is None
    kept = f"/user/{ME}/.Trash/Current"
    (when,) = client.list(kept)
    assert client.list(f"{kept}/{when}") == ["file"]
    client.delete(kept, recursive=True)


def test_attributes(client: hdfs.Client) -> None:
    client.write("file", b"x")
    client.set_permission("file", "600")
    client.set_times("file", modification_time=1_320_171_722_771)
    client.set_replication("file", 1)
    status = client.status("file")
    assert (status["permission"], status["modificationTime"], status["replication"]) == ("600", 1_320_171_722_771, 1)
    with pytest.raises(HdfsError, match="not a file"):
        client.set_replication("", 1)
    client.set_owner("file", owner=ME)
    assert client.acl_status("file")["entries"] == []
    client.set_acl("file", "user::rwx,group::---,other::---")
    client.set_acl("file", "group::r--", clear=False)
    assert client.status("file")["permission"] == "740"
    with pytest.raises(HdfsError, match="ACL"):
        client.set_acl("file", "user:nobody:rwx", clear=False)
    client.remove_acl_entries("file", "user:nobody:")
    client.remove_default_acl("file")
    client.remove_acl("file")


def test_checksum(client: hdfs.Client) -> None:
    client.write("one", b"content")
    client.write("two", b"content")
    first = client.checksum("one")
    assert first == client.checksum("two")
    assert (first["algorithm"], first["length"]) == ("MD5-of-0MD5-of-512CRC32", 28)


def test_uploads_and_downloads(client: hdfs.Client, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "one").write_bytes(os.urandom(300_000))
    (tree / "below" / "two").write_bytes(b"2")
    progress: list[int] = []
    client.upload("", str(tree), n_threads=2, progress=lambda _path, count: progress.append(count))
    assert progress.count(-1) == 2
    client.upload("tree", str(tree / "one"), overwrite=True)
    with pytest.raises(HdfsError, match="already exists"):
        client.upload("tree", str(tree / "one"))
    client.download("tree", str(tmp_path / "back"), n_threads=2)
    assert (tmp_path / "back" / "one").read_bytes() == (tree / "one").read_bytes()
    assert (tmp_path / "back" / "below" / "two").read_bytes() == b"2"
    client.download("tree/below/two", str(tmp_path / "two"))
    assert (tmp_path / "two").read_bytes() == b"2"


def test_part_files_and_the_latest(client: hdfs.Client) -> None:
    for number in range(3):
        client.write(f"job/part-{number:05d}", b"x")
    client.set_times("job/part-00001", modification_time=4_000_000_000_000)
    assert client.parts("job", parts=[0, 2]) == ["part-00000", "part-00002"]
    assert client.resolve("job/#LATEST").endswith("/job/part-00001")


def test_relative_paths_begin_at_home(served: Cluster) -> None:
    with requests.Session() as session:
        client = hdfs.InsecureClient(served.gateway_url(), user=ME, session=session)
        assert client.resolve("file") == f"/user/{ME}/file"


def test_snapshots_are_refused(client: hdfs.Client) -> None:
    for attempt in (
        lambda: client.allow_snapshot(""),
        lambda: client.disallow_snapshot(""),
        lambda: client.create_snapshot("", "one"),
        lambda: client.rename_snapshot("", "one", "two"),
        lambda: client.delete_snapshot("", "one"),
    ):
        with pytest.raises(HdfsError, match="not supported"):
            attempt()


def test_the_second_address_is_tried(served: Cluster) -> None:
    with requests.Session() as session:
        both = f"http://127.0.0.1:1;{served.gateway_url(2)}"
        assert hdfs.InsecureClient(both, user=ME, session=session).status("/")["type"] == "DIRECTORY"
