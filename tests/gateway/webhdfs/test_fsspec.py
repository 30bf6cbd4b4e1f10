"""fsspec's ``webhdfs``."""

import itertools
import os
from collections.abc import Iterator

import fsspec
import pytest

from tests.cluster.harness import Cluster
from tests.gateway.webhdfs.conftest import ME

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
_numbers = itertools.count(1)


@pytest.fixture
def files(served: Cluster) -> Iterator[fsspec.AbstractFileSystem]:
    """Not kept by fsspec, so that its connections can be closed."""
    host, _, port = served.gateway_url().removeprefix("http://").partition(":")
    made = fsspec.filesystem("webhdfs", host=host, port=int(port), user=ME, skip_instance_cache=True)
    yield made
    made.session.close()


@pytest.fixture
def root(files: fsspec.AbstractFileSystem) -> str:
    path = f"/fsspec-{next(_numbers)}"
    files.makedirs(path)
    return path


def test_files(files: fsspec.AbstractFileSystem, root: str) -> None:
    data = os.urandom(6 * 1024 * 1024 + 5)
    with files.open(f"{root}/file", "wb", block_size=2 * 1024 * 1024) as file:
        file.write(data)
    assert files.size(f"{root}/file") == len(data)
    with files.open(f"{root}/file", "rb") as file:
        file.seek(5_000_000)
        assert file.read(10) == data[5_000_000:5_000_010]
    assert files.cat_file(f"{root}/file") == data
    assert files.tail(f"{root}/file", 4) == data[-4:]
    files.cp_file(f"{root}/file", f"{root}/copy")
    assert files.cat_file(f"{root}/copy") == data
    assert files.ukey(f"{root}/copy") == files.ukey(f"{root}/file")


def test_names(files: fsspec.AbstractFileSystem, root: str) -> None:
    files.pipe_file(f"{root}/a/one", b"1")
    assert files.ls(root) == [f"{root}/a"]
    assert files.find(root) == [f"{root}/a/one"]
    assert files.glob(f"{root}/*/o*") == [f"{root}/a/one"]
    assert files.info(f"{root}/a")["type"] == "directory" and files.isfile(f"{root}/a/one")
    assert files.content_summary(root)["fileCount"] == 1
    files.mv(f"{root}/a/one", f"{root}/a/two")
    files.chmod(f"{root}/a/two", 600)
    files.chown(f"{root}/a/two", owner=ME)
    files.set_replication(f"{root}/a/two", 1)
    assert files.info(f"{root}/a/two")["permission"] == "600"
    assert files.created(f"{root}/a/two") == files.modified(f"{root}/a/two")
    assert files.home_directory() == f"/user/{ME}"
    with pytest.raises(ValueError, match="No token"):
        files.get_delegation_token()
    with pytest.raises(FileNotFoundError):
        files.info(f"{root}/none")
    with pytest.raises(FileExistsError):
        files.makedirs(f"{root}/a", exist_ok=False)
    files.rm(f"{root}/a", recursive=True)
    assert not files.exists(f"{root}/a")
