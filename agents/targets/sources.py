"""Where targets come from: files and URLs as Prometheus has them, and names."""

import asyncio
import glob
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agents.probes.resolver import SYSTEM_RESOLVER, SystemResolver
from agents.probes.threads import SideThread
from agents.probes.watch import ProbeFailedError, Watch
from agents.targets.groups import Found, GroupsError, Target, targets_of
from agents.targets.settings import DnsSdFile, HttpSdFile, TargetsFile

MAX_BYTES = 64 << 20
MAX_FILES = 1_000
_HTTP_OK = 200

ReadT = TypeVar("ReadT")


class DiscoveryError(Exception):
    """A source could not be asked, or gave nonsense: what it gave before still holds."""


class Source(Protocol):
    """Something that knows targets."""

    name: str

    async def find(self) -> Found:
        """All there are now. Raises DiscoveryError, within a bounded time; never blocks the event loop."""
        ...


class ListSource:
    """Those of the config itself."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.name = "list"
        self._found = Found(tuple(Target(address) for address in dict.fromkeys(addresses)))

    async def find(self) -> Found:
        """See Source."""
        return self._found


class FileSource:
    """Files that a pattern names. They are read in a thread, and only when one has changed."""

    def __init__(self, pattern: Path) -> None:
        self.name = f"file {pattern}"
        self._pattern = pattern
        self._read = SideThread(self._look)
        self._known: tuple[object, Found] | None = None

    async def find(self) -> Found:
        """See Source."""
        try:
            return await self._read.call()
        except (OSError, ValueError) as cause:
            raise DiscoveryError(f"{self._pattern}: {cause}") from cause

    def _look(self) -> Found:
        has_wildcards = glob.has_magic(self._pattern.name)
        paths = sorted(self._pattern.parent.glob(self._pattern.name)) if has_wildcards else [self._pattern]
        if len(paths) > MAX_FILES:
            raise ValueError(f"{len(paths)} files; expected at most {MAX_FILES}")
        states = [(path, *_state(path)) for path in paths]
        if self._known is None or self._known[0] != states:
            self._known = states, _together([_read(path) for path in paths])
        return self._known[1]


class HttpSource:
    """A URL, asked over the probes' own way out: no metadata services, and no secret to another host."""

    def __init__(self, settings: HttpSdFile, max_bytes: int = MAX_BYTES) -> None:
        from agents.probes.http import HttpConfig, HttpProbe  # noqa: PLC0415 - httptools, for those who have a URL
        from agents.probes.http_auth import HttpAuth  # noqa: PLC0415 - as above
        from agents.probes.trust import TlsSettings  # noqa: PLC0415 - as above

        self.name = "http_sd"
        self._timeout_s = settings.timeout_s
        auth = None if settings.bearer_file is None else HttpAuth(bearer_file=settings.bearer_file)
        tls = TlsSettings(ca_file=settings.ca_file)
        config = HttpConfig(url=settings.url, auth=auth, tls=tls, max_body_bytes=max_bytes)
        self._probe = HttpProbe(config, keeps_body=True)

    async def find(self) -> Found:
        """See Source."""
        return await self.read(targets_of)

    async def read(self, parse: Callable[[object], ReadT]) -> ReadT:
        """What `parse` makes of the answer, in a thread; it raises ValueError. Raises DiscoveryError as `find` does."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._probe.answer(Watch())
        except TimeoutError as cause:
            raise DiscoveryError(f"no answer within {self._timeout_s:g} s") from cause
        except (ProbeFailedError, OSError) as cause:
            raise DiscoveryError(str(cause)) from cause
        if answer.status != _HTTP_OK:
            raise DiscoveryError(f"status {answer.status}; expected {_HTTP_OK}")
        try:
            return await SideThread(lambda: parse(json.loads(answer.body))).call()
        except (ValueError, RecursionError) as cause:
            raise DiscoveryError(f"the answer: {cause}") from cause


class DnsSource:
    """Records of names: SRV brings the ports along."""

    def __init__(self, settings: DnsSdFile, resolver: SystemResolver = SYSTEM_RESOLVER) -> None:
        self.name = "dns"
        self._settings = settings
        self._resolver = resolver

    async def find(self) -> Found:
        """See Source."""
        from dns.exception import DNSException  # noqa: PLC0415 - dnspython, for those who have names

        settings = self._settings
        addresses: dict[str, None] = {}
        for name in settings.names:
            try:
                stub = self._resolver.stub()
                answer = await stub.resolve(name, settings.type, lifetime=settings.timeout_s)
            except (DNSException, ProbeFailedError) as cause:
                raise DiscoveryError(f"{name} {settings.type}: {cause}") from cause
            addresses |= {_address(data, settings.port): None for data in answer.rrset or ()}
        return Found(tuple(Target(address) for address in sorted(addresses)))


def sources_of(settings: TargetsFile) -> list[Source]:
    """All that a config names."""
    found: list[Source] = [ListSource(settings.list)] if settings.list else []
    found += [FileSource(path) for path in settings.files]
    if settings.http_sd is not None:
        found.append(HttpSource(settings.http_sd))
    if settings.dns is not None:
        found.append(DnsSource(settings.dns))
    return found


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> Found:
    """Raises OSError and ValueError."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path.name}: {size} bytes; expected at most {MAX_BYTES}")
    text = path.read_text(encoding="utf-8")
    try:
        return targets_of(json.loads(text) if path.suffix == ".json" else _yaml(text))
    except (GroupsError, json.JSONDecodeError, RecursionError) as cause:
        raise ValueError(f"{path.name}: {cause}") from cause


def _yaml(text: str) -> object:
    from ruamel.yaml import YAML  # noqa: PLC0415 - loaded with the config, and not needed for JSON
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415 - as above

    try:
        found: object = YAML(typ="safe").load(text)
    except YAMLError as cause:
        raise GroupsError(f"not YAML: {cause}") from cause
    return found


def _together(found: Sequence[Found]) -> Found:
    targets = {target.address: target for one in found for target in one.targets}
    return Found(tuple(targets.values()), tuple(refused for one in found for refused in one.refused))


def _address(data: Any, port: int | None) -> str:  # noqa: ANN401 - a record of any type
    if port is None:
        return f"{data.target.to_text(omit_final_dot=True)}:{data.port}"
    return f"[{data.address}]:{port}" if ":" in data.address else f"{data.address}:{port}"
