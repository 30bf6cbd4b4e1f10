"""Programs that people use every day, on the mount: version control, compilers, archives, copies, editors."""

import filecmp
import hashlib
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from tests.mounted.mounting import Mount, need
from tests.mounted.scenarios import PAST_NS
from tests.mounted.scenarios.naming import tree

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
ALICE, TEAM = 12345, 22345
MIB = 1 << 20


def make_sources(directory: Path, count: int = 60) -> None:
    """A small C project with directories, whose program prints a number that depends on each file."""
    (directory / "src").mkdir(parents=True)
    for number in range(count):
        part = directory / "src" / f"part{number % 7}"
        part.mkdir(exist_ok=True)
        (part / f"f{number}.c").write_text(f"int f{number}(int x) {{ return x * 31 + {number}; }}\n")
    declarations = "".join(f"int f{number}(int);\n" for number in range(count))
    calls = "".join(f"    x = f{number}(x) % 1000003;\n" for number in range(count))
    main = (
        f'#include <stdio.h>\n{declarations}\nint main(void) {{\n    int x = 1;\n{calls}    printf("%d\\n", x);\n}}\n'
    )
    (directory / "src" / "main.c").write_text(main)
    (directory / "Makefile").write_text(
        "SOURCES := $(wildcard src/*.c src/*/*.c)\n"
        "program: $(SOURCES:.c=.o)\n\t$(CC) -o $@ $^\n"
        "%.o: %.c\n\t$(CC) -O0 -c -o $@ $<\n"
        "clean:\n\trm -f program $(SOURCES:.c=.o)\n"
    )


def expected_number(count: int = 60) -> int:
    x = 1
    for number in range(count):
        x = (x * 31 + number) % 1000003
    return x


def make_varied_tree(directory: Path) -> None:
    """What archives and copies have to carry: owners, modes, times, links, holes, devices, attributes."""
    (directory / "deep" / "er").mkdir(parents=True)
    for number, size in enumerate((0, 1, 4095, 4096, 65537, 3 * MIB + 11)):
        file = directory / "deep" / f"file-{number}"
        file.write_bytes(random.Random(number).randbytes(size))
        os.chmod(file, (0o644, 0o600, 0o755, 0o4755, 0o2750, 0o444)[number])
        os.chown(file, *((0, 0), (ALICE, 0), (ALICE, TEAM))[number % 3])
        os.chmod(file, (0o644, 0o600, 0o755, 0o4755, 0o2750, 0o444)[number])
        os.utime(file, ns=(PAST_NS, PAST_NS + number))
    with open(directory / "sparse", "wb") as file_with_holes:
        file_with_holes.seek(2 * MIB)
        file_with_holes.write(b"island")
        file_with_holes.truncate(5 * MIB)
    os.link(directory / "deep" / "file-1", directory / "deep" / "er" / "hard-link")
    os.symlink("../file-2", directory / "deep" / "er" / "symbolic-link")
    os.symlink("nowhere", directory / "dangling")
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "device", stat.S_IFCHR | 0o660, os.makedev(10, 229))
    os.setxattr(directory / "deep" / "file-2", "user.colour", b"green")
    os.chmod(directory / "deep" / "er", 0o2775)
    os.utime(directory / "deep", ns=(PAST_NS, PAST_NS + 99))


def everything(directory: Path) -> list[object]:
    """All that is visible, with times of files and directories, which links lie together, and attributes."""
    result: list[object] = [tree(directory)]
    first_name: dict[int, str] = {}
    for base, directories, files in sorted(os.walk(directory)):
        for name in sorted([*directories, *files]):
            path = Path(base) / name
            status = path.lstat()
            relative = str(path.relative_to(directory))
            same_as = first_name.setdefault(status.st_ino, relative)
            attributes = [] if path.is_symlink() else [(n, os.getxattr(path, n)) for n in sorted(os.listxattr(path))]
            result.append((relative, status.st_mtime_ns, same_as, attributes))
    return result


def test_git_clones_commits_and_finds_nothing_wrong(mounted: Mount, place: Path, local: Path) -> None:
    git = need("git")
    make_sources(local / "origin")
    mounted.run(git, "init", "-q", "-b", "main", cwd=local / "origin")
    for number in range(3):
        (local / "origin" / f"change-{number}").write_bytes(random.Random(number).randbytes(200_000))
        mounted.run(git, "add", "-A", cwd=local / "origin")
        mounted.run(git, "commit", "-q", "-m", f"change {number}", cwd=local / "origin")
    clone = place / "clone"
    mounted.run(git, "clone", "-q", "--no-hardlinks", local / "origin", clone)
    assert mounted.run(git, "status", "--porcelain", cwd=clone) == ""
    (clone / "Makefile").unlink()
    (clone / "new").write_text("on the mount\n")
    mounted.run(git, "add", "-A", cwd=clone)
    mounted.run(git, "commit", "-q", "-m", "from the mount", cwd=clone)
    mounted.run(git, "checkout", "-q", "-b", "other", "HEAD~2", cwd=clone)
    mounted.run(git, "rebase", "-q", "main", cwd=clone)
    mounted.run(git, "gc", "-q", "--prune=now", cwd=clone)
    mounted.run(git, "fsck", "--full", "--strict", cwd=clone)
    assert mounted.run(git, "status", "--porcelain", cwd=clone) == ""
    mounted.run(git, "clone", "-q", "--no-hardlinks", clone, local / "back")
    mounted.run(git, "fsck", "--full", cwd=local / "back")
    assert (local / "back" / "new").read_text() == "on the mount\n"


def test_make_builds_a_project_and_only_what_changed(mounted: Mount, place: Path) -> None:
    make, _ = need("make"), need("cc", "gcc libc6-dev")
    make_sources(place)
    mounted.run(make, "-j4", cwd=place)
    assert mounted.run(place / "program") == f"{expected_number()}\n"
    assert "up to date" in mounted.run(make, cwd=place)
    os.utime(place / "src" / "part3" / "f3.c")
    again = mounted.run(make, cwd=place)
    assert again.count(" -c ") == 1
    mounted.run(make, "clean", cwd=place)
    assert not list(place.glob("src/*/*.o"))


def test_rsync_copies_there_and_back(mounted: Mount, place: Path, local: Path) -> None:
    rsync = need("rsync")
    (local / "tree").mkdir()
    make_varied_tree(local / "tree")
    mounted.run(rsync, "-aHX", "--modify-window=-1", "--devices", "--specials", f"{local}/tree/", f"{place}/tree/")
    assert everything(place / "tree") == everything(local / "tree")
    assert (
        mounted.run(
            rsync,
            "-aHXi",
            "--modify-window=-1",
            "--devices",
            "--specials",
            "--checksum",
            f"{local}/tree/",
            f"{place}/tree/",
        )
        == ""
    )
    with open(place / "tree" / "deep" / "file-5", "r+b") as changed:
        changed.seek(MIB)
        changed.write(b"changed on the mount")
    (place / "tree" / "deep" / "file-0").unlink()
    mounted.run(
        rsync,
        "-aHX",
        "--modify-window=-1",
        "--inplace",
        "--no-whole-file",
        "--delete",
        f"{place}/tree/",
        f"{local}/tree/",
    )
    assert everything(place / "tree") == everything(local / "tree")


def test_tar_packs_and_unpacks_owners_modes_links_and_times(mounted: Mount, place: Path, local: Path) -> None:
    tar = need("tar")
    (local / "tree").mkdir()
    make_varied_tree(local / "tree")
    options = ("--xattrs", "--xattrs-include=user.*", "--format=posix")
    mounted.run(tar, *options, "--sparse", "-cf", place / "archive.tar", "-C", local, "tree")
    mounted.run(tar, *options, "-xpf", place / "archive.tar", "-C", place)
    assert everything(place / "tree") == everything(local / "tree")
    mounted.run(tar, *options, "-df", place / "archive.tar", "-C", place)
    mounted.run(tar, *options, "-cf", local / "back.tar", "-C", place, "tree")
    (local / "back").mkdir()
    mounted.run(tar, *options, "-xpf", local / "back.tar", "-C", local / "back")
    assert everything(local / "back" / "tree") == everything(local / "tree")


def test_copies_with_cp_and_dd(mounted: Mount, place: Path, local: Path) -> None:
    make_varied_tree(local)
    mounted.run("cp", "-a", local, place / "copy")
    assert everything(place / "copy") == everything(local)
    for when in ("always", "never", "auto"):
        mounted.run("cp", f"--sparse={when}", place / "copy" / "sparse", place / f"sparse-{when}")
        assert filecmp.cmp(local / "sparse", place / f"sparse-{when}", shallow=False)
    target = place / "sparse-never"
    expected = bytearray((local / "sparse").read_bytes())
    mounted.run("dd", f"if={local}/deep/file-4", f"of={target}", "bs=1000", "seek=77", "conv=notrunc", "status=none")
    piece = (local / "deep" / "file-4").read_bytes()
    expected[77_000 : 77_000 + len(piece)] = piece
    assert target.read_bytes() == expected
    mounted.run("dd", "if=/dev/zero", f"of={target}", "bs=64k", "count=2", "oflag=append", "conv=notrunc,fsync",
                "status=none")  # fmt: skip
    expected += bytes(2 * 65536)
    assert target.read_bytes() == expected
    mounted.run("dd", f"if={target}", f"of={place}/direct", "bs=1M", "iflag=direct", "oflag=direct", "status=none")
    assert (place / "direct").read_bytes() == expected
    mounted.run("rm", "-r", place / "copy")
    assert not (place / "copy").exists()


def test_an_editors_way_to_save(mounted: Mount, place: Path) -> None:
    """A temporary file, fsync, the old one renamed to a backup, the new one renamed: never a moment without content."""
    file, backup = place / "notes.txt", place / "notes.txt~"
    file.write_text("version 0\n")
    for number in range(1, 30):
        temporary = place / f".notes.txt.{number}"
        with open(temporary, "x") as writing:
            writing.write(f"version {number}\n")
            writing.flush()
            os.fsync(writing.fileno())
        shutil.copystat(file, temporary)
        backup.unlink(missing_ok=True)
        os.link(file, backup)
        os.rename(temporary, file)
        directory = os.open(place, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        assert file.read_text() == f"version {number}\n"
        assert backup.read_text() == f"version {number - 1}\n"
    assert sorted(os.listdir(place)) == ["notes.txt", "notes.txt~"]


def test_vim_saves(mounted: Mount, place: Path) -> None:
    vim = shutil.which("vim.tiny") or need("vim", "vim-tiny")
    file = place / "text"
    file.write_text("one\ntwo\n")
    file.chmod(0o640)
    mounted.run(
        vim,
        "-u",
        "NONE",
        "-es",
        "-c",
        "set backup writebackup backupskip= fsync",
        "-c",
        "%s/two/three/",
        "-c",
        "wq",
        file,
    )
    assert file.read_text() == "one\nthree\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert (place / "text~").read_text() == "one\ntwo\n"
    assert sorted(os.listdir(place)) == ["text", "text~"]


def test_many_small_files_from_several_processes(mounted: Mount, place: Path) -> None:
    one = 'i=0; while [ $i -lt 150 ]; do echo "$1 $i" >"$1-$i"; mv "$1-$i" "done-$1-$i"; i=$((i+1)); done'
    four = 'for number in 0 1 2 3; do sh -c "$0" sh $number & done; wait'
    mounted.run("sh", "-c", four, one, cwd=place)
    names = sorted(os.listdir(place))
    assert names == sorted(f"done-{number}-{i}" for number in range(4) for i in range(150))
    assert all((place / name).read_text() == name.removeprefix("done-").replace("-", " ") + "\n" for name in names)


def test_a_large_file_keeps_its_digest(mounted: Mount, place: Path) -> None:
    """Over the end of a chunk, written and read by programs, through the page cache and past it."""
    digest = hashlib.sha256()
    chance = random.Random(11)
    with open(place / "large", "wb") as file:
        for _ in range(70):
            block = chance.randbytes(MIB)
            digest.update(block)
            file.write(block)
    told = mounted.run(need("sha256sum", "coreutils"), place / "large").split()[0]
    assert told == digest.hexdigest()
    mounted.run("dd", f"if={place}/large", f"of={place}/again", "bs=1M", "iflag=direct", "status=none")
    assert filecmp.cmp(place / "large", place / "again", shallow=False)
