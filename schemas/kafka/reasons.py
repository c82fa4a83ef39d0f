"""Why Kafka cannot be used, in words: aiokafka logs the reason of a failed connection and then raises without it."""

import asyncio
import ssl
from collections.abc import Iterable, Iterator

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from schemas.kafka.brokers import Brokers, Security, client_settings
from schemas.secret_files import SecretFileError

_PATIENCE_S = 5.0
_PLAIN = Security()
_WHAT = {
    ClusterAuthorizationFailedError: "write to any topic, or change the cluster",  # no right to write: no producer id
    GroupAuthorizationFailedError: "use the group",
    TopicAuthorizationFailedError: "use the topic",
    TransactionalIdAuthorizationFailed: "use the transactional id",
}
FORBIDDEN = tuple(_WHAT)
# OpenSSL's words for what a broker says when it does not like our certificate, or misses it.
_OURS_REFUSED = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED", "UNKNOWN_CA")


async def why_not(brokers: Brokers, cause: BaseException) -> str:
    """Says in words what `cause` came from; after a failed connection it tries once more, for the reason alone."""
    security = _security(brokers)
    if isinstance(cause, FORBIDDEN):
        return forbidden(security, cause)
    if isinstance(cause, KafkaConnectionError):
        found = await refusal(brokers)
        if found is not None:
            return found
    return in_words(cause, security)


def forbidden(security: Security, cause: BaseException) -> str:
    """For what authentication allowed, and ACLs do not."""
    what = _WHAT.get(type(cause), "do this")
    names = f" ({cause.args[0]})" if cause.args else ""
    return f"{security.principal} may not {what}{names}; `fleetbeat topics acl` grants what each command needs"


def forbidden_topics(brokers: Brokers, topics: Iterable[str]) -> str:
    """For topics that do not show themselves to us."""
    return forbidden(_security(brokers), TopicAuthorizationFailedError(", ".join(topics)))


def in_words(cause: BaseException, security: Security) -> str:
    """The innermost reason that is known."""
    for error in _causes(cause):
        words = _words(error, security)
        if words is not None:
            return words
    return str(cause) or repr(cause)


async def refusal(brokers: Brokers) -> str | None:
    """What the first address that refuses says; None when all answer now."""
    security, settings = _security(brokers), client_settings(brokers)
    for host, port, _ in collect_hosts(settings.pop("bootstrap_servers"), randomize=False):
        connected = False
        try:
            async with asyncio.timeout(_PATIENCE_S):
                connection = await create_conn(host, port, **settings)
                connected = True
                try:
                    await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
        except (OSError, KafkaError) as cause:
            return f"{host}:{port}: {_hung_up(security, cause, connected=connected) or in_words(cause, security)}"
    return None


def _hung_up(security: Security, cause: BaseException, *, connected: bool) -> str | None:
    """A broker that expects more than it gets closes the connection and says nothing."""
    if not isinstance(cause, KafkaConnectionError) or any(isinstance(error, ssl.SSLError) for error in _causes(cause)):
        return None
    if connected and security.sasl is None:
        return "the broker ended the connection when it was asked for topics; does it expect a user (sasl)?"
    if not connected and security.tls is None:
        return "the broker ended the connection before it said anything; does it expect TLS (tls)?"
    return None


def _words(error: BaseException, security: Security) -> str | None:
    match error:
        case ssl.SSLError():
            return _tls_words(error, security)
        case SecretFileError() | UnsupportedSaslMechanismError():
            return str(error)
        case SaslAuthenticationFailed():
            return f"the broker refuses {security.principal}: {error.args[0] if error.args else 'no reason given'}"
        case TimeoutError():
            return f"no answer within {_PATIENCE_S:.0f} s"
        case _:
            return None


def _tls_words(error: ssl.SSLError, security: Security) -> str:
    alert = (error.reason or "failed").replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        by = security.tls.ca_file if security.tls and security.tls.ca_file else "the system's authorities"
        said = error.verify_message
        return f"the broker's certificate is refused: {said}; expected one for this host, vouched for by {by}"
    if error.reason and error.reason.endswith(_OURS_REFUSED):
        if security.tls is None or security.tls.cert_file is None:
            return f"the broker wants a certificate of ours: {alert}; expected tls.cert_file and tls.key_file"
        return f"the broker refuses our certificate: {alert}; expected tls.cert_file that it trusts"
    if error.reason == "WRONG_VERSION_NUMBER":
        return "no TLS is spoken at this port; expected one of the broker's TLS listeners"
    return f"TLS: {alert}"


def _security(brokers: Brokers) -> Security:
    return _PLAIN if isinstance(brokers, str) else brokers.security


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
