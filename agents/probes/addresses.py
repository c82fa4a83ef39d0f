"""Which addresses no probe connects to, whatever form they are written in.

Loopback and private addresses are allowed: hosts probe their own services. Sources of the metadata addresses: the
documentation of each cloud.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

_REFUSED = tuple(
    (ip_network(network), kind)
    for network, kind in {
        "169.254.0.0/16": "link-local, where clouds keep their metadata",
        "fe80::/10": "link-local",
        "100.100.100.200/32": "metadata of Alibaba Cloud",
        "168.63.129.16/32": "metadata of Azure",
        "192.0.0.192/32": "metadata of Oracle Cloud",
        "fd00:ec2::254/128": "metadata of AWS",
        "fd00:ec2::23/128": "credentials of AWS EKS",
        "fd20:ce::254/128": "metadata of Google Cloud",
        "0.0.0.0/8": "unspecified",
        "::/128": "unspecified",
        "224.0.0.0/4": "multicast",
        "ff00::/8": "multicast",
        "255.255.255.255/32": "broadcast",
    }.items()
)

# An IPv4 address in the last 32 bits: compatible (RFC 4291), mapped, translated (RFC 2765), NAT64 (RFC 6052, 8215).
_CARRIERS = tuple(
    ip_network(network) for network in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
)


def literal(host: str) -> Address | None:
    """The address that a host is, None when it is a name.

    Only the usual form is an address: `2852039166` and `0xa9fea9fe` are names that no resolver of ours knows. Raises
    ValueError for an address with a zone, such as fe80::1%eth0: those are link-local.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{host}: link-local")
    return address


def refusal(address: Address) -> str | None:
    """Why no probe may connect there, None when it may."""
    if address.is_loopback:  # ::1 is also the carrier of 0.0.0.1
        return None
    for form in (address, *_carried(address)):
        for network, kind in _REFUSED:
            if form.version == network.version and form in network:
                return kind
    return None


def _carried(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return
    if any(address in network for network in _CARRIERS):
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        yield address.sixtofour
    yield from address.teredo or ()
