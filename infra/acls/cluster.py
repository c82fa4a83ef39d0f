"""Reading and creating a cluster's ACLs, by requests that aiokafka has and its admin client does not."""

from collections.abc import Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import ClusterAuthorizationFailedError, SecurityDisabled, for_code
from aiokafka.protocol.admin import CreateAclsRequest, DescribeAclsRequest

from infra import InfraError
from infra.acls.plan import ANY_HOST, Acl, Grant, Pattern

_ANY, _ALLOW = 1, 3


async def read_acls(admin: AIOKafkaAdminClient) -> list[Acl]:
    """All of them. Raises InfraError."""
    request = DescribeAclsRequest(_ANY, None, _ANY, None, None, _ANY, _ANY)
    answer = await admin._send_request(request)  # noqa: SLF001 - the admin client (aiokafka 0.14) has no ACLs
    _raise_for(answer.error_code, answer.error_message, "reading the ACLs")
    return [
        Acl(principal, resource, name, pattern, operation, host, permission == _ALLOW)
        for resource, name, pattern, acls in answer.resources
        for principal, host, operation, permission in acls
    ]


async def create_acls(admin: AIOKafkaAdminClient, grants: Sequence[Grant]) -> None:
    """One after the other; creating one that is there changes nothing. Raises InfraError."""
    for grant in grants:
        request = CreateAclsRequest(
            *(grant.resource, grant.name, Pattern.LITERAL, grant.principal, ANY_HOST, grant.operation, _ALLOW)
        )
        answer = await admin._send_request(request)  # noqa: SLF001 - as above
        for code, message in answer.creation_responses:
            _raise_for(code, message, f"creating the ACL of {grant.principal} for {grant.name}")


def _raise_for(code: int, message: str | None, doing: str) -> None:
    if not code:
        return
    error = for_code(code)
    said = message or error.description
    if error is ClusterAuthorizationFailedError:  # Kafka's message shows its insides
        raise InfraError(
            f"{doing}: the principal may not; expected one of super.users, or one that may alter the cluster"
        )
    if error is SecurityDisabled:
        raise InfraError(
            f"{doing}: {said}; expected brokers with an authorizer, such as authorizer.class.name="
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer: without one everybody may do everything"
        )
    raise InfraError(f"{doing}: {said} ({error.__name__})")
