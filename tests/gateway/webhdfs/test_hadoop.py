"""Hadoop's own client: its Java interface, FsShell, and a Spark job. ``sh scripts/install-hadoop`` brings them."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gfsgateway.webhdfs import delegation
from gfsgateway.webhdfs.delegation import Delegation
from tests.cluster.harness import Cluster
from tests.house.documentation import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.long]

VARIABLE = "HADOOP_FOR_TESTS"
"""Where it is installed, if not in .hadoop."""
DEADLINE_SECONDS = 600.0
JARS = ("hadoop-client-api-", "hadoop-client-runtime-", "slf4j-api-", "jcl-over-slf4j-")


class Spoken(NamedTuple):
    status: int
    text: str


@pytest.fixture(scope="module")
def installed() -> Path:
    """The directory of the packages; without them, or without Java, the tests are skipped."""
    place = Path(os.environ.get(VARIABLE, ROOT / ".hadoop"))
    if shutil.which("javac") is None:
        pytest.skip("there is no Java compiler (Debian: apt-get install default-jdk-headless)")
    if not (place / "pyspark" / "jars").is_dir():
        pytest.skip("Hadoop's client is not installed: sh scripts/install-hadoop")
    return place


class Hadoop:
    """Runs HadoopClient.java."""

    def __init__(self, jars: Path, url: str) -> None:
        found = [str(jar) for prefix in JARS for jar in jars.glob(f"{prefix}*.jar")]
        self._path = ":".join(found)
        self._url = url

    def __call__(self, *commands: list[str]) -> list[Spoken]:
        """What each FsShell command says; the Java interface is tried before them."""
        token = delegation.sign(
            bytes(32), "alice", Delegation((1, 1), "bob", 1_700_000_060), 1_700_000_000, 1, "127.0.0.1:9600"
        )
        program = Path(__file__).with_name("HadoopClient.java")
        java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", self._path]
        done = subprocess.run(
            [*java, str(program), self._url, token],
            input="".join("\t".join(command) + "\n" for command in commands).encode(),
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        _, *answers = done.stdout.decode().split("=== ")
        assert answers.pop(0) == "program\n"
        spoken = [Spoken(int(head), text) for head, _, text in (answer.partition("\n") for answer in answers)]
        assert len(spoken) == len(commands)
        return spoken


@pytest.fixture
def address(served: Cluster) -> Iterator[str]:
    yield served.gateway_url().replace("http:", "webhdfs:") + "/"


def test_the_java_interface_and_the_shell(installed: Path, address: str, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3_000_017))
    small = tmp_path / "small"
    small.write_text("hello\n")
    script: list[tuple[list[str], int, str]] = [
        (["-mkdir", "-p", "/sh/a/b"], 0, ""),
        (["-put", str(big), "/sh/a/big"], 0, ""),
        (["-put", str(big), "/sh/a/big"], 1, "File exists"),
        (["-put", str(small), "/sh/a/b/small"], 0, ""),
        (["-ls", "-R", "/sh"], 0, "/sh/a/b/small"),
        (["-cat", "/sh/a/b/small"], 0, "hello\n"),
        (["-get", "/sh/a/big", str(tmp_path / "back")], 0, ""),
        (["-mv", "/sh/a/b/small", "/sh/a/b/s m%a+l;l ü"], 0, ""),
        (["-cat", "/sh/a/b/s m%a+l;l ü"], 0, "hello\n"),
        (["-cp", "/sh/a/big", "/sh/a/copy"], 0, ""),
        (["-tail", "/sh/a/b/s m%a+l;l ü"], 0, "hello\n"),
        (["-appendToFile", str(small), "/sh/a/b/s m%a+l;l ü"], 0, ""),
        (["-cat", "/sh/a/b/s m%a+l;l ü"], 0, "hello\nhello\n"),
        (["-truncate", "-w", "5", "/sh/a/b/s m%a+l;l ü"], 0, "to length: 5"),
        (["-checksum", "/sh/a/big"], 0, "MD5-of-0MD5-of-512CRC32"),
        (["-stat", "%n %b %F %a", "/sh/a/big"], 0, "big 3000017 regular file 644"),
        (["-du", "-s", "/sh"], 0, "6000039"),
        (["-count", "/sh"], 0, "6000039 /sh"),
        (["-setrep", "1", "/sh/a/big"], 0, "Replication 1 set"),
        (["-chmod", "-R", "700", "/sh/a"], 0, ""),
        (["-stat", "%a", "/sh/a/b"], 0, "700"),
        (["-chown", "12345:23456", "/sh/a/big"], 0, ""),
        (["-stat", "%u %g", "/sh/a/big"], 0, "12345 23456"),
        (["-touchz", "/sh/zero"], 0, ""),
        (["-setfattr", "-n", "user.x", "-v", "value", "/sh/zero"], 0, ""),
        (["-getfattr", "-d", "/sh/zero"], 0, 'user.x="value"'),
        (["-setfacl", "-m", "user::rwx,group::r--,other::---", "/sh/zero"], 0, ""),
        (["-getfacl", "/sh/zero"], 0, "user::rwx\ngroup::r--\nother::---"),
        (["-setfacl", "-m", "user:daemon:rwx", "/sh/zero"], 1, "ACL operation has been rejected"),
        (["-df", "/"], 0, "webhdfs://"),
        (["-find", "/sh", "-name", "b*"], 0, "/sh/a/b\n/sh/a/big"),
        (["-rm", "/sh/zero"], 0, "Deleted /sh/zero"),
        (["-rmdir", "/sh"], 1, "not empty"),
        (["-rm", "-r", "/sh/a"], 0, "Deleted /sh/a"),
        (["-ls", "/sh/a"], 1, "No such file or directory"),
    ]
    spoken = Hadoop(installed / "pyspark" / "jars", address)(*(command for command, _, _ in script))
    for (command, status, text), said in zip(script, spoken, strict=True):
        assert said.status == status, (command, said)
        assert text in said.text, (command, said)
    assert hashlib.md5((tmp_path / "back").read_bytes()).digest() == hashlib.md5(big.read_bytes()).digest()


_JOB = """
import sys
from pyspark.sql import SparkSession

root = sys.argv[1]
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
numbers = spark.range(0, 20000, 1, 4).selectExpr("id", "id % 7 as remainder")
numbers.write.mode("overwrite").partitionBy("remainder").parquet(root + "/parquet")
numbers.selectExpr("cast(id as string)").write.mode("overwrite").text(root + "/text")
read = spark.read.parquet(root + "/parquet")
print("sum", read.where("remainder = 3").selectExpr("sum(id)").first()[0])
print("lines", spark.read.text(root + "/text").count())
spark.stop()
"""


def test_a_spark_job(installed: Path, address: str, tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text(_JOB)
    done = subprocess.run(
        [sys.executable, str(job), f"{address}spark"],
        env={
            **os.environ,
            "PYTHONPATH": str(installed),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_LOCAL_DIRS": str(tmp_path),
        },
        cwd=tmp_path,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-5000:]
    expected = sum(number for number in range(20_000) if number % 7 == 3)
    assert done.stdout.decode().split() == ["sum", str(expected), "lines", "20000"]
