"""An authority of one's own and certificates from it, made by openssl: for a broker on this machine, and for tests."""

import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import InfraError
from infra.kafka.java import ToolMissing

_CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[holder]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
authorityKeyIdentifier = keyid
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, in PEM."""

    cert_file: Path
    key_file: Path


class Authority:
    """Its files stand in `folder`, which is made when it is not there: ca.pem, ca.key, NAME.pem and NAME.key."""

    def __init__(self, folder: Path) -> None:
        """Raises ToolMissing without openssl."""
        found = shutil.which("openssl")
        if found is None:
            raise ToolMissing("certificates need openssl, and none is in PATH (Debian: apt-get install openssl)")
        self._openssl = found
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        if not self.ca_file.exists():
            self._begin()

    def issue(self, name: str, hosts: Sequence[str] = (), *, days: int = 365) -> Certificate:
        """One for CN=name, and for these hosts (as `IP:127.0.0.1` or `DNS:kafka1`); of 0 days it has ended already."""
        made = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.cnf"
        names = f"subjectAltName = {', '.join(hosts)}\n" if hosts else ""
        extensions.write_text(_CONFIG + names, encoding="utf-8")
        with_config = ("-config", extensions)
        self._run("req", "-new", *_KEY, *with_config, "-subj", f"/CN={name}", "-keyout", made.key_file, "-out", request)
        self._run(
            *("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self.folder / "ca.key"),
            *("-set_serial", str(secrets.randbits(120)), "-days", str(days), "-out", made.cert_file),
            *("-extfile", extensions, "-extensions", "holder"),
        )
        request.unlink()
        extensions.unlink()
        made.key_file.chmod(0o600)
        return made

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "ca.cnf"
        config.write_text(_CONFIG, encoding="utf-8")
        key = self.folder / "ca.key"
        partial = self.folder / "ca.pem.partial"
        self._run(
            *("req", "-x509", *_KEY, "-config", config, "-extensions", "authority", "-days", "3650"),
            *("-subj", "/CN=fleetbeat on this machine", "-keyout", key, "-out", partial),
        )
        config.unlink()
        key.chmod(0o600)
        partial.rename(self.ca_file)

    def _run(self, *arguments: str | Path) -> None:
        done = subprocess.run([self._openssl, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise InfraError(
                f"openssl {arguments[0]} ended with status {done.returncode}: {done.stderr.strip()[-500:]}"
            )
