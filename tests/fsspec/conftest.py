"""One running cluster for the tests of a module, and fsspec's view of it."""

from collections.abc import Iterator

import fsspec
import pytest

from gfsclient.fsspec import GfsFileSystem
from tests.cluster.harness import Cluster, running


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    """As the entry point does where the project is installed."""
    fsspec.register_implementation("gfs", GfsFileSystem, clobber=True)


@pytest.fixture(scope="module")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one master and two chunk servers, for all tests of the module."""
    with running(tmp_path_factory.mktemp("fsspec") / "cluster") as made:
        yield made


@pytest.fixture
def options(running_cluster: Cluster) -> dict[str, str]:
    """Storage options that lead to the cluster."""
    return {"config": str(running_cluster.layout.client_file)}


@pytest.fixture
def fs(options: dict[str, str]) -> Iterator[GfsFileSystem]:
    made = GfsFileSystem(**options)
    yield made
    made.close()
    GfsFileSystem.clear_instance_cache()
