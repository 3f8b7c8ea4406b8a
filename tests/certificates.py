"""Certificates for a test, made by OpenSSL's own tool: authorities, and who they have signed."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its key, in PEM files."""

    certificate: Path
    key: Path

    @property
    def sha256(self) -> str:
        """The fingerprint of the certificate."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        return hashlib.sha256(der).hexdigest()


def openssl(*arguments: object, given: str = "") -> None:
    """Run OpenSSL."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _make_key(self._key)
        openssl(
            "req", "-x509", "-new", "-key", self._key, "-subj", f"/CN={name}", "-days", 30,
            "-out", self.certificate,
        )  # fmt: skip

    def sign(
        self,
        name: str,
        *,
        alternative_names: str = LOOPBACK,
        days: int = 10,
        usage: str = "serverAuth,clientAuth",
        rsa: int = 0,
        digest: str = "sha256",
    ) -> Signed:
        """Make a key and sign a certificate for it; `days=-1` is one that has expired."""
        key, certificate = self._folder / f"{name}.key", self._folder / f"{name}.pem"
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        _make_key(key, rsa)
        openssl("req", "-new", "-key", key, "-subj", f"/CN={name}", "-out", request)
        extensions.write_text(f"extendedKeyUsage={usage}\nsubjectAltName={alternative_names}\n")
        openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key,
            "-CAcreateserial", "-days", days, "-extfile", extensions, f"-{digest}",
            "-out", certificate,
        )  # fmt: skip
        return Signed(certificate, key)


def _make_key(path: Path, rsa: int = 0) -> None:
    if rsa:
        openssl("genrsa", "-out", path, rsa)
    else:
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
    path.chmod(0o600)
