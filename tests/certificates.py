"""Certificates for tests, made with the ``openssl`` program."""

import shutil
import subprocess
from pathlib import Path

MISSING = "the program openssl is not installed (Debian: apt-get install openssl)"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def is_possible() -> bool:
    return shutil.which("openssl") is not None


class Authority:
    """A certificate authority in a directory of its own; ``certificate`` is what clients trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        self._key = directory / "authority.key"
        self.certificate = directory / "authority.pem"
        self._openssl("req", "-x509", *_NEW_KEY, "-days", "2", "-subj", "/CN=authority of tests",
                      "-keyout", self._key, "-out", self.certificate)  # fmt: skip

    def issue(self, names: str) -> tuple[Path, Path]:
        """Certificate and key of a server; ``names`` as openssl has them: ``DNS:host,IP:127.0.0.1``."""
        key, request, certificate, extensions = (
            self._directory / f"server.{ending}" for ending in ("key", "csr", "pem", "ext")
        )
        extensions.write_text(f"subjectAltName = {names}\n")
        self._openssl("req", "-new", *_NEW_KEY, "-subj", "/CN=server of tests", "-keyout", key, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
                      "-days", "2", "-extfile", extensions, "-out", certificate)  # fmt: skip
        return certificate, key

    def _openssl(self, *arguments: object) -> None:
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
