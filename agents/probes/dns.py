"""Kind `dns`: a name server answers a question as it should."""

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Literal, Self

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.resolver
from dns.rdtypes.ANY.TXT import TXT
from pydantic import AfterValidator, Field, model_validator

from agents.probes.addresses import refusal
from agents.probes.base import FORBIDDEN_TARGET, Outcome, Phase, ProbeKind, Settings
from agents.probes.resolver import RESOLVE_FAILED, SYSTEM_RESOLVER
from agents.probes.settings import Port
from agents.probes.watch import Watch, watched

_A_DAY_S = 86_400.0
_RCODES = {"NOERROR": 0, "NXDOMAIN": 3}


def _is_name(text: str) -> str:
    try:
        dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError) as cause:
        raise ValueError(f"{text}: {cause}; expected a domain name") from cause
    return text


class DnsConfig(Settings):
    """Asks `server`, or without it this host's name servers; all of `expect` has to be among the answers.

    `name` is taken as it is: the search list is not applied.
    """

    name: Annotated[str, Field(min_length=1, max_length=254), AfterValidator(_is_name)]
    type: Literal["A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"] = "A"
    server: IPv4Address | IPv6Address | None = None
    port: Port = 53
    tcp: bool = False
    rcode: Literal["NOERROR", "NXDOMAIN"] = "NOERROR"
    expect: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _expects_what_can_be(self) -> Self:
        for text in self.expect:
            _canonical(self.type, text)
        return self


class DnsProbe:
    """One question."""

    def __init__(self, config: DnsConfig) -> None:
        self._config = config
        self._name = dns.name.from_text(config.name)
        self._expect = [_canonical(config.type, text) for text in config.expect]

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        return await watched(self._ask, deadline_s)

    async def _ask(self, watch: Watch) -> Outcome:
        config = self._config
        if config.server and (kind := refusal(config.server)):
            return watch.down(FORBIDDEN_TARGET, f"server {config.server}: {kind}")
        stub = self._stub()
        watch.enter(Phase.RESOLVE)
        try:
            answer = await stub.resolve(
                self._name, config.type, tcp=config.tcp, raise_on_no_answer=False, lifetime=_A_DAY_S
            )
        except dns.resolver.NXDOMAIN:
            found, rcode = [], "NXDOMAIN"
        except dns.exception.DNSException as cause:
            return watch.down(RESOLVE_FAILED, str(cause))
        else:
            found, rcode = [_text(data) for data in answer.rrset or ()], "NOERROR"
        watch.status_code = _RCODES[rcode]
        watch.note(f"{rcode}: {', '.join(found) or 'no answer'}")
        return self._judge(watch, rcode, found)

    def _judge(self, watch: Watch, rcode: str, found: list[str]) -> Outcome:
        if rcode != self._config.rcode:
            return watch.down("rcode", f"{self._name} {self._config.type}: {rcode}; expected {self._config.rcode}")
        missing = [text for text in self._expect if text not in found]
        if missing or (rcode == "NOERROR" and not found):
            shown, wanted = ", ".join(found) or "nothing", ", ".join(missing) or "an answer"
            return watch.down("unexpected-answer", f"{self._name} {self._config.type}: {shown}; expected {wanted}")
        return watch.up()

    def _stub(self) -> dns.asyncresolver.Resolver:
        if self._config.server is None:
            return SYSTEM_RESOLVER.stub()
        stub = dns.asyncresolver.Resolver(configure=False)
        stub.nameservers = [str(self._config.server)]
        stub.port = self._config.port
        return stub


def _canonical(record: str, text: str) -> str:
    """An expected answer in the form of the answers. Raises ValueError."""
    if record == "TXT":
        return text
    try:
        return _text(dns.rdata.from_text(dns.rdataclass.IN, record, text, origin=dns.name.root, relativize=False))
    except dns.exception.DNSException as cause:
        raise ValueError(f"expect {text!r}: {cause}; expected the data of a record of type {record}") from cause


def _text(data: dns.rdata.Rdata) -> str:
    """Names in lower case, the strings of a TXT record as one."""
    if isinstance(data, TXT):
        return b"".join(data.strings).decode("utf-8", "replace")
    return data.to_text().lower()


KIND = ProbeKind("dns", DnsConfig, DnsProbe)
