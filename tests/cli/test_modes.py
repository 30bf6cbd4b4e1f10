"""chmod's modes, compared with the chmod of this machine."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gfsclient.cli.modes import parse_mode

CLAUSE = st.builds(
    lambda who, actions: who + "".join(actions),
    st.text("ugoa", max_size=3),
    st.lists(
        st.builds(
            str.__add__, st.sampled_from("-+="), st.one_of(st.text("rwxXst", max_size=4), st.sampled_from("ugo"))
        ),
        min_size=1,
        max_size=2,
    ),
)
MODE = st.one_of(
    st.lists(CLAUSE, min_size=1, max_size=3).map(",".join), st.integers(0, 0o7777).map(lambda bits: f"{bits:o}")
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mode=MODE, before=st.integers(0, 0o7777), directory=st.booleans(), umask=st.sampled_from([0o022, 0o077, 0o002]))
def test_a_mode_does_what_chmod_does(tmp_path: Path, mode: str, before: int, directory: bool, umask: int) -> None:
    path = tmp_path / ("directory" if directory else "file")
    path.mkdir(exist_ok=True) if directory else path.touch()
    path.chmod(before)
    kind = stat.S_IFDIR if directory else stat.S_IFREG
    # GNU chmod exits 1 where the umask held back what "-w" names; the mode is set all the same.
    subprocess.run(["chmod", "--", mode, path], umask=umask, check=False, capture_output=True)

    change = parse_mode(mode, umask)

    assert change is not None
    assert oct(change(kind | before)) == oct(stat.S_IMODE(os.stat(path).st_mode))


@pytest.mark.parametrize("text", ["", "8", "99999", "u", "rw", "u+q", "u=r w", "a+r,", ",u+r", "+rw,x", "u+rg"])
def test_what_is_no_mode_is_refused(text: str) -> None:
    assert parse_mode(text, 0o022) is None
