"""fio writes blocks that tell what they are, reads them all again, and says if one is another."""

from pathlib import Path

import pytest

from tests.mounted.mounting import Mount, need

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

PATTERNS = {
    "sequential": ("--rw=write", "--bs=128k"),
    "sequential, odd blocks": ("--rw=write", "--bs=12345", "--verify_interval=12345"),
    "random": ("--rw=randwrite", "--bs=4k"),
    "random, many sizes": ("--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned"),
    "mixed": ("--rw=randrw", "--bs=8k", "--rwmixread=60"),
    "several jobs": ("--rw=randrw", "--bs=16k", "--numjobs=3"),
    "fsync now and then": ("--rw=randwrite", "--bs=8k", "--fsync=32"),
    "mapped": ("--rw=randwrite", "--bs=4k", "--ioengine=mmap"),
}
DIRECT = {
    "sequential, direct": ("--rw=write", "--bs=128k", "--direct=1"),
    "random, direct": ("--rw=randwrite", "--bs=4k", "--direct=1"),
    "mixed, direct, several jobs": ("--rw=randrw", "--bs=16k", "--direct=1", "--numjobs=2"),
    "asynchronous, direct": ("--rw=randwrite", "--bs=16k", "--direct=1", "--ioengine=libaio", "--iodepth=8"),
}


def run_fio(mounted: Mount, place: Path, size: str, *options: str, seconds: float = 120.0) -> None:
    mounted.run(
        need("fio"), "--name=verify", f"--directory={place}", f"--size={size}", "--verify=crc32c", "--verify_fatal=1",
        "--do_verify=1", "--verify_state_save=0", "--randrepeat=1", "--group_reporting", *options,
        cwd=place, seconds=seconds,
    )  # fmt: skip


@pytest.mark.parametrize("pattern", [*PATTERNS, *DIRECT])
def test_no_block_is_wrong(pattern: str, mounted: Mount, place: Path) -> None:
    run_fio(mounted, place, "4M", *(PATTERNS | DIRECT)[pattern])


@pytest.mark.long
@pytest.mark.parametrize("pattern", [*PATTERNS, *DIRECT])
def test_no_block_of_larger_files_is_wrong(pattern: str, mounted: Mount, place: Path) -> None:
    """Files over the end of a chunk, so that several chunks are written at once."""
    run_fio(mounted, place, "80M", *(PATTERNS | DIRECT)[pattern], seconds=1200.0)
