"""Kind `dns`: a name server answers a question as it should."""

import asyncio
from ipaddress import IPv4Address, IPv6Address
from itertools import cycle
from typing import Annotated, Literal, Self

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
from dns.rdtypes.ANY.TXT import TXT
from pydantic import AfterValidator, Field, model_validator

from agents.probes.addresses import refusal
from agents.probes.base import FORBIDDEN_TARGET, Outcome, Phase, ProbeKind, Settings
from agents.probes.regex import Regex, compiled
from agents.probes.resolver import RESOLVE_FAILED, SYSTEM_RESOLVER, SystemResolver
from agents.probes.settings import Port
from agents.probes.watch import ProbeFailedError, Watch, watched

# A lost packet is sent again after this long, or goes to the next server.
_PATIENCE_S = 2.0
# What is no answer to the question: another server may know better.
_ASK_ELSEWHERE = frozenset({dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP})

Rcode = Literal["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"]


def _is_name(text: str) -> str:
    try:
        dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError) as cause:
        raise ValueError(f"{text}: {cause}; expected a domain name") from cause
    return text


_Server = tuple[str, int]


class DnsConfig(Settings):
    """Asks `server`, or without it this host's name servers, one after the other.

    All of `expect` has to be among the answers, and with `match: exact` nothing else; each of `expect_regex` has to
    match one of them. `name` is taken as it is: the search list is not applied.
    """

    name: Annotated[str, Field(min_length=1, max_length=254), AfterValidator(_is_name)]
    type: Literal["A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"] = "A"
    server: IPv4Address | IPv6Address | None = None
    port: Port = 53
    tcp: bool = False
    rcode: Rcode = "NOERROR"
    expect: tuple[str, ...] = ()
    match: Literal["contains", "exact"] = "contains"
    expect_regex: Annotated[tuple[Regex, ...], Field(max_length=64)] = ()
    min_ttl_s: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0

    @model_validator(mode="after")
    def _expects_what_can_be(self) -> Self:
        for text in self.expect:
            _canonical(self.type, text)
        if self.match == "exact" and not self.expect:
            raise ValueError("match: exact without expect; expected the records that have to be there")
        if self.rcode != "NOERROR" and (self.expect or self.expect_regex or self.min_ttl_s):
            raise ValueError(f"rcode {self.rcode} with expected records; expected NOERROR")
        return self


class DnsProbe:
    """One question."""

    def __init__(self, config: DnsConfig, resolver: SystemResolver = SYSTEM_RESOLVER) -> None:
        self._config = config
        self._resolver = resolver
        self._name = dns.name.from_text(config.name)
        self._expect = [_canonical(config.type, text) for text in config.expect]
        self._regexes = [(regex, compiled(regex)) for regex in config.expect_regex]

    async def run(self, deadline_s: float) -> Outcome:
        """See agents.probes.base.Probe."""
        return await watched(self._ask, deadline_s)

    async def _ask(self, watch: Watch) -> Outcome:
        config = self._config
        if config.server and (kind := refusal(config.server)):
            return watch.down(FORBIDDEN_TARGET, f"server {config.server}: {kind}")
        servers = self._servers()
        watch.enter(Phase.RESOLVE)
        answer = await self._answer(servers, watch)
        watch.status_code = answer.rcode()
        rcode = dns.rcode.to_text(answer.rcode())
        found, ttl_s = _records(answer)
        watch.note(f"{rcode}: " + (f"{', '.join(found)}, TTL {ttl_s} s" if found else "no answer"))
        return self._judge(watch, rcode, found, ttl_s)

    async def _answer(self, servers: "list[_Server]", watch: Watch) -> dns.message.Message:
        """The first answer to the question; when no server has one, what the last of them said instead.

        What gets lost is asked again, for ever. Raises ProbeFailedError.
        """
        query = dns.message.make_query(self._name, self._config.type)
        trouble: ProbeFailedError | None = None
        said: dns.message.Message | None = None
        silent = False
        for place, (host, port) in enumerate(cycle(servers)):
            if place % len(servers) == 0:
                if place and not silent:
                    break  # each of them has said what it has to say
                silent = False
            try:
                answer = await self._ask_one(query, host, port)
            except TimeoutError:
                watch.note(f"{host} was silent for {_PATIENCE_S:g} s")
                silent = True
            except (dns.exception.DNSException, OSError, EOFError) as cause:
                detail = f"{host} port {port}: {str(cause) or type(cause).__name__}"
                watch.note(detail)
                trouble = ProbeFailedError(RESOLVE_FAILED, detail)
            else:
                if answer.rcode() not in _ASK_ELSEWHERE:
                    return answer
                watch.note(f"{host} said {dns.rcode.to_text(answer.rcode())}")
                said = answer
        if said is not None:
            return said
        assert trouble is not None  # noqa: S101 - the loop ends when all have been asked and none was silent
        raise trouble

    async def _ask_one(self, query: dns.message.Message, host: str, port: int) -> dns.message.Message:
        async with asyncio.timeout(_PATIENCE_S):  # dnspython's own can swallow a cancellation: see Watch.heed
            if self._config.tcp:
                return await dns.asyncquery.tcp(query, host, port=port)
            answer, _ = await dns.asyncquery.udp_with_fallback(
                query, host, port=port, ignore_unexpected=True, ignore_errors=True
            )
            return answer

    def _judge(self, watch: Watch, rcode: str, found: list[str], ttl_s: int) -> Outcome:
        config, what = self._config, f"{self._name} {self._config.type}"
        if rcode != config.rcode:
            return watch.invalid("rcode", f"{what}: {rcode}; expected {config.rcode}")
        shown = ", ".join(found) or "nothing"
        missing = [text for text in self._expect if text not in found]
        missing += [
            f"what {regex!r} matches" for regex, pattern in self._regexes if not any(map(pattern.search, found))
        ]
        if missing or (rcode == "NOERROR" and not found):
            wanted = ", ".join(missing) or "an answer"
            return watch.invalid("unexpected-answer", f"{what}: {shown}; expected {wanted}")
        if config.match == "exact" and (extra := sorted(set(found) - set(self._expect))):
            return watch.invalid("unexpected-answer", f"{what}: {shown}; expected without {', '.join(extra)}")
        if ttl_s < config.min_ttl_s:
            return watch.invalid("ttl", f"{what}: TTL {ttl_s} s; expected at least {config.min_ttl_s}")
        return watch.up()

    def _servers(self) -> "list[_Server]":
        if self._config.server is not None:
            return [(str(self._config.server), self._config.port)]
        stub = self._resolver.stub()
        return [(str(server), stub.port) for server in stub.nameservers]


def _records(answer: dns.message.Message) -> tuple[list[str], int]:
    """The data of the records asked for, at the end of a chain of aliases; and the lowest TTL on the way, seconds."""
    if not isinstance(answer, dns.message.QueryMessage):
        raise ProbeFailedError(RESOLVE_FAILED, f"the answer makes no sense: {type(answer).__name__}")
    try:
        chain = answer.resolve_chaining()
    except dns.exception.DNSException as cause:
        raise ProbeFailedError(
            RESOLVE_FAILED, f"the answer makes no sense: {str(cause) or type(cause).__name__}"
        ) from cause
    return [_text(data) for data in chain.answer or ()], chain.minimum_ttl


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
