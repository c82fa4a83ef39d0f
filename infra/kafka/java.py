"""Finding Java and Maven, with a sentence for whoever lacks them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from infra import InfraError

OLDEST_JAVA = 17
_INSTALL_JAVA = f"install a JRE of version {OLDEST_JAVA} or newer (Debian: apt-get install openjdk-17-jre-headless)"
_INSTALL_MAVEN = "install Maven 3.6 or newer (Debian: apt-get install maven)"
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')  # 1.8.0_392 is 8, 17.0.15 is 17, 22-ea is 22


class ToolMissing(InfraError):  # noqa: N818 - it is a finding, not a failure
    """A program that local Kafka needs is not there, or too old."""


def find_java() -> Path:
    """The java to run Kafka with: of JAVA_HOME when that is set, else from PATH. Raises ToolMissing."""
    home = os.environ.get("JAVA_HOME")
    where = f"JAVA_HOME ({home})" if home else "PATH"
    found = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if found is None:
        raise ToolMissing(f"local Kafka needs Java, and no `java` is in {where}; {_INSTALL_JAVA}")
    answer = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    said = answer.stderr + answer.stdout
    version = _VERSION.search(said)
    if version is None:
        raise ToolMissing(f"`{found} -version` says {said.strip()[:200]!r}, expected a version; {_INSTALL_JAVA}")
    if int(version[1]) < OLDEST_JAVA:
        raise ToolMissing(f"local Kafka cannot run on Java {version[1]}, which {found} is; {_INSTALL_JAVA}")
    return Path(found)


def find_maven() -> Path:
    """The mvn to fetch jars with. Raises ToolMissing."""
    found = shutil.which("mvn")
    if found is None:
        raise ToolMissing(f"Kafka's jars come through Maven, and no `mvn` is in PATH; {_INSTALL_MAVEN}")
    return Path(found)
