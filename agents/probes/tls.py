"""Kind `tls`: a handshake succeeds and the certificate stays valid for a while."""

import time
from typing import Annotated, Self

from pydantic import Field, model_validator

from agents.probes.base import Outcome, ProbeKind
from agents.probes.dial import Conversation, Target, dialled
from agents.probes.resolver import SYSTEM_RESOLVER, Family, Resolver
from agents.probes.settings import Host, Port
from agents.probes.trust import TlsSettings
from agents.probes.watch import Watch, watched

_MS_PER_DAY = 86_400_000


class TlsConfig(TlsSettings):
    """The certificate has to be valid for `min_valid_days` from now on."""

    host: Host
    port: Port = 443
    family: Family = "any"
    min_valid_days: Annotated[float, Field(ge=0, le=36_500)] = 0

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if self.min_valid_days and not self.verify:
            raise ValueError("min_valid_days needs the certificate to be verified; expected verify: true, and ca_file")
        return self


class TlsProbe:
    """One TLS service; it speaks no protocol on top."""

    def __init__(self, config: TlsConfig, resolver: Resolver = SYSTEM_RESOLVER) -> None:
        self._target = Target(config.host, config.port, config.family, tls=config)
        self._min_valid_days = config.min_valid_days
        self._resolver = resolver

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        return await watched(self._greet, deadline_s)

    async def _greet(self, watch: Watch) -> Outcome:
        async with dialled(self._target, Conversation(), self._resolver, watch):
            pass
        if watch.cert_expires_ms is not None:
            days = (watch.cert_expires_ms - time.time() * 1_000) / _MS_PER_DAY
            if days < self._min_valid_days:
                return watch.invalid(
                    "certificate-expires", f"valid for {days:.1f} days; expected {self._min_valid_days:g}"
                )
        return watch.up()


KIND = ProbeKind("tls", TlsConfig, TlsProbe)
